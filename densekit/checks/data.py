"""Small data whose true density is known, one set for each thing that can go wrong.

Truth matters more than realism here: a sub-normalized score can never beat the truth by more than
chance allows, and that is the sharpest test of a density there is.
"""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

N_FIT = 400
N_NEW = 2000
_UNSEEN = 0x110000 - 0x800 - 2
"""Unicode characters that are neither a nor b."""


@dataclass(frozen=True, eq=False)
class Data:
    """Rows to fit, held-out rows of the same law, and what is known of that law."""

    name: str
    modality: str
    X: Any
    """Rows to fit."""
    new: Any
    """Held-out rows, independent of ``X``."""
    truth: np.ndarray | None = None
    """True log-density (or log-mass) of ``new``, (len(new),), nats."""
    every: Any = None
    """All rows there can be, where they can be counted."""
    copies: np.ndarray | None = None
    """For how many rows like it each row of ``every`` stands, (len(every),); one unless given."""
    longest: int | None = None
    """Text: the longest string, where ``every`` stops."""
    context: Any = None
    """What the rows to fit are conditioned on."""
    new_context: Any = None
    """What the held-out rows are conditioned on."""

    @property
    def rows(self) -> Any:
        """A dozen held-out rows, for the checks that only need something to score."""
        return take(self.new, slice(0, 12))


def take(X: Any, index: Any) -> Any:
    """Rows of an array, a frame or a list of strings."""
    if isinstance(X, list):
        return X[index] if isinstance(index, slice) else [X[i] for i in index]
    return X.iloc[index] if hasattr(X, "iloc") else X[index]


def join(parts: list[Any]) -> Any:
    """Rows behind one another."""
    if isinstance(parts[0], list):
        return [row for part in parts for row in part]
    if hasattr(parts[0], "iloc"):
        import pandas as pd

        return pd.concat(parts)
    return np.concatenate(parts)


def _log_normal(x: np.ndarray, loc: Any, scale: Any) -> np.ndarray:
    return -0.5 * ((x - loc) / scale) ** 2 - np.log(scale) - 0.5 * math.log(2 * math.pi)


@functools.lru_cache(maxsize=4)
def line(seed: int = 0) -> Data:
    """One column: two normals, 0.7 N(-3, 2) and 0.3 N(9, 1), far from standard."""
    rng = np.random.default_rng(11 + 100 * seed)

    def draw(n: int) -> np.ndarray:
        left = rng.random(n) < 0.7
        return np.where(left, rng.normal(-3, 2, n), rng.normal(9, 1, n))[:, None]

    X, new = draw(N_FIT), draw(N_NEW)
    x = new[:, 0]
    truth = np.logaddexp(
        math.log(0.7) + _log_normal(x, -3, 2), math.log(0.3) + _log_normal(x, 9, 1)
    )
    return Data("line", "table", X, new, truth)


@functools.lru_cache(maxsize=4)
def plane(seed: int = 0) -> Data:
    """Two columns of unlike scale: x ~ N(1, 1), y = 20 + 3 (x - 1) + half its mass 10 higher."""
    rng = np.random.default_rng(12 + 100 * seed)

    def draw(n: int) -> np.ndarray:
        x = rng.normal(1, 1, n)
        y = 20 + 3 * (x - 1) + 10 * (rng.random(n) < 0.5) + rng.normal(0, 1.5, n)
        return np.stack([x, y], 1)

    X, new = draw(N_FIT), draw(N_NEW)
    x, y = new.T
    mean = 20 + 3 * (x - 1)
    truth = _log_normal(x, 1.0, 1.0) + np.logaddexp(
        math.log(0.5) + _log_normal(y, mean, 1.5), math.log(0.5) + _log_normal(y, mean + 10, 1.5)
    )
    return Data("plane", "table", X, new, truth)


