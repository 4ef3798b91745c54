"""Tables of one to twelve columns, with contexts, atoms, days and levels."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import special

from densekit.checks.data import N_FIT, N_NEW, Data

WIDTHS = (1, 2, 3, 5, 12)
"""Numbers of columns that checks try."""


@functools.lru_cache(maxsize=16)
def columns(d: int, seed: int = 0) -> Data:
    r"""d correlated columns of unlike location and scale, every other one skewed.

    Normals z with correlation :math:`0.6^{|i - j|}`; column j is z_j or sinh(0.6 z_j + 0.2), moved and
    scaled.
    """
    rng = np.random.default_rng(30 + d + 100 * seed)
    place = np.arange(d)
    correlation = 0.6 ** np.abs(place[:, None] - place)
    root = np.linalg.cholesky(correlation)
    skewed, scale = place % 2 == 1, 10.0 ** (place % 3 - 1)

    def rows(z: np.ndarray) -> np.ndarray:
        return 10.0 * place - 3 + scale * np.where(skewed, np.sinh(0.6 * z + 0.2), z)

    z, new = (rng.normal(size=(n, d)) @ root.T for n in (N_FIT, N_NEW))
    slope = scale * np.where(skewed, 0.6 * np.cosh(0.6 * new + 0.2), 1.0)
    white = np.linalg.solve(root, new.T).T
    normal = (
        -0.5 * (white**2).sum(1) - np.log(np.diag(root)).sum() - 0.5 * d * math.log(2 * math.pi)
    )
    return Data(f"columns{d}", "table", rows(z), rows(new), normal - np.log(slope).sum(1))


def _of_width(d: int) -> Callable[..., Data]:
    return lambda seed=0: columns(d, seed)


CONTEXTS = ("first", "second", "group")
"""Names of the columns of the context of :func:`contextual`."""


@functools.lru_cache(maxsize=4)
def contextual(seed: int = 0) -> Data:
    """Two columns given two numbers and a category, each of which moves both; other ones in each row.

    The first column has correlations of 0.45 to 0.55 with each of the three.
    """
    import pandas as pd

    rng = np.random.default_rng(23 + 100 * seed)

    def draw(n: int) -> tuple[np.ndarray, pd.DataFrame, np.ndarray]:
        first, second = rng.normal(0, 1, n), rng.normal(50, 10, n)
        code = rng.integers(0, 3, n)
        group = pd.Categorical.from_codes(code, categories=["low", "middle", "high"])
        given = pd.DataFrame({"first": first, "second": second, "group": group})
        mean = first + (second - 50) / 10 + 1.2 * (code - 1)
        noise = rng.normal(size=(n, 2))
        x = mean + noise[:, 0]
        y = 100 - 20 * mean + 20 * (0.6 * noise[:, 0] + 0.8 * noise[:, 1])
        truth = -0.5 * (noise**2).sum(1) - math.log(2 * math.pi) - math.log(20 * 0.8)
        return np.stack([x, y], 1), given, truth

    X, given, _ = draw(600)
    new, new_given, truth = draw(N_NEW)
    return Data("contextual", "table", X, new, truth, context=given, new_context=new_given)


@functools.lru_cache(maxsize=4)
def inflated(seed: int = 0) -> Data:
    """A category, an ordered category, and a column that is 0 in four of ten rows and else log-normal,
    with a location that depends on both."""
    rng = np.random.default_rng(24 + 100 * seed)

    def draw(n: int) -> Any:
        code, level = (rng.random(n) < 0.3).astype(int), rng.integers(0, 3, n)
        spent = np.exp(rng.normal(0.5 * level + code, 0.5))
        spent = np.where(rng.random(n) < 0.3 + 0.2 * code, 0.0, spent)
        return inflated_frame(code, level, spent)

    return Data("inflated", "table", draw(N_FIT), draw(N_NEW))


def inflated_frame(code: np.ndarray, level: np.ndarray, spent: np.ndarray) -> Any:
    """Rows of :func:`inflated` of codes 0 and 1, levels 0 to 2 and what was spent, each (n,)."""
    import pandas as pd

    return pd.DataFrame(
        {
            "plan": pd.Categorical.from_codes(code, categories=["basic", "premium"]),
            "size": pd.Categorical.from_codes(level, categories=["s", "m", "l"], ordered=True),
            "spent": spent,
        }
    )


@functools.lru_cache(maxsize=4)
def days(seed: int = 0) -> Data:
    """One column of days, some 20 around the first of June 2021; every day that matters is listed."""
    rng = np.random.default_rng(25 + 100 * seed)
    origin = np.datetime64("2021-06-01")

    X, new = (rng.poisson(9, n) for n in (N_FIT, N_NEW))
    truth = special.xlogy(new, 9.0) - 9 - special.gammaln(new + 1)
    # An array of days and not a frame: pandas has no dtype of days, and would make instants of them.
    every = (origin + np.arange(-60, 120).astype("timedelta64[D]"))[:, None]
    X, new = ((origin + v.astype("timedelta64[D]"))[:, None] for v in (X, new))  # type: ignore[assignment]
    return Data("days", "table", X, new, truth, every)


@functools.lru_cache(maxsize=4)
def ranks(seed: int = 0) -> Data:
    """An ordered category of five levels, of shares 0.1 to 0.35, beside a boolean; ten cells."""
    import pandas as pd

    rng = np.random.default_rng(26 + 100 * seed)
    levels = ["never", "rarely", "sometimes", "often", "always"]
    joint = np.array([[0.06, 0.04], [0.05, 0.15], [0.2, 0.15], [0.15, 0.1], [0.02, 0.08]])

    def frame(cell: np.ndarray) -> pd.DataFrame:
        rank = pd.Categorical.from_codes(cell // 2, categories=levels, ordered=True)
        return pd.DataFrame({"rank": rank, "member": (cell % 2).astype(bool)})

    cell, new = (rng.choice(10, n, p=joint.ravel()) for n in (N_FIT, N_NEW))
    return Data(
        "ranks", "table", frame(cell), frame(new), np.log(joint.ravel())[new], frame(np.arange(10))
    )


_NOON = np.datetime64("2021-06-01T12:00:00", "ns")


@functools.lru_cache(maxsize=4)
def instants(seed: int = 0) -> Data:
    """One column of instants, normal with a standard deviation of five hours, to the nanosecond."""
    rng = np.random.default_rng(27 + 100 * seed)
    X, new = (rng.normal(0, 5 * 3600, n) for n in (N_FIT, N_NEW))
    truth = -0.5 * (new / 18_000) ** 2 - math.log(18_000) - 0.5 * math.log(2 * math.pi)
    return Data("instants", "table", instants_frame(X), instants_frame(new), truth)


def instants_frame(after: np.ndarray) -> Any:
    """A column of instants, (n, 1), so many seconds after a noon in 2021, (n,)."""
    import pandas as pd

    return pd.DataFrame({"at": _NOON + np.round(after * 1e9).astype("timedelta64[ns]")})


def seconds(frame: Any) -> np.ndarray:
    """Seconds after that noon, (n,), of such a column."""
    at = np.asarray(frame["at"]).astype("datetime64[ns]")
    out: np.ndarray = (at - _NOON).astype(np.int64) / 1e9
    return out


SETS: dict[str, Callable[..., Data]] = {
    **{f"columns{d}": _of_width(d) for d in WIDTHS},
    **{f.__name__: f for f in (contextual, inflated, days, ranks, instants)},
}
