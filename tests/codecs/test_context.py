"""ContextCodec: which forms a context may have, what its columns are, what errors say of it."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
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


def test_a_polars_series_is_a_column():
    codec = ContextCodec().fit(pl.Series("b", FRAME["b"].tolist()))
    torch.testing.assert_close(codec.encode({"b": "v"}), codec.encode(["v"]))


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
        ({"a": 1.0, "b": "w"}, "row 0 of context has 'w' in the given column 'b'"),
        (FRAME.assign(c=1.0), "columns of context are not those that fit saw.*unexpected 'c'"),
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
    with pytest.raises(ValueError, match="Every column of context is constant"):
        ContextCodec().fit(np.ones((10, 1)))
    with pytest.raises(ValueError, match="context: Column 'x0' contains NaN"):
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
