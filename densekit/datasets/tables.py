"""Tables of mixed columns: DataFrames whose categories are declared over all rows."""

import functools
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from densekit.datasets import fetch
from densekit.datasets.base import Dataset, split
from densekit.datasets.catalog import dataset

_ADULT = (
    "age", "workclass", "fnlwgt", "education", "education_num", "marital_status", "occupation",
    "relationship", "race", "sex", "capital_gain", "capital_loss", "hours_per_week",
    "native_country", "income",
)  # fmt: skip
_WINE = (
    "fixed_acidity", "volatile_acidity", "citric_acid", "residual_sugar", "chlorides",
    "free_sulfur_dioxide", "total_sulfur_dioxide", "density", "ph", "sulphates", "alcohol",
    "quality",
)  # fmt: skip


def adult() -> Dataset:
    """Adult / Census income: 6 integers, 8 categories and the income, rows of UCI's two files.

    ``"?"`` (missing) is a level like any other. valid is a tenth of adult.data, at random; test is
    adult.test, whose incomes end in a dot that is taken off. ``education_num`` numbers the levels
    of ``education``: one of the two is known from the other. Kohavi 1996; UCI, CC BY 4.0.
    """
    train = _read("adult/adult.data.gz", names=_ADULT, skipinitialspace=True)
    test = _read("adult/adult.test.gz", names=_ADULT, skipinitialspace=True, skiprows=1)
    test["income"] = test["income"].str.rstrip(".")
    both = categories(pd.concat([train, test], ignore_index=True))
    order = np.random.RandomState(32_561).permutation(len(train))
    n_valid = round(0.1 * len(train))
    rows = order[n_valid:], order[:n_valid], np.arange(len(train), len(both))
    return dataset("adult", take(both, rows))


def churn() -> Dataset:
    """10,000 customers of a bank and whether they left: 5 numbers, 3 counts and flags, 2 categories.

    RowNumber, CustomerId and Surname are left out, Exited is in. Three flags are integers 0 and 1.
    """
    # The published copy has one foreign line, numbered 0.
    frame = _read("churn_modelling/Churn_Modelling.csv.gz", without=b"0,")
    frame = frame.drop(columns=["RowNumber", "CustomerId", "Surname"])
    return dataset("churn", take(categories(frame), split(len(frame), seed=10_000)))


def cardio() -> Dataset:
    """70,000 patients: 4 measures, age in days, 2 ordered levels, flags and the disease.

    The number of the patient is left out. Blood pressures from -150 to 16,020 are in the data and
    left there. ``cholesterol`` and ``gluc`` are ordered levels 1, 2 and 3.
    """
    frame = _read("cardio/cardio_train.csv.gz", sep=";").drop(columns="id")
    for column in ("cholesterol", "gluc"):
        frame[column] = pd.Categorical(frame[column], [1, 2, 3], ordered=True)
    return dataset("cardio", take(frame, split(len(frame), seed=70_000)))


def california_housing() -> Dataset:
    """20,433 blocks of the 1990 census: 9 numbers and the distance to the sea in 5 levels.

    207 rows without total_bedrooms are dropped. median_house_value is cut off at 500,001, and
    housing_median_age at 52. Pace and Barry 1997.
    """
    frame = _read("california_housing/housing.csv.gz").dropna()
    frame = categories(integers(frame.reset_index(drop=True)))
    return dataset("california_housing", take(frame, split(len(frame), seed=20_640)))


def wine_white() -> Dataset:
    """4,898 white wines: 11 measures and the quality, an integer; 937 rows are repeated.

    The measures lie on grids (two decimals, mostly), which a density may exploit. Cortez et al.
    2009; UCI, CC BY 4.0.
    """
    frame = _read("uci_small/wine_white.csv.gz", names=_WINE)
    return dataset("wine_white", take(frame, split(len(frame), seed=4898)))


def ionosphere() -> Dataset:
    """351 radar returns: a flag, 32 numbers from -1 to 1 and the class; the column of 0 is left out.

    Many numbers are exactly -1, 0 or 1. Sigillito et al. 1989; UCI, CC BY 4.0.
    """
    names = [*(f"x{j}" for j in range(34)), "class"]
    frame = _read("uci_small/ionosphere.data.gz", names=names).drop(columns="x1")
    return dataset("ionosphere", take(categories(frame), split(len(frame), seed=351)))


def tabddpm(name: str) -> Dataset:
    """One of the tables of Kotelnikov et al. 2023 in its parts: num_*, cat_* and the target y.

    Numbers that are whole in all rows become int64, so that they have a mass and not a density.
    Classes and cat_* are categorical. The first column of ``king`` numbers the houses and is left
    out; the two times of ``buddy`` are days and minutes since 1970.
    """
    found = fetch.arrays(f"tabddpm_splits/{name}.npz", _npy_parts)
    frames = [_tabddpm_part(found, part) for part in ("train", "val", "test")]
    both = pd.concat(frames, ignore_index=True)
    if name == "king":
        both = both.drop(columns="num_0")
    if name == "buddy":
        both["num_0"] /= 86_400
        both["num_1"] /= 60
    both = integers(both)
    if name in ("buddy", "default", "wilt"):
        both["y"] = both["y"].astype("category")
    stops = np.cumsum([0, *map(len, frames)])
    rows = [np.arange(*stops[i : i + 2]) for i in range(3)]
    return dataset(name, take(categories(both), rows))


LOADERS: dict[str, Callable[[], Dataset]] = {
    loader.__name__: loader
    for loader in (adult, churn, cardio, california_housing, wine_white, ionosphere)
} | {
    name: functools.partial(tabddpm, name)
    for name in ("abalone", "buddy", "california", "default", "house", "king", "wilt")
}


def categories(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of strings as categories, sorted: what is declared here no part can lack."""
    strings = [c for c in frame if pd.api.types.is_string_dtype(frame[c].dtype)]
    return frame.astype(
        {c: pd.CategoricalDtype(sorted(frame[c].dropna().unique())) for c in strings}
    )


def integers(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns of floats that are whole in all rows as int64."""
    floats = frame.select_dtypes("floating")
    return frame.astype({c: np.int64 for c in floats if (floats[c] % 1 == 0).all()})


def take(rows: Any, parts: Iterable[Sequence[int] | np.ndarray]) -> list[Any]:
    """The rows of each part; a frame's are numbered from 0 again."""
    if isinstance(rows, pd.DataFrame):
        return [rows.iloc[i].reset_index(drop=True) for i in parts]
    return [rows[i] for i in parts]


def _read(path: str, *, without: bytes = b"", **options: Any) -> pd.DataFrame:
    header = None if "names" in options else 0
    return pd.read_csv(io.BytesIO(fetch.text(path, without)), header=header, **options)


def _npy_parts(paths: list[Path]) -> dict[str, np.ndarray]:
    return {path.stem: fetch.npy(path.read_bytes()) for path in paths}


def _tabddpm_part(found: dict[str, np.ndarray], part: str) -> pd.DataFrame:
    columns = {f"num_{j}": x for j, x in enumerate(found[f"X_num_{part}"].T)}
    for j, x in enumerate(found.get(f"X_cat_{part}", np.empty((0, 0))).T):
        columns[f"cat_{j}"] = x.astype(object)
    return pd.DataFrame(columns | {"y": found[f"y_{part}"]})
