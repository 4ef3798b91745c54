"""Sources of text and of tiny images whose probabilities and entropy are known; :mod:`toys` draws
from them."""

import functools
import math
from typing import Any

import numpy as np
from scipy.special import entr, logsumexp
from sklearn.utils import check_random_state

from densekit.datasets.base import Truth, rows_of

__all__ = ["IsingImages", "MarkovText"]


class MarkovText(Truth):
    r"""Strings from a Markov chain over letters and an end symbol.

    .. math::  P(a_1 \dots a_n) = \pi_{a_1} \prod_{i=2}^{n} P_i(a_i \mid a_{i-1})\,
               e_{a_n} [n \ge m], \qquad P(a \mid b) = (1 - e_b)\,Q_{ba}, \quad
               P_i = Q \text{ for } i \le m, \; P_i = P \text{ after that}.

    After letter :math:`b` the string ends with probability :math:`e_b` once it has :math:`m`
    letters, and not before. The chain is random but fixed by a seed: :math:`\pi` and the rows of
    :math:`Q` are Dirichlet, :math:`1 / e_b - 1` is around ``mean_tail``. They are the attributes
    ``initial`` (K,), ``transition`` (K, K) and ``end`` (K,).

    The entropy is a sum over the visits that the chain makes. With :math:`h_b` the entropy of the
    step from :math:`b`, end included, and :math:`g_b` without,

    .. math::  H = H(\pi) + \sum_{i=0}^{m-2} \pi Q^i g + \pi Q^{m-1} (I - P)^{-1} h.

    Parameters
    ----------
    alphabet : str
        At least two different letters; they are kept in sorted order.
    min_length : int
        Length :math:`m` of the shortest string, at least 1.
    mean_tail : float
        How many letters come after the first ``min_length``, roughly and on average; positive.
    concentration : float
        Of the Dirichlet laws, positive: the smaller, the more predictable the text.
    seed : int
        Seed of the parameters, in a stream that NumPy has frozen.

    Raises
    ------
    ValueError
        A parameter outside its range, or a letter given twice.

    Examples
    --------
    >>> source = MarkovText("ab", min_length=1)
    >>> texts = source.sample(3, random_state=0)
    >>> len(texts), source.log_prob(texts).shape, source.log_prob(["", "abc"]).tolist()
    (3, (3,), [-inf, -inf])
    """

    n_dims = None
    base_measure = "counting"

    def __init__(
        self,
        alphabet: str = "abcdefghij",
        min_length: int = 12,
        mean_tail: float = 28.0,
        concentration: float = 0.7,
        seed: int = 0,
    ):
        if len(set(alphabet)) != len(alphabet) or len(alphabet) < 2:
            raise ValueError(f"alphabet={alphabet!r}: must be two or more letters, each once")
        if min_length < 1:
            raise ValueError(f"min_length={min_length!r}: must be at least 1")
        if not (mean_tail > 0 and concentration > 0):
            raise ValueError(
                f"mean_tail={mean_tail!r}, concentration={concentration!r}: must be positive"
            )
        self.alphabet, self.min_length = "".join(sorted(alphabet)), min_length
        self.mean_tail, self.concentration, self.seed = mean_tail, concentration, seed
        rng, k = np.random.RandomState(seed), len(alphabet)
        # A floor keeps every string possible.
        rows = rng.dirichlet(np.full(k, concentration), size=k + 1) + 1e-3 / k
        self.initial, self.transition = (
            rows[0] / rows[0].sum(),
            rows[1:] / rows[1:].sum(1)[:, None],
        )
        self.end = 1 / (1 + mean_tail * rng.uniform(0.5, 1.5, size=k))

    def log_prob(self, X: Any) -> np.ndarray:
        """Log-probability in nats of each string, its end included, (n,); -inf where it is too
        short or has a foreign letter.

        Raises
        ------
        TypeError
            X is one string, or an item is not a string.
        """
        texts = _strings(X)
        length = np.fromiter(map(len, texts), dtype=int, count=len(texts))
        # One state past the letters stands for every foreign sign, and leads nowhere.
        letters = np.array([ord(a) for a in self.alphabet])
        signs = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4")
        code = np.searchsorted(letters, signs).clip(max=len(letters) - 1)
        code = np.where(letters[code] == signs, code, len(letters))
        row = np.repeat(np.arange(len(texts)), length)
        start = np.cumsum(length) - length
        place = np.arange(len(code)) - start[row]

        first, step, last = self._log_tables
        own = np.where(place == 0, first[code], step[np.roll(code, 1), code])
        # Each letter from the second stage on was reached by not ending before it.
        stayed = place >= self.min_length
        own[stayed] += np.log1p(-self.end)[np.roll(code, 1)[stayed].clip(max=len(letters) - 1)]
        at_end = place == length[row] - 1
        own[at_end] += last[code[at_end]]
        total = np.bincount(row, weights=own, minlength=len(texts))
        return np.where(length >= self.min_length, total, -math.inf)

    @functools.cached_property
    def _log_tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log of initial, transition and end, with -inf for the foreign state."""
        first = np.append(np.log(self.initial), -math.inf)
        step = np.pad(np.log(self.transition), (0, 1), constant_values=-math.inf)
        return first, step, np.append(np.log(self.end), -math.inf)

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> list[str]:
        """Independent strings, a list of n_samples."""
        rng = check_random_state(random_state)
        code = _draw(np.tile(self.initial, (n_samples, 1)), rng)
        columns, alive = [code], np.ones(n_samples, dtype=bool)
        length = np.ones(n_samples, dtype=int)
        while alive.any():
            if len(columns) >= self.min_length:
                alive &= rng.uniform(size=n_samples) >= self.end[code]
            code = _draw(self.transition[code], rng)
            columns.append(code)
            length += alive
        lines = np.array(list(self.alphabet))[np.stack(columns, 1)]
        return ["".join(line[:n]) for line, n in zip(lines, length, strict=True)]

    @functools.cached_property
    def entropy(self) -> float:
        """Entropy of a string in nats, exact: linear algebra."""
        go = entr(self.transition).sum(1)
        stop_or_go = entr(self.end) + entr(1 - self.end) + (1 - self.end) * go
        total, here = float(entr(self.initial).sum()), self.initial
        for _ in range(self.min_length - 1):
            total += float(here @ go)
            here = here @ self.transition
        goes_on = (1 - self.end)[:, None] * self.transition
        ahead = np.linalg.solve(np.eye(len(self.end)) - goes_on, stop_or_go)
        return total + float(here @ ahead)


class IsingImages(Truth):
    r"""Black and white images in which neighboring pixels tend to agree: the Ising model.

    .. math::  P(x) = \frac{1}{Z} \exp\Big( J \sum_{i \sim j} s_i s_j + h \sum_i s_i \Big), \qquad
               s_i = 2 x_i - 1, \quad x_i \in \{0, 1\},

    over pairs of pixels side by side or above each other, without wrapping around. An image is a
    Markov chain of its rows, of which there are :math:`2^W`: the transfer matrix (Kramers and
    Wannier 1941) gives :math:`Z`, exact samples and the exact entropy.

    Parameters
    ----------
    height, width : int
        Pixels, at least 1; the width at most 10, where a transfer matrix takes 8 MB.
    coupling : float
        The strength :math:`J`; an infinite image would order at 0.4407.
    field : float
        The preference :math:`h` for ones.

    Raises
    ------
    ValueError
        ``height`` or ``width`` is out of range.

    Examples
    --------
    >>> fair = IsingImages(2, 3, coupling=0.0)    # six coins
    >>> fair.log_prob(np.zeros((1, 2, 3), dtype=np.uint8)) / np.log(2)
    array([-6.])
    """

    n_dims: int
    base_measure = "counting"

    def __init__(
        self, height: int = 8, width: int = 8, coupling: float = 0.35, field: float = 0.0
    ):
        if height < 1 or not 1 <= width <= 10:
            raise ValueError(
                f"height={height!r}, width={width!r}: height must be at least 1 and width lie in "
                "1..10, since the transfer matrix has 4^width entries"
            )
        self.height, self.width, self.coupling, self.field = height, width, coupling, field
        self.n_dims = height * width

    def log_prob(self, X: Any) -> np.ndarray:
        """Log-probability in nats, (n,), of images (n, height, width); -inf where a pixel is
        neither 0 nor 1."""
        x = np.asarray(rows_of(X))
        if x.ndim != 3 or x.shape[1:] != (self.height, self.width):
            raise ValueError(
                f"X has shape {x.shape}: {type(self).__name__} scores images of shape "
                f"(n, {self.height}, {self.width})"
            )
        s = 2.0 * x - 1
        agree = (s[:, 1:] * s[:, :-1]).sum((1, 2)) + (s[:, :, 1:] * s[:, :, :-1]).sum((1, 2))
        score = self.coupling * agree + self.field * s.sum((1, 2)) - self._log_z
        return np.where(np.isin(x, (0, 1)).all((1, 2)), score, -math.inf)

    @functools.cached_property
    def _rows_of_pixels(self) -> np.ndarray:
        """All rows that there are, (2^width, width), as signs."""
        bits = np.arange(2**self.width)[:, None] >> np.arange(self.width)
        return 2.0 * (bits % 2) - 1

    @functools.cached_property
    def _messages(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log-weight of a row by itself (R,), of a pair of rows (R, R), and for each place in the
        image the log-weight of all that can come below a row, (height, R)."""
        s = self._rows_of_pixels
        alone = self.coupling * (s[:, 1:] * s[:, :-1]).sum(1) + self.field * s.sum(1)
        pair = self.coupling * s @ s.T
        below = np.zeros((self.height, len(s)))
        for i in range(self.height - 2, -1, -1):
            below[i] = logsumexp(pair + alone + below[i + 1], axis=1)
        return alone, pair, below

    @functools.cached_property
    def _log_z(self) -> float:
        alone, _, below = self._messages
        return float(logsumexp(alone + below[0]))

    def _first(self) -> np.ndarray:
        """Probability of each top row, (R,)."""
        alone, _, below = self._messages
        return np.exp(alone + below[0] - self._log_z)

    def _next(self, i: int) -> np.ndarray:
        """Probability of each row at place i given the one above, (R above, R)."""
        alone, pair, below = self._messages
        return np.exp(pair + alone + below[i] - below[i - 1][:, None])

    def sample(self, n_samples: int = 1, *, random_state: Any = None) -> np.ndarray:
        """Independent images, uint8 (n_samples, height, width)."""
        rng = check_random_state(random_state)
        row = _draw(np.tile(self._first(), (n_samples, 1)), rng)
        rows = [row]
        for i in range(1, self.height):
            row = _draw(self._next(i)[row], rng)
            rows.append(row)
        return (self._rows_of_pixels[np.stack(rows, 1)] > 0).astype(np.uint8)

    @functools.cached_property
    def entropy(self) -> float:
        """Entropy of an image in nats, exact: that of the chain of its rows."""
        here = self._first()
        total = float(entr(here).sum())
        for i in range(1, self.height):
            step = self._next(i)
            total += float(here @ entr(step).sum(1))
            here = here @ step
        return total


def _draw(p: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """One code per row of probabilities ``p``, (n, K) to (n,)."""
    edges = p.cumsum(1)
    # Scaled by the last edge, so that a sum a rounding below one leaves no gap.
    u = rng.uniform(size=(len(p), 1)) * edges[:, -1:]
    return (u >= edges).sum(1)


def _strings(X: Any) -> list[str]:
    rows = rows_of(X)
    if isinstance(rows, str):
        raise TypeError("X is one string; pass a list of strings, one per row")
    texts = list(rows)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"X[{i}] is {text!r}, of type {type(text).__name__}, not a string")
    return texts
