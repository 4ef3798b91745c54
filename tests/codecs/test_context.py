"""ContextCodec: containers of contexts, their columns, and errors."""

import datetime
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from densekit.codecs.context import ContextCodec

RNG = np.random.default_rng(0)
DIGITS = RNG.integers(0, 3, 60)
FRAME = pd.DataFrame({"a": RNG.normal(size=60), "b": RNG.choice(["u", "v"], 60)})


def labels(declared=(0, 1, 2, 3)):
    return pd.Series(pd.Categorical(DIGITS, categories=declared), name="digit")


def test_a_categorical_series_keeps_its_declared_levels():
    codec = ContextCodec().fit(labels())
    assert codec.schema.n_features == 4
    found = codec.encode(labels().iloc[:5])
    torch.testing.assert_close(found, torch.eye(4, dtype=found.dtype)[DIGITS[:5]])


DAYS = [datetime.date(2020, 1, 1) + datetime.timedelta(days=i) for i in range(60)]


@pytest.mark.parametrize(
    "series",
    [
        pl.Series("b", FRAME["b"].tolist()),
        pl.Series(DAYS),
        pd.Series(pd.to_datetime(DAYS)),
        pd.Series(DIGITS * 1.0, name="a"),
        pa.chunked_array([DAYS]),
    ],
)
def test_a_series_is_a_column_and_keeps_its_dtype(series):
    codec = ContextCodec().fit(series)
    found = codec.encode(series)
    assert len(found) == 60
    torch.testing.assert_close(codec.encode(series[:7]), found[:7])


def test_one_column_without_a_name_goes_by_its_place():
    codec = ContextCodec().fit(pd.Series(DIGITS * 1.0))
    for again in (
        pd.Series(DIGITS * 1.0, name="z"),
        DIGITS * 1.0,
        pd.DataFrame({0: DIGITS * 1.0}),
    ):
        torch.testing.assert_close(codec.encode(again), codec.encode(pd.Series(DIGITS * 1.0)))


def test_a_mapping_has_names_that_are_strings_when_it_is_learned():
    with pytest.raises(ValueError, match=r"keys \[0, 1\]: names are strings"):
        ContextCodec().fit({0: DIGITS * 1.0, 1: DIGITS * 2.0})
    with pytest.raises(ValueError, match=r"differ in length: {'a': 60, 'b': 1}"):
        ContextCodec().fit({"a": DIGITS * 1.0, "b": [2020]})


def test_one_value_in_a_mapping_is_for_all_rows():
    codec = ContextCodec().fit(FRAME)
    rows = codec.encode({"a": [1.0, 2.0], "b": "u"})
    torch.testing.assert_close(rows, codec.encode({"a": [1.0, 2.0], "b": ["u", "u"]}))


@pytest.mark.parametrize(
    "row",
    [
        {"a": 1.0, "b": "u"},
        {"b": ["u"], "a": [1]},
        pd.DataFrame({"b": ["u"], "a": [1.0]}),
        pd.Series({"b": "u", "a": 1.0}),
        [1.0, "u"],
        [[1.0, "u"]],
    ],
)
def test_after_a_frame_a_row_may_have_any_form(row):
    codec = ContextCodec().fit(FRAME)
    wanted = codec.encode(pd.DataFrame({"a": [1.0], "b": ["u"]}))
    torch.testing.assert_close(codec.encode(row), wanted)


def test_a_mapping_of_columns_is_a_frame():
    codec = ContextCodec().fit({"a": FRAME["a"].to_numpy(), "b": FRAME["b"].tolist()})
    torch.testing.assert_close(codec.encode(FRAME), ContextCodec().fit(FRAME).encode(FRAME))


@pytest.mark.parametrize(
    ("context", "words"),
    [
        ({"a": 1.0}, r"lacks the columns \['b'\].*fitted with \['a', 'b'\]"),
        ({"a": 1.0, "b": "u", "c": 2}, r"has \['c'\], which it cannot condition on"),
        ({"a": 1.0, "b": "w"}, "context, .* row 0 of X has 'w' in column 'b'.*Categorical"),
        (FRAME.assign(c=1.0), "context, .* are not those that fit saw.*unexpected 'c'"),
        ({"a": FRAME[["a"]].to_numpy(), "b": ["u"] * 60}, "2 dimensions in 'a'"),
        ({"a": [1.0, 2.0], "b": ["u"]}, r"differ in length: {'a': 2, 'b': 1}"),
        ([1.0, "u", 3.0], r"it needs the 2 column\(s\) \['a', 'b'\]"),
    ],
)
def test_errors_speak_of_the_context(context, words):
    codec = ContextCodec().fit(FRAME)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match=words):
            codec.encode(context)


def test_an_array_has_no_names():
    codec = ContextCodec().fit(FRAME[["a"]].to_numpy())
    with pytest.raises(ValueError, match="is a mapping, and fit saw a context without names"):
        codec.encode({"a": 1.0})
    with pytest.raises(
        ValueError, match="context, read as a table X: Every column of X is constant"
    ):
        ContextCodec().fit(np.ones((10, 1)))
    with pytest.raises(ValueError, match=r"context, .* Column 'x0' contains NaN"):
        ContextCodec().fit(np.full((10, 1), np.nan))


@pytest.mark.parametrize("context", [DIGITS, DIGITS + 1, pd.DataFrame({"digit": DIGITS})])
def test_integers_that_look_like_labels_are_warned_of(context):
    with pytest.warns(UserWarning, match="read as a quantity.*category"):
        ContextCodec().fit(context)


@pytest.mark.parametrize(
    "context",
    [
        DIGITS.astype(float),
        DIGITS % 2,
        DIGITS * 5,
        labels(),
        np.c_[DIGITS, RNG.integers(0, 3, 60)],
        np.arange(60) // 2,
    ],
)
def test_quantities_and_categories_are_not(context):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ContextCodec().fit(context)
