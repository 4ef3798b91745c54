"""Beam search for the most probable strings of a next-token model."""

import torch
from torch import Tensor

from densekit.distributions.sequence import END, PADDING, NextToken


@torch.no_grad()
def beam_search(
    model: NextToken,
    given: Tensor,
    max_length: int,
    n_beams: int,
    never: tuple[int, ...] = (),
) -> tuple[Tensor, Tensor]:
    """Search for the most probable strings by keeping the ``n_beams`` best partial strings at every
    step.

    Finished strings stay among the beams, and the search ends when all are finished.
    Log-probabilities are compared without a correction for length. With as many beams as there are
    strings of less than full length the result is the exact optimum; one beam is greedy search.

    Parameters
    ----------
    model : NextToken
    given : Tensor
        The tokens before each string, (n, P), as in
        :class:`~densekit.distributions.sequence.NextToken`.
    max_length : int
        Largest number of tokens of a string; after these END is certain.
    n_beams : int
        Number of partial strings.
    never : tuple of int
        Ids that no string may contain. Their probability is not given to other tokens.

    Returns
    -------
    tokens : Tensor
        Ids (n, n_beams, max_length + 1), closed by END and padded, best first.
    log_prob : Tensor
        Their log-probabilities (n, n_beams). It is -inf, with meaningless tokens, where fewer
        strings exist.

    Examples
    --------
    >>> from densekit.distributions.backoff import BackoffTable
    >>> model = BackoffTable(torch.tensor([0.0, 0.3, 0.25, 0.45]), [])
    >>> tokens, logp = beam_search(model, torch.tensor([[1]]), max_length=2, n_beams=2)
    >>> tokens[0].tolist(), logp[0].exp()
    ([[1, 0, 0], [3, 3, 1]], tensor([0.3000, 0.2025]))
    """
    n, b = len(given), n_beams
    row = torch.arange(n, device=given.device)[:, None]
    tokens = given.new_zeros(n, b, max_length + 1)
    logits, state = model.start(given)
    # All beams start with the empty string; only the first of them counts.
    total = logits.new_full((n, b), -torch.inf)
    total[:, 0] = 0
    of_beam = row.expand(n, b).flatten()
    logits, state = logits[of_beam], model.keep(state, of_beam)
    alive = torch.ones_like(total, dtype=torch.bool)
    for t in range(max_length):
        logp = logits.log_softmax(-1)
        logp[:, list(never)] = -torch.inf
        padded = torch.full_like(logp, -torch.inf)
        # A finished string continues with padding, which has log-probability zero.
        padded[:, PADDING] = 0
        logp = torch.where(alive.flatten()[:, None], logp, padded).view(n, b, -1)
        total, best = (total[..., None] + logp).flatten(1).topk(b)
        beam, token = best // logp.shape[2], best % logp.shape[2]
        tokens, alive = tokens[row, beam], alive[row, beam] & (token > END)
        tokens[:, :, t] = token
        if not alive.any():
            return tokens, total
        state = model.keep(state, (row * b + beam).flatten())
        if t + 1 < max_length:
            logits, state = model.step(token.flatten(), state)
    tokens[:, :, max_length] = torch.where(alive, END, PADDING)
    return tokens, total
