"""What the hostile examples found, one by one."""

import datetime

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from densekit import Gaussian
from densekit.codecs import ImageCodec, TableCodec
from densekit.codecs.context import ContextCodec

FAR = torch.tensor([[-1e30], [1e30]], dtype=torch.float64)
LARGEST = np.finfo(np.float64).max


def test_a_draw_beyond_the_floats_is_the_largest_float():
    codec = TableCodec().fit(np.array([[-1e303], [1e303], [0.0]]))
    assert codec.decode(FAR).ravel().tolist() == [-LARGEST, LARGEST]


def test_a_row_too_far_to_standardize_has_no_mass():
    codec = TableCodec().fit(np.array([[-1e-300], [1e-300], [0.0]]))
    for rows in (np.array([[1e16], [0.0]]), np.array([[LARGEST], [0.0]])):
        typed, ladj = codec.encode(rows)
        assert typed.tolist() == [[0.0], [0.0]]
        assert ladj[0] == -torch.inf
        assert torch.isfinite(ladj[1])


def test_a_context_too_far_to_standardize_is_refused():
    codec = ContextCodec().fit(np.array([[-1e-300], [1e-300], [0.0]]))
    with pytest.raises(ValueError, match="context row 1 has a number too far"):
        codec.encode(np.array([[0.0], [1e16]]))


def test_long_doubles_are_float64_or_refused_by_column():
    X = np.array([[-1.0], [LARGEST], [2.0]], dtype=np.longdouble)
    codec = TableCodec().fit(X)
    back = codec.decode(torch.tensor([[1e30]], dtype=torch.float64))
    assert back.dtype == np.longdouble
    assert back.item() == LARGEST
    if np.finfo(np.longdouble).max > LARGEST:
        X[0] = np.longdouble(LARGEST) * 4
        with pytest.raises(ValueError, match="Column 'x0' contains infinity: 1 of 3"):
            TableCodec().fit(X)


def test_instants_that_wrap_are_refused_by_column():
    months = np.array([[2**60], [0]]).astype("datetime64[M]")
    with pytest.raises(ValueError, match=r"Column 0 holds instants that datetime64\[s\]"):
        TableCodec().fit(months)
    days = pd.DataFrame({"when": pd.to_datetime(["2020-01-01", "2020-01-02"]).astype("M8[ns]")})
    codec = TableCodec().fit(days)
    with pytest.raises(ValueError, match=r"'when' holds instants .* 9000-01-01"):
        codec.encode(pd.DataFrame({"when": pd.Series(np.array(["9000-01-01"], "M8[s]"))}))


def test_instants_a_whole_calendar_apart_come_back():
    # Most lie at one end, so that steps from their mean do not fit an int64.
    ticks = np.array([-(2**63) + 1, 2**63 - 1, 2**63 - 2, 2**63 - 3])
    X = ticks.astype("datetime64[s]").reshape(-1, 1)
    codec = TableCodec().fit(X)
    back = codec.decode(codec.encode(X)[0]).astype(np.int64).ravel().tolist()
    assert max(abs(a - b) for a, b in zip(back, ticks.tolist(), strict=True)) < 2**14


@pytest.mark.parametrize("shape", ["ab", (1.5, 2), (2,), (0, 4), 4])
def test_an_image_shape_that_is_none_is_named(shape):
    with pytest.raises(ValueError, match=r"image_shape=.* must be \(H, W\)"):
        ImageCodec(image_shape=shape).fit(np.arange(8, dtype=np.uint8).reshape(2, 4))


DAYS = [datetime.date(2020, 1, day) for day in (1, 2, 5)]


@pytest.mark.parametrize(
    ("X", "days"),
    [
        (pl.DataFrame({"day": DAYS}), lambda rows: rows["day"].to_physical().to_list()),
        (pa.table({"day": DAYS}), lambda rows: rows["day"].cast(pa.int32()).to_pylist()),
    ],
    ids=["polars", "pyarrow"],
)
def test_a_day_beyond_the_calendar_is_its_last_one(X, days):
    codec = TableCodec().fit(X)
    assert days(codec.decode(FAR)) == [-(2**31) + 1, 2**31 - 1]


def test_arrow_categories_of_instants_are_refused_by_name():
    instants = [datetime.datetime(2020, 1, day) for day in (1, 2, 2)]
    X = pa.table({"when": pa.array(instants).dictionary_encode()})
    with pytest.raises(ValueError, match="'when' has categories of type datetime"):
        TableCodec().fit(X)


LONE = "\ud800"


@pytest.mark.parametrize(
    ("X", "named"),
    [
        (pd.DataFrame({"a": pd.Series(["x", LONE], dtype=object)}), "Column 'a'"),
        (
            pd.DataFrame(
                {"a": pd.Categorical.from_codes([0, 1], pd.Index(["x", LONE], dtype=object))}
            ),
            "Column 'a'",
        ),
        (pd.DataFrame(np.eye(2), columns=pd.Index(["a", LONE], dtype=object)), "Column name"),
        (np.array([["x"], [LONE]]), "Column 'x0'"),
    ],
    ids=["strings", "categories", "names", "array"],
)
def test_half_a_character_is_refused_by_name(X, named):
    with pytest.raises(ValueError, match=rf"{named}.* is not valid Unicode: .*lone surrogate"):
        TableCodec().fit(X)


def test_half_a_character_in_a_context_is_refused_by_name():
    codec = ContextCodec(("a",)).fit(pd.DataFrame({"a": ["x", "y"]}))
    with pytest.raises(ValueError, match="Context column 'a' is not valid Unicode"):
        codec.encode({"a": LONE})


def test_images_of_int8_are_drawn_within_int8():
    X = np.array([[[0, 120]], [[127, 3]]], dtype=np.int8)
    codec = ImageCodec().fit(X)
    assert (codec.decode(torch.full((1, 1, 1, 2), 250.0)) == 127).all()
    assert (codec.schema.cardinality == 128).all()
    assert (Gaussian().fit(X).sample(50, random_state=0) >= 0).all()


def test_an_array_of_objects_is_refused_by_column():
    X = np.array([[1.0, 2.0], [3.0, {}]], dtype=object)
    with pytest.raises(TypeError, match="Column 'x1' holds dict, float"):
        Gaussian().fit(X)
