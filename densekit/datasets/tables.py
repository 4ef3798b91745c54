"""Tables with mixed columns, as DataFrames whose categorical dtypes declare the levels of all parts."""

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
    """Adult (Census income): 6 integers, 8 categories and the income.

    A missing value, ``"?"``, is a level like any other. The validation part is a random tenth of
    adult.data, and the test part is adult.test without the dots after incomes. ``education_num`` is a
    function of ``education``. Kohavi (1996), https://doi.org/10.24432/C5XW20, CC BY 4.0.
    """
    train = _read_csv("adult/adult.data.gz", names=_ADULT, skipinitialspace=True)
    test = _read_csv("adult/adult.test.gz", names=_ADULT, skipinitialspace=True, skiprows=1)
    test["income"] = test["income"].str.rstrip(".")
    combined = categories(pd.concat([train, test], ignore_index=True))
    order = np.random.RandomState(32_561).permutation(len(train))
    n_valid = round(0.1 * len(train))
    rows = order[n_valid:], order[:n_valid], np.arange(len(train), len(combined))
    return dataset("adult", take(combined, rows))


def churn() -> Dataset:
    """Churn: 10,000 customers of a bank, with numbers, counts, flags, 2 categories and ``Exited``.

    RowNumber, CustomerId and Surname are dropped. Flags are integers 0 and 1.
    """
    # The published file has an additional line with number 0 that is not a customer.
    frame = _read_csv("churn_modelling/Churn_Modelling.csv.gz", without=b"0,")
    frame = frame.drop(columns=["RowNumber", "CustomerId", "Surname"])
    return dataset("churn", take(categories(frame), split(len(frame), seed=10_000)))


def cardio() -> Dataset:
    """Cardio: 70,000 patients with 4 measurements, age in days, 2 ordered categories, flags and disease.

    The identifier of the patient is dropped. Erroneous blood pressures (-150 to 16,020) are kept.
    ``cholesterol`` and ``gluc`` are ordered categories 1, 2 and 3.
    """
    frame = _read_csv("cardio/cardio_train.csv.gz", sep=";").drop(columns="id")
    for column in ("cholesterol", "gluc"):
        frame[column] = pd.Categorical(frame[column], [1, 2, 3], ordered=True)
    return dataset("cardio", take(frame, split(len(frame), seed=70_000)))


def california_housing() -> Dataset:
    """California housing: 20,433 block groups of the 1990 census, 9 numbers and the ocean proximity.

    The 207 rows without total_bedrooms are dropped. median_house_value is capped at 500,001 and
    housing_median_age at 52. Pace and Barry (1997), https://doi.org/10.1016/S0167-7152(96)00140-X.
    """
    frame = _read_csv("california_housing/housing.csv.gz").dropna()
    frame = categories(integers(frame.reset_index(drop=True)))
    return dataset("california_housing", take(frame, split(len(frame), seed=20_640)))


def wine_white() -> Dataset:
    """White wine quality: 4,898 wines, 11 measurements and the quality as an integer.

    937 rows are repeated. Most measurements are rounded to two decimals, which a density may exploit.
    Cortez et al. (2009), https://doi.org/10.1016/j.dss.2009.05.016, CC BY 4.0.
    """
    frame = _read_csv("uci_small/wine_white.csv.gz", names=_WINE)
    return dataset("wine_white", take(frame, split(len(frame), seed=4898)))


def ionosphere() -> Dataset:
    """Ionosphere: 351 radar returns, a flag, 32 numbers from -1 to 1 and the class.

    A constant column is dropped. Many numbers are exactly -1, 0 or 1. Sigillito et al. (1989),
    https://doi.org/10.24432/C5W01B, CC BY 4.0.
    """
    names = [*(f"x{j}" for j in range(34)), "class"]
    frame = _read_csv("uci_small/ionosphere.data.gz", names=names).drop(columns="x1")
    return dataset("ionosphere", take(categories(frame), split(len(frame), seed=351)))


def tabddpm(name: str) -> Dataset:
    """A table of the TabDDPM paper with its split: columns num_*, cat_* and the target y.

    Numbers that are whole in all rows become int64, so that their scores are masses. Classes and cat_*
    are categorical. The first column of ``king`` is an identifier and is dropped. The two times of
    ``buddy`` are converted to days and minutes since 1970.

    References
    ----------
    Kotelnikov et al. (2023), *TabDDPM: Modelling tabular data with diffusion models*,
    https://arxiv.org/abs/2209.15421
    """
    arrays = fetch.arrays(f"tabddpm_splits/{name}.npz", _parse_npy_files)
    frames = [_tabddpm_part(arrays, part) for part in ("train", "val", "test")]
    combined = pd.concat(frames, ignore_index=True)
    if name == "king":
        combined = combined.drop(columns="num_0")
    if name == "buddy":
        combined["num_0"] /= 86_400
        combined["num_1"] /= 60
    combined = integers(combined)
    if name in ("buddy", "default", "wilt"):
        combined["y"] = combined["y"].astype("category")
    stops = np.cumsum([0, *map(len, frames)])
    rows = [np.arange(*stops[i : i + 2]) for i in range(3)]
    return dataset(name, take(categories(combined), rows))


LOADERS: dict[str, Callable[[], Dataset]] = {
    loader.__name__: loader
    for loader in (adult, churn, cardio, california_housing, wine_white, ionosphere)
} | {
    name: functools.partial(tabddpm, name)
    for name in ("abalone", "buddy", "california", "default", "house", "king", "wilt")
}


def categories(frame: pd.DataFrame) -> pd.DataFrame:
    """Convert string columns to categories. The dtype declares all levels, so every part has them."""
    strings = [c for c in frame if pd.api.types.is_string_dtype(frame[c].dtype)]
    return frame.astype(
        {c: pd.CategoricalDtype(sorted(frame[c].dropna().unique())) for c in strings}
    )


def integers(frame: pd.DataFrame) -> pd.DataFrame:
    """Convert float columns whose values are all whole to int64."""
    floats = frame.select_dtypes("floating")
    return frame.astype({c: np.int64 for c in floats if (floats[c] % 1 == 0).all()})


def take(rows: Any, parts: Iterable[Sequence[int] | np.ndarray]) -> list[Any]:
    """The rows of each part, given their indices; the index of a DataFrame starts at 0 again."""
    if isinstance(rows, pd.DataFrame):
        return [rows.iloc[i].reset_index(drop=True) for i in parts]
    return [rows[i] for i in parts]


def _read_csv(path: str, *, without: bytes = b"", **options: Any) -> pd.DataFrame:
    header = None if "names" in options else 0
    return pd.read_csv(io.BytesIO(fetch.text(path, without)), header=header, **options)


def _parse_npy_files(paths: list[Path]) -> dict[str, np.ndarray]:
    return {path.stem: fetch.npy(path.read_bytes()) for path in paths}


def _tabddpm_part(arrays: dict[str, np.ndarray], part: str) -> pd.DataFrame:
    columns = {f"num_{j}": x for j, x in enumerate(arrays[f"X_num_{part}"].T)}
    for j, x in enumerate(arrays.get(f"X_cat_{part}", np.empty((0, 0))).T):
        columns[f"cat_{j}"] = x.astype(object)
    return pd.DataFrame(columns | {"y": arrays[f"y_{part}"]})
