"""Beam search: the likeliest strings of a next-token model, or nearly."""

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
    """Strings found by keeping the ``n_beams`` likeliest beginnings at every step, best first.

    Strings that have ended stay among the beams, and the search ends when all have. Log-masses are
    compared as they are, without a reward for length. As many beams as there are strings of less than
    full length find the best for certain; one beam takes the likeliest token each time.

    Parameters
    ----------
    model : NextToken
    given : Tensor
        What comes before, (n, P), as :class:`~densekit.distributions.sequence.NextToken` takes it.
    max_length : int
        Tokens that a string may have; END is certain behind them.
    n_beams : int
    never : tuple of int
        Ids that no string may have. What mass they have is no other token's.

    Returns
    -------
    tokens : Tensor
        Ids (n, n_beams, max_length + 1), closed by END and padded.
    log_prob : Tensor
        Their log-masses, (n, n_beams); -inf, and tokens without a meaning, where strings are fewer.

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
    # At first all beams are the same, the empty beginning: one of them counts.
    total = logits.new_full((n, b), -torch.inf)
    total[:, 0] = 0
    of_beam = row.expand(n, b).flatten()
    logits, state = logits[of_beam], model.keep(state, of_beam)
    alive = torch.ones_like(total, dtype=torch.bool)
    for t in range(max_length):
        logp = logits.log_softmax(-1)
        logp[:, list(never)] = -torch.inf
        stay = torch.full_like(logp, -torch.inf)
        stay[:, PADDING] = 0  # a string that has ended goes on with padding, at no cost
        logp = torch.where(alive.flatten()[:, None], logp, stay).view(n, b, -1)
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
