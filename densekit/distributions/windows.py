"""Scores of strings longer than a model's training strings, in overlapping windows."""

import torch
from torch import Tensor

from densekit.distributions.sequence import END, PADDING, NextToken

_BATCH_TOKENS = 2**14


def score_in_windows(model: NextToken, row: Tensor, window: int, overlap: int) -> Tensor:
    r"""Log-probability in nats of one string of any length, closed by END: a scalar.

    .. math:: \log q(x) = \sum_{t=1}^{T} \log p(x_t \mid x_{s(t)}, \dots, x_{t-1}),
              \qquad x_T = \text{END}

    The first window predicts tokens up to t = W, so that :math:`s(t) = 1` for them. Each further
    window of W tokens starts W - O tokens after the one before and predicts the tokens that are
    new in it, and :math:`s(t)` is its first token. Since s depends on the position only and each
    factor sums to one over tokens, q is a probability over all strings of any length. Every token
    is predicted from at least O tokens before it, or all there are, and from at most W - 1.

    Parameters
    ----------
    model : NextToken
    row : Tensor
        Ids (T,); the last one, and no other, is END.
    window, overlap : int
        W and O, 0 <= O < W.

    Returns
    -------
    Tensor of shape ()

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
    # The context of window k begins at position shift * (k + 1).
    starts = shift * (1 + torch.arange(n, device=row.device))[:, None]
    context = row[starts + torch.arange(overlap, device=row.device)]
    given = torch.cat([row.new_full((n, 1), END), context], 1)
    n_windows = max(1, _BATCH_TOKENS // (window + 1))
    for g, x in zip(given.split(n_windows), tokens.split(n_windows), strict=True):
        total = total + model.log_probs(g, x).sum()
    return total
