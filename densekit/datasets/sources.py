"""Distributions of text and of small images with known probabilities and entropy."""

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

    A string has at least :math:`m` letters. From then on it ends after letter :math:`b` with probability
    :math:`e_b`. The parameters are random but fixed by a seed: :math:`\pi` and the rows of :math:`Q` are
    Dirichlet distributed, and :math:`1 / e_b - 1` is close to ``mean_tail``. They are the attributes
    ``initial`` (K,), ``transition`` (K, K) and ``end`` (K,).

    The entropy is a sum over the expected visits of the chain to each letter. With :math:`h_b` the
    entropy of the step from :math:`b` including the end, and :math:`g_b` that without the end,

    .. math::  H = H(\pi) + \sum_{i=0}^{m-2} \pi Q^i g + \pi Q^{m-1} (I - P)^{-1} h.

    Parameters
    ----------
    alphabet : str
        At least two different letters; the attribute has them in sorted order.
    min_length : int
        Length :math:`m` of the shortest strings, at least 1.
    mean_tail : float
        Approximate mean number of letters after the first ``min_length``; positive.
    concentration : float
        Concentration of the Dirichlet distributions, positive. Text is more predictable if it is small.
    seed : int
        Seed of the parameters, which are the same in all versions of NumPy.

    Raises
    ------
    ValueError
        A parameter is outside its range, or ``alphabet`` has a letter twice.

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
            raise ValueError(f"alphabet={alphabet!r}: must be at least two different letters")
        if min_length < 1:
            raise ValueError(f"min_length={min_length!r}: must be at least 1")
        if not (mean_tail > 0 and concentration > 0):
            raise ValueError(
                f"mean_tail={mean_tail!r}, concentration={concentration!r}: must be positive"
            )
        self.alphabet, self.min_length = "".join(sorted(alphabet)), min_length
        self.mean_tail, self.concentration, self.seed = mean_tail, concentration, seed
        rng, k = np.random.RandomState(seed), len(alphabet)
        # The constant gives every transition, and so every string, a positive probability.
        rows = rng.dirichlet(np.full(k, concentration), size=k + 1) + 1e-3 / k
        self.initial, self.transition = (
            rows[0] / rows[0].sum(),
            rows[1:] / rows[1:].sum(1)[:, None],
        )
        self.end = 1 / (1 + mean_tail * rng.uniform(0.5, 1.5, size=k))

    def log_prob(self, X: Any) -> np.ndarray:
        """Log-probability in nats of each string including its end, (n,).

        It is -inf for a string that is too short or has a letter outside the alphabet.

        Raises
        ------
        TypeError
            X is a single string, or an item is not a string.
        """
        texts = _strings(X)
        length = np.fromiter(map(len, texts), dtype=int, count=len(texts))
        # One more state stands for all other characters; it has probability zero.
        letters = np.array([ord(a) for a in self.alphabet])
        points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4")
        code = np.searchsorted(letters, points).clip(max=len(letters) - 1)
        code = np.where(letters[code] == points, code, len(letters))
        row = np.repeat(np.arange(len(texts)), length)
        start = np.cumsum(length) - length
        position = np.arange(len(code)) - start[row]

        first, step, last = self._log_tables
        log_terms = np.where(position == 0, first[code], step[np.roll(code, 1), code])
        # A letter after the first min_length includes the probability that no end came before it.
        continued = position >= self.min_length
        previous = np.roll(code, 1)[continued].clip(max=len(letters) - 1)
        log_terms[continued] += np.log1p(-self.end)[previous]
        at_end = position == length[row] - 1
        log_terms[at_end] += last[code[at_end]]
        total = np.bincount(row, weights=log_terms, minlength=len(texts))
        return np.where(length >= self.min_length, total, -math.inf)

    @functools.cached_property
    def _log_tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Logarithms of initial, transition and end, with -inf for the state of other characters."""
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
        """Exact entropy of a string in nats."""
        step_entropy = entr(self.transition).sum(1)
        with_end = entr(self.end) + entr(1 - self.end) + (1 - self.end) * step_entropy
        total, state = float(entr(self.initial).sum()), self.initial
        for _ in range(self.min_length - 1):
            total += float(state @ step_entropy)
            state = state @ self.transition
        continuing = (1 - self.end)[:, None] * self.transition
        remaining = np.linalg.solve(np.eye(len(self.end)) - continuing, with_end)
        return total + float(state @ remaining)


class IsingImages(Truth):
    r"""Binary images from an Ising model, in which neighboring pixels tend to be equal.

    .. math::  P(x) = \frac{1}{Z} \exp\Big( J \sum_{i \sim j} s_i s_j + h \sum_i s_i \Big), \qquad
               s_i = 2 x_i - 1, \quad x_i \in \{0, 1\},

    where :math:`i \sim j` are horizontal and vertical neighbors, without periodic boundaries. The
    rows of an image are a Markov chain with :math:`2^W` states. Its transfer matrix gives
    :math:`Z`, exact samples and the exact entropy.

    Parameters
    ----------
    height, width : int
        Size in pixels, at least 1. The width is at most 10, where the transfer matrix takes 8 MB.
    coupling : float
        The coupling :math:`J`; the critical value of an infinite image is 0.4407.
    field : float
        The external field :math:`h`; ones are more probable if it is positive.

    Raises
    ------
    ValueError
        ``height`` or ``width`` is out of range.

    References
    ----------
    Kramers and Wannier (1941), *Statistics of the two-dimensional ferromagnet*,
    https://doi.org/10.1103/PhysRev.60.252

    Examples
    --------
    Without coupling the six pixels are independent:

    >>> fair = IsingImages(2, 3, coupling=0.0)
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
                f"height={height!r}, width={width!r}: height must be at least 1 and width from 1 to "
                "10, because the transfer matrix has 4^width entries"
            )
        self.height, self.width, self.coupling, self.field = height, width, coupling, field
        self.n_dims = height * width

    def log_prob(self, X: Any) -> np.ndarray:
        """Log-probability in nats, (n,), of images (n, height, width).

        It is -inf for an image with a pixel that is neither 0 nor 1.
        """
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
        """All possible rows of pixels as -1 and 1, (2^width, width)."""
        bits = np.arange(2**self.width)[:, None] >> np.arange(self.width)
        return 2.0 * (bits % 2) - 1

    @functools.cached_property
    def _messages(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log-weights of the Markov chain of R possible rows: single, pair and below.

        ``single`` (R,) is the weight of a row, ``pair`` (R, R) that of the coupling between two adjacent
        rows, and ``below`` (height, R) the summed weight of all continuations below a row at a height.
        """
        s = self._rows_of_pixels
        single = self.coupling * (s[:, 1:] * s[:, :-1]).sum(1) + self.field * s.sum(1)
        pair = self.coupling * s @ s.T
        below = np.zeros((self.height, len(s)))
        for i in range(self.height - 2, -1, -1):
            below[i] = logsumexp(pair + single + below[i + 1], axis=1)
        return single, pair, below

    @functools.cached_property
    def _log_z(self) -> float:
        single, _, below = self._messages
        return float(logsumexp(single + below[0]))

    def _first(self) -> np.ndarray:
        """Probability of each possible row at the top of the image, (R,)."""
        single, _, below = self._messages
        return np.exp(single + below[0] - self._log_z)

    def _next(self, i: int) -> np.ndarray:
        """Probability of each row at height i given the row above, (R above, R)."""
        single, pair, below = self._messages
        return np.exp(pair + single + below[i] - below[i - 1][:, None])

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
        """Exact entropy of an image in nats, that of the Markov chain of its rows."""
        state = self._first()
        total = float(entr(state).sum())
        for i in range(1, self.height):
            step = self._next(i)
            total += float(state @ entr(step).sum(1))
            state = state @ step
        return total


def _draw(p: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Draw one index per row of probabilities ``p`` (n, K), shape (n,)."""
    edges = p.cumsum(1)
    # Rounding may make the sum less than one, so the uniform draw is scaled by the sum.
    u = rng.uniform(size=(len(p), 1)) * edges[:, -1:]
    return (u >= edges).sum(1)


def _strings(X: Any) -> list[str]:
    """The rows of ``X`` as a validated list of strings."""
    rows = rows_of(X)
    if isinstance(rows, str):
        raise TypeError("X is one string; pass a list of strings, one per row")
    texts = list(rows)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"X[{i}] is {text!r}, of type {type(text).__name__}, not a string")
    return texts