@functools.lru_cache(maxsize=4)
def positive(seed: int = 0) -> Data:
    """One positive column, log-normal(0, 0.5)."""
    rng = np.random.default_rng(13 + 100 * seed)
    z, new = rng.normal(0, 0.5, (N_FIT, 1)), rng.normal(0, 0.5, (N_NEW, 1))
    truth = (_log_normal(new, 0.0, 0.5) - new)[:, 0]
    return Data("positive", "table", np.exp(z), np.exp(new), truth)


@functools.lru_cache(maxsize=4)
def unit(seed: int = 0) -> Data:
    """One column inside (0, 1), uniform."""
    rng = np.random.default_rng(14 + 100 * seed)
    X, new = rng.random((N_FIT, 1)), rng.random((N_NEW, 1))
    return Data("unit", "table", X, new, np.zeros(N_NEW))


@functools.lru_cache(maxsize=4)
def cells(seed: int = 0) -> Data:
    """A discrete table: one of three colors, and a boolean that depends on it; six cells."""
    import pandas as pd

    rng = np.random.default_rng(15 + 100 * seed)
    colors = ["blue", "green", "red"]
    joint = np.array([[0.30, 0.10], [0.05, 0.25], [0.20, 0.10]])

    def frame(cell: np.ndarray) -> pd.DataFrame:
        codes = pd.Categorical.from_codes(cell // 2, categories=colors)
        return pd.DataFrame({"color": codes, "large": (cell % 2).astype(bool)})

    cell, new = (rng.choice(6, n, p=joint.ravel()) for n in (N_FIT, N_NEW))
    truth = np.log(joint.ravel())[new]
    return Data("cells", "table", frame(cell), frame(new), truth, frame(np.arange(6)))


@functools.lru_cache(maxsize=4)
def counts(seed: int = 0) -> Data:
    """One integer column, Poisson(4); every value that matters is listed."""
    rng = np.random.default_rng(16 + 100 * seed)
    X, new = rng.poisson(4, (N_FIT, 1)), rng.poisson(4, (N_NEW, 1))
    truth = (special.xlogy(new, 4.0) - 4 - special.gammaln(new + 1))[:, 0]
    return Data("counts", "table", X, new, truth, np.arange(-40, 81)[:, None])


@functools.lru_cache(maxsize=4)
def mixed(seed: int = 0) -> Data:
    """A frame with every kind of column and an unknown density."""
    import pandas as pd

    rng = np.random.default_rng(17 + 100 * seed)

    def draw(n: int) -> pd.DataFrame:
        level = rng.integers(0, 3, n)
        size = pd.Categorical.from_codes(level, categories=["s", "m", "l"], ordered=True)
        frame = pd.DataFrame({"weight": rng.normal(70, 10, n) + 5 * level, "size": size})
        frame["children"] = rng.poisson(2, n)
        frame["member"] = rng.random(n) < 0.4
        frame["city"] = rng.choice(["Bern", "Rome", "Oslo"], n)
        frame["height"] = rng.normal(1.7, 0.1, n).astype("float32")
        frame["born"] = pd.Timestamp("1990-01-01") + pd.to_timedelta(rng.normal(0, 99, n), "D")
        return frame

    return Data("mixed", "table", draw(N_FIT), draw(64))


@functools.lru_cache(maxsize=4)
def images(seed: int = 0) -> Data:
    """uint8 images of 2 x 2 pixels: bright on the left or on the right, with noise."""
    rng = np.random.default_rng(18 + 100 * seed)
    means = np.array([[190.0, 60.0, 170.0, 80.0], [70.0, 180.0, 60.0, 160.0]])
    scale = 20.0

    def draw(n: int) -> np.ndarray:
        which = rng.integers(0, 2, n)
        pixels = np.floor(rng.normal(means[which], scale) + 0.5)
        return np.clip(pixels, 0, 255).astype(np.uint8).reshape(n, 2, 2)

    X, new = draw(N_FIT), draw(N_NEW)
    x = new.reshape(-1, 1, 4).astype(float)
    upper = np.where(x >= 255, 1.0, special.ndtr((x + 0.5 - means) / scale))
    lower = np.where(x <= 0, 0.0, special.ndtr((x - 0.5 - means) / scale))
    log_pixel = np.log(np.maximum(upper - lower, 1e-300)).sum(-1)
    truth = special.logsumexp(log_pixel, axis=1) - math.log(2)
    return Data("images", "image", X, new, truth)


@functools.lru_cache(maxsize=4)
def shades(seed: int = 0) -> Data:
    """Float images of 1 x 2 pixels in (0, 1): one is dark where the other is bright, or the other way
    round. Their density is known, falls to zero at the edges, and two numbers can be integrated over."""
    rng = np.random.default_rng(21 + 100 * seed)
    means, scale = np.array([[-0.6, 0.5], [0.5, -0.4]]), 0.35

    def draw(n: int) -> np.ndarray:
        return means[rng.integers(0, 2, n)] + rng.normal(0, scale, (n, 2))

    v, new = draw(N_FIT), draw(N_NEW)
    each = _log_normal(new[:, None], means, scale).sum(-1)
    # With x the normal probability of v, dx/dv is the normal density at v.
    truth = special.logsumexp(each, axis=1) - math.log(2) - _log_normal(new, 0.0, 1.0).sum(1)
    X, new = (special.ndtr(a).reshape(-1, 1, 2) for a in (v, new))
    return Data("shades", "image", X, new, truth)


@functools.lru_cache(maxsize=4)
def lit(seed: int = 0) -> Data:
    """Float images of 1 x 2 pixels given c, uniform on [-1, 1]: the normal quantiles of both are
    N(c, 0.5)."""
    rng = np.random.default_rng(22 + 100 * seed)
    c = rng.uniform(-1, 1, (600, 1))
    X = special.ndtr(c + rng.normal(0, 0.5, (600, 2))).reshape(-1, 1, 2)
    return Data("lit", "image", X, X, context=c)


@functools.lru_cache(maxsize=4)
def strings(seed: int = 0) -> Data:
    """Strings of a and b, at most three long: a Markov chain that is made to stop at three.

    In the list of all strings ``"?"`` stands for every character that training never showed, so
    that what a model keeps back for the unknown is counted too.
    """
    rng = np.random.default_rng(19 + 100 * seed)
    stop, first = 0.3, {"a": 0.7, "b": 0.3}
    after = {"": first, "a": {"a": 0.2, "b": 0.8}, "b": {"a": 0.6, "b": 0.4}}

    def log_mass(word: str) -> float:
        chain = zip(["", *word], word, strict=False)
        spelled = sum(math.log(after[last][letter]) for last, letter in chain)
        going = max(len(word) - 1, 0) * math.log(1 - stop)
        return spelled + going + (math.log(stop) if len(word) < 3 else 0.0)

    words = ["".join(w) for n in (1, 2, 3) for w in itertools.product("ab", repeat=n)]
    p = np.exp([log_mass(word) for word in words])
    X, new = (list(rng.choice(words, n, p=p / p.sum())) for n in (N_FIT, N_NEW))
    X, new = [str(w) for w in X], [str(w) for w in new]
    every = ["".join(w) for n in range(4) for w in itertools.product("ab?", repeat=n)]
    copies = np.array([_UNSEEN ** word.count("?") for word in every], dtype=float)
    truth = np.array([log_mass(word) for word in new])
    return Data("strings", "text", X, new, truth, every, copies, longest=3)


@functools.lru_cache(maxsize=4)
def conditional(seed: int = 0) -> Data:
    """x ~ N(4 c, 1) given c, with c uniform on [-1, 1]."""
    rng = np.random.default_rng(20 + 100 * seed)
    c = rng.uniform(-1, 1, (600, 1))
    X = 4 * c + rng.normal(0, 1, (600, 1))
    return Data("conditional", "table", X, X, context=c)


SETS: dict[str, Callable[..., Data]] = {
    f.__name__: f
    for f in (
        line,
        plane,
        positive,
        unit,
        cells,
        counts,
        mixed,
        images,
        shades,
        lit,
        strings,
        conditional,
    )
}
