"""Strings longer than a next-token model has learned to read, scored in windows that overlap."""

import torch
from torch import Tensor

from densekit.distributions.sequence import END, PADDING, NextToken

_TOKENS_AT_ONCE = 2**14


def score_in_windows(model: NextToken, row: Tensor, window: int, overlap: int) -> Tensor:
    r"""Log-mass of one string of any length, closed by END, in nats: ().

    .. math:: \log q(x) = \sum_{t=1}^{T} \log p(x_t \mid x_{s(t)}, \dots, x_{t-1}),
              \qquad x_T = \text{END}

    where token t is in the first window, :math:`s(t) = 1`, up to t = W; after that windows of W
    tokens follow each other by W - O, each predicts what is new in it, and :math:`s(t)` is the first
    token of the window that t is new in. Since s depends on the place alone and each factor sums to
    one over tokens, q is a mass over all strings, of whatever length. Every token sees O tokens
    before it at least (or all there are), and W - 1 at most.

    Parameters
    ----------
    model : NextToken
    row : Tensor
        Ids (T,) with END last and nowhere else.
    window, overlap : int
        W and O, 0 <= O < W.

    Examples
    --------
    >>> from densekit.distributions.backoff import BackoffTable
    >>> fair = BackoffTable(torch.tensor([0.0, 0.25, 0.25, 0.5]), [])
    >>> row = torch.tensor([3] * 9 + [1])
    >>> round(score_in_windows(fair, row, 4, 2).item() / torch.tensor(0.5).log().item(), 6)
    11.0
    """
    shift = window - overlap
    total = model.log_probs(row.new_full((1, 1), END), row[None, :window]).sum()
    rest = row[window:]
    if not len(rest):
        return total
    n = -(-len(rest) // shift)
    tokens = torch.nn.functional.pad(rest, (0, n * shift - len(rest)), value=PADDING).view(
        n, shift
    )
    # What the k-th of them sees begins at the place shift (k + 1).
    seen = shift * (1 + torch.arange(n, device=row.device))[:, None]
    seen = row[seen + torch.arange(overlap, device=row.device)]
    given = torch.cat([row.new_full((n, 1), END), seen], 1)
    at_once = max(1, _TOKENS_AT_ONCE // (window + 1))
    for g, x in zip(given.split(at_once), tokens.split(at_once), strict=True):
        total = total + model.log_probs(g, x).sum()
    return total
