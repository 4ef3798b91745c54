"""Functions that check results on hostile rows: allowed errors, state and round trips."""

import collections
import contextlib
import copy
import random
import re
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from densekit import ColumnWarning
from densekit.containers import as_array

DOCUMENTED = ["Column .* looks like an identifier", "Values that fit did not see"]
"""Warnings that the docstrings promise; any other is a failure."""


def examples(few, many):
    return pytest.mark.parametrize("n", [few, pytest.param(many, marks=pytest.mark.slow)])


def hold(name, n, judge, *strategies):
    """Call ``judge`` on n examples; both of its outcomes must occur."""
    seen = collections.Counter()

    @settings(
        max_examples=n,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.tuples(*strategies))
    def judged(drawn):
        with undisturbed():
            outcome = judge(*drawn)
        seen[outcome] += 1

    judged()
    print(f"{name}: {dict(seen)}")  # noqa: T201
    assert seen["right"] >= n // 50
    assert seen["refused"] >= n // 50


# ------------------------------------------------------------------------------- what is watched


def global_state():
    name, keys, *rest = np.random.get_state()
    generators = (name, keys.tobytes(), *rest, random.getstate(), torch.get_rng_state().numpy())
    settings = (np.geterr(), torch.get_default_dtype(), list(warnings.filters))
    return [g.tobytes() if isinstance(g, np.ndarray) else g for g in generators], settings


@contextlib.contextmanager
def undisturbed():
    """No warnings but the documented ones, and no global state touched."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ColumnWarning)
        for message in DOCUMENTED:
            warnings.filterwarnings("ignore", message, UserWarning)
        before = global_state()
        yield
        assert global_state() == before


def same(X, Y):
    """Whether two containers hold the same, NaN and objects included."""
    if isinstance(X, np.ndarray):
        return X.dtype == Y.dtype and (
            X.tobytes() == Y.tobytes()
            if X.dtype.kind != "O"
            else repr(X.tolist()) == repr(Y.tolist())
        )
    if isinstance(X, pd.DataFrame):
        names = repr(list(X.columns)) == repr(list(Y.columns))
        return names and list(X.dtypes) == list(Y.dtypes) and repr(X.values) == repr(Y.values)
    if isinstance(X, pl.DataFrame | pa.Table):
        return dtypes(X) == dtypes(Y) and repr(cells(X)) == repr(cells(Y))
    return X.equals(Y) if isinstance(X, pd.Series | pl.Series | pa.Array) else repr(X) == repr(Y)


@contextlib.contextmanager
def unchanged(X):
    before = copy.deepcopy(X)
    yield
    assert same(X, before), "the input was changed"


def refusal(act, *words):
    """The result of ``act``, or the text of its error, which must have one of the words in it."""
    try:
        return act(), None
    except (ValueError, TypeError) as error:
        # Exactly these: a subclass is some library's own error, which nobody has made readable.
        message = str(error)
        if type(error) not in (ValueError, TypeError) or not any(w in message for w in words):
            raise AssertionError(
                f"{type(error).__name__} names none of {words}: {message}"
            ) from error
        return None, message


INSTANTS = (np.dtypes.DateTime64DType, pd.DatetimeTZDtype)


def cells(X):
    """The columns of any table as lists of plain values."""
    if isinstance(X, pd.DataFrame):
        columns = [X.iloc[:, j] for j in range(X.shape[1])]
        # (Categories of instants and periods have no ticks.)
        ticks = [c.astype("int64") if isinstance(c.dtype, INSTANTS) else c for c in columns]
        return [c.to_numpy(dtype=object) for c in ticks]
    if isinstance(X, pl.DataFrame):
        # Ticks: Python's own dates end at the year 9999.
        ticks = [s.to_physical() if s.dtype.is_temporal() else s for s in X]
        return [np.array(s.to_list(), dtype=object) for s in ticks]
    if isinstance(X, pa.Table):
        width = {"timestamp": pa.int64(), "date64": pa.int64(), "date32": pa.int32()}
        kinds = [re.match(r"\w+", str(c.type))[0] for c in X.columns]
        ticks = [c.cast(width.get(k, c.type)) for k, c in zip(kinds, X.columns, strict=True)]
        return [np.array(c.to_pylist(), dtype=object) for c in ticks]
    x = as_array(X)
    return list((x.astype(np.int64) if x.dtype.kind == "M" else x).astype(object).T)


def dtypes(X):
    if isinstance(X, pa.Table):
        return X.schema.names, [str(t) for t in X.schema.types]
    if isinstance(X, np.ndarray):
        return [X.dtype]
    return list(X.columns), list(X.dtypes)
