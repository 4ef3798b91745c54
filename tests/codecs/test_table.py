"""TableCodec: round trips, Jacobians, support, and errors."""

import copy
import math

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from polars.testing import assert_frame_equal as assert_polars_equal

from densekit.codecs import Column, Schema, TableCodec

few = settings(max_examples=40, deadline=None)


def round_trip(X, **options):
    codec = TableCodec(**options).fit(X)
    typed, ladj = codec.encode(X)
    assert typed.dtype == ladj.dtype == torch.float64
    assert typed.shape == (len(X), *codec.schema.event_shape)
    assert torch.isfinite(typed).all()
    assert torch.isfinite(ladj).all()
    return codec, typed, codec.decode(typed)


# ------------------------------------------------------------------------------- round trips

floats = st.floats(-1e6, 1e6, allow_subnormal=False)


@few
@given(hnp.arrays(np.float64, (7, 3), elements=floats), st.sampled_from([1e-12, 1.0, 1e12]))
def test_floats_come_back_and_are_standardized(X, scale):
    X = X * scale
    if all(len(set(column)) == 1 for column in X.T):
        return
    codec, typed, back = round_trip(X)
    spread = np.abs(X).max()
    np.testing.assert_allclose(back, X, rtol=1e-12, atol=1e-12 * spread)
    # Standardized, but for columns whose variation drowns in the rounding of their offset.
    wide = X[:, [c.kind == "real" for c in codec.schema.columns]]
    clear = torch.from_numpy(wide.std(0) > 1e-6 * np.abs(wide).max(0))
    assert (typed.mean(0).abs()[clear] < 1e-6).all()
    assert ((typed.std(0, correction=0) - 1).abs()[clear] < 1e-6).all()


@pytest.mark.parametrize(("offset", "scale"), [(1e8, 1.0), (1e8, 1e-3), (0, 1e-12), (0, 1e300)])
def test_extreme_offsets_and_scales(offset, scale):
    z = np.random.default_rng(0).normal(size=(2000, 2))
    X = offset + scale * z
    codec, _typed, back = round_trip(X)
    assert abs(codec.schema.columns[0].scale / (scale * z[:, 0].std()) - 1) < 1e-4
    np.testing.assert_allclose(back, X, rtol=1e-15, atol=1e-14 * scale)


integers = st.sampled_from(["int8", "uint8", "int32", "int64", "uint64"]).flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), (6, 2))
)


@few
@given(integers)
def test_integers_come_back_exactly(X):
    if all(len(set(column)) == 1 for column in X.T):
        return
    _, _, back = round_trip(X)
    assert back.dtype == X.dtype
    # float64 entries tell 2**50 neighbors apart; beyond that spread they cannot.
    span = max(int(c.max()) - int(c.min()) for c in X.T)
    if span < 2**50:
        np.testing.assert_array_equal(back, X)
    else:
        np.testing.assert_allclose(back.astype(float), X.astype(float), atol=span * 1e-14)


def test_integers_near_the_ends_of_their_dtype_are_exact():
    top = np.iinfo(np.uint64).max
    X = np.array([[top], [top - 7], [top - 1000]], dtype=np.uint64)
    np.testing.assert_array_equal(round_trip(X)[2], X)
    low = np.iinfo(np.int64).min
    X = np.array([[low + 5], [low], [low + 900]])
    codec, typed, back = round_trip(X)
    np.testing.assert_array_equal(back, X)
    drawn = codec.decode(typed * 1e6)
    assert drawn.dtype == np.int64


def test_draws_beyond_a_dtype_stop_at_its_ends():
    X = np.array([[0, 1], [255, 2], [9, 7]], dtype=np.uint8)
    codec = TableCodec().fit(X)
    drawn = codec.decode(torch.tensor([[-500.0, -500.0], [500.0, 500.0]]))
    np.testing.assert_array_equal(drawn, [[0, 0], [255, 255]])
    codec = TableCodec(support="positive").fit(np.array([[1e-3], [1e3]], dtype=np.float32))
    drawn = codec.decode(torch.tensor([[-1e3], [1e3]]))
    assert np.isfinite(drawn).all()
    assert (drawn > 0).all()


names = st.text("abcxyzäß日 ", max_size=4)
column = st.one_of(
    st.lists(floats, min_size=5, max_size=5).map(lambda v: pd.Series(v)),
    st.lists(floats, min_size=5, max_size=5).map(lambda v: pd.Series(v, dtype="Float64")),
    st.lists(st.integers(-999, 999), min_size=5, max_size=5).map(lambda v: pd.Series(v)),
    st.lists(st.integers(0, 200), min_size=5, max_size=5).map(
        lambda v: pd.Series(v, dtype="UInt8")
    ),
    st.lists(st.booleans(), min_size=5, max_size=5).map(lambda v: pd.Series(v)),
    st.lists(st.booleans(), min_size=5, max_size=5).map(lambda v: pd.Series(v, dtype="boolean")),
    st.lists(names, min_size=5, max_size=5).map(lambda v: pd.Series(v)),
    st.lists(names, min_size=5, max_size=5).map(lambda v: pd.Series(v, dtype=object)),
    st.lists(names, min_size=5, max_size=5).map(
        lambda v: pd.Series(v, dtype=pd.StringDtype("python"))
    ),
    st.lists(names, min_size=5, max_size=5).map(lambda v: pd.Series(pd.Categorical(v))),
    st.lists(st.integers(0, 3), min_size=5, max_size=5).map(
        lambda v: pd.Series(pd.Categorical(v, categories=[3, 1, 0, 2], ordered=True))
    ),
    st.lists(st.integers(0, 2**50), min_size=5, max_size=5).map(
        lambda v: pd.Series(np.array(v, dtype="datetime64[us]"))
    ),
    st.lists(st.integers(0, 10**9), min_size=5, max_size=5).map(
        lambda v: pd.Series(np.array(v, dtype="datetime64[s]")).dt.tz_localize("UTC")
    ),
)


@few
@given(st.dictionaries(names, column, min_size=1, max_size=5))
def test_pandas_frames_come_back(columns):
    X = pd.DataFrame(columns)
    X.columns = pd.Index(list(columns))
    if all(X[c].nunique() == 1 and X[c].dtype != "category" for c in X):
        return
    try:
        _, _, back = round_trip(X)
    except ValueError as error:
        assert "nothing to learn" in str(error)  # noqa: PT017
        return
    pd.testing.assert_frame_equal(back, X, check_exact=False, rtol=1e-12, atol=1e-9)


def test_more_pandas_dtypes_come_back():
    X = pd.DataFrame(
        {
            "arrow": pd.Series([1, 5, 9], dtype="int64[pyarrow]"),
            "words": pd.Series(["a", "b", "a"], dtype=pd.ArrowDtype(pa.string())),
            "zone": pd.date_range("2020-03-29", periods=3, freq="h", tz="Europe/Berlin"),
            "arrow_zone": pd.Series(pd.date_range("2020", periods=3)).astype(
                "timestamp[us, tz=UTC][pyarrow]"
            ),
            "float32": np.array([0.5, 1.5, 2.5], dtype=np.float32),
            "constant": [7.5] * 3,
            "constant_time": pd.to_datetime(["2020-01-02 03:04:05.678901"] * 3),
            "constant_word": pd.Categorical(["z"] * 3),
            3: [0, 1, 1],
        }
    )
    codec, _, back = round_trip(X.set_axis([5, 6, 7]))
    pd.testing.assert_frame_equal(back, X)
    assert codec.schema.constants
    assert codec.schema.event_shape == (6,)


def test_polars_frames_come_back():
    X = pl.DataFrame(
        {
            "categorical": pl.Series(["b", "a", "b"], dtype=pl.Categorical),
            "enum": pl.Series(["x", "y", "x"], dtype=pl.Enum(["y", "x", "unseen"])),
            "date": pl.Series([1, 2, 900]).cast(pl.Date),
            "zone": pl.Series([1, 2, 10**15]).cast(pl.Datetime("us", "Europe/Berlin")),
            "ms": pl.Series([1, 2, 10**12]).cast(pl.Datetime("ms")),
            "string": ["u", "v", "u"],
            "boolean": [True, False, True],
            "int8": pl.Series([1, 5, -3], dtype=pl.Int8),
            "float32": pl.Series([1.0, 5.0, 2.5], dtype=pl.Float32),
        }
    )
    codec, _, back = round_trip(X)
    assert_polars_equal(back, X)
    assert codec.schema.cardinality.tolist() == [2, 3, 0, 0, 0, 2, 2, 0, 0]


def test_pyarrow_tables_come_back():
    X = pa.table(
        {
            "dictionary": pa.array(["x", "y", "x"]).dictionary_encode(),
            "numbers": pa.array([5, 3, 5]).dictionary_encode(),
            "zone": pa.array([1, 2, 3], pa.timestamp("us", "Europe/Berlin")),
            "date": pa.array([1, 2, 3], pa.date32()),
            "float": pa.array([1.0, 2, 4], pa.float32()),
            "large": pa.array(["a", "b", "c"], pa.large_string()),
            "int16": pa.array([1, 2, 9], pa.int16()),
            "boolean": [True, False, True],
        }
    )
    _, _, back = round_trip(X)
    assert back.schema == X.schema
    assert back.equals(X)


@pytest.mark.parametrize(
    "X",
    [
        np.array([["a", "long word"], ["b", "y"], ["a", "y"]]),
        np.array([["a", 1.5, 3, True], ["b", 2.5, 5, False]], dtype=object),
        np.array([[True, False], [False, True]]),
        np.array(
            [["2020-01-01", "2021-03-01"], ["2020-02-01", "2021-03-02"]], dtype="datetime64[D]"
        ),
        np.array([[0.5], [1.5]], dtype=np.float16),
        np.array([[0.5], [1.5]], dtype=">f8"),
    ],
    ids=lambda X: str(X.dtype),
)
def test_arrays_come_back_in_their_dtype(X):
    _, _, back = round_trip(X)
    assert back.dtype == X.dtype
    np.testing.assert_array_equal(back, X)


def test_microseconds_over_a_century_survive():
    ticks = np.array([0, 1, 2, 3 * 10**15, 3 * 10**15 + 1]) - 10**15
    X = pd.DataFrame({"when": ticks.astype("datetime64[us]")})
    codec, _typed, back = round_trip(X)
    assert np.abs((back["when"] - X["when"]).dt.total_seconds()).max() < 2e-6
    seconds = ticks / 1e6
    assert codec.schema.columns[0].scale == pytest.approx(seconds.std())


def test_read_only_and_strided_arrays_are_left_alone():
    X = np.random.default_rng(0).normal(size=(20, 6))
    before = X.copy()
    for view in (X[::2, ::3], X.T.copy().T, np.asfortranarray(X)):
        view.setflags(write=False)
        _codec, typed, back = round_trip(view)
        np.testing.assert_allclose(back, view)
        typed += 1
    np.testing.assert_array_equal(X, before)


# ------------------------------------------------------------------------------- Jacobians


@pytest.mark.parametrize("support", ["real", "positive", ("interval", 0.0, 8.0)])
def test_jacobian_is_the_slope_of_the_encoding(support):
    X = np.random.default_rng(0).uniform(0.5, 7.5, size=(50, 2))
    codec = TableCodec(support=support).fit(X)
    h = 1e-6
    up, down = codec.encode(X + h)[0], codec.encode(X - h)[0]
    slopes = ((up - down) / (2 * h)).log().sum(1)
    torch.testing.assert_close(codec.encode(X)[1], slopes, rtol=0, atol=1e-5)


@pytest.mark.parametrize("support", [None, "positive"])
def test_change_of_units_moves_the_jacobian_by_log_a(support):
    X = np.random.default_rng(0).uniform(1, 2, size=(30, 3))
    a = np.array([1e-9, 3.0, 1e9])
    one, other = TableCodec(support=support).fit(X), TableCodec(support=support).fit(a * X)
    (z, ladj), (z_a, ladj_a) = one.encode(X), other.encode(a * X)
    torch.testing.assert_close(z, z_a, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ladj_a, ladj - np.log(a).sum(), rtol=1e-9, atol=1e-6)


def test_discrete_columns_have_no_jacobian_and_seconds_are_the_unit_of_time():
    X = pd.DataFrame({"i": [3, 9, 5], "c": ["u", "v", "u"], "b": [True, False, True]})
    codec, _, _ = round_trip(X)
    assert codec.encode(X)[1].tolist() == [0, 0, 0]
    for unit in ("s", "ms", "us", "ns"):
        t = pd.DataFrame(
            {"t": np.array([0, 60, 3600], dtype="datetime64[s]").astype(f"M8[{unit}]")}
        )
        ladj = TableCodec().fit(t).encode(t)[1]
        assert ladj[0].item() == pytest.approx(-math.log(np.std([0, 60, 3600])))


def test_rows_on_the_ends_of_an_interval_are_atoms_and_draws_stay_off_the_ends():
    x = np.random.default_rng(0).uniform(2, 4, 300)
    x[:3], x[3:5] = 2, 4
    codec, typed, back = round_trip(x[:, None], support=("interval", 2, 4))
    np.testing.assert_allclose(back, x[:, None], atol=1e-9)
    assert codec.schema.columns[0].atoms == (2.0, 4.0)
    assert typed[:5, 0].tolist() == [1, 1, 1, 2, 2]
    drawn = codec.decode(torch.tensor([[0, -1e3], [0, 1e3], [1, 0], [2, 0]]))[:, 0]
    assert 2 < drawn[0] < 2.001
    assert 3.999 < drawn[1] < 4
    assert drawn[2:].tolist() == [2, 4]


# ------------------------------------------------------------------------------- kinds


def test_inferred_kinds():
    X = pd.DataFrame(
        {
            "float": [0.0, 1.0, 0.0],
            "int": [1, 5, 3],
            "flag": [0, 1, 1],
            "gap": [0, 2, 2],
            "bool": [True, False, True],
            "str": ["b", "a", "b"],
            "cat": pd.Categorical(["b", "a", "b"], categories=["b", "c", "a"]),
            "ord": pd.Categorical(["b", "a", "b"], categories=["b", "a"], ordered=True),
            "time": pd.date_range("2020", periods=3),
        }
    )
    s = TableCodec().fit(X).schema
    kinds = {c.name: c.kind for c in s.columns}
    assert kinds == {
        "float": "real",
        "int": "integer",
        "flag": "ordinal",
        "gap": "integer",
        "bool": "boolean",
        "str": "categorical",
        "cat": "categorical",
        "ord": "ordinal",
        "time": "datetime",
    }
    levels = {c.name: c.levels for c in s.columns}
    assert levels["flag"] == (0, 1)
    assert levels["bool"] == (False, True)
    assert levels["str"] == ("a", "b")
    assert levels["cat"] == ("b", "c", "a")
    assert s.names == tuple(X)
    assert s.cardinality.tolist() == [0, 0, 2, 0, 2, 2, 3, 2, 0]
    assert s.ordered.tolist() == [False, False, True, False, True, False, False, True, False]
    assert (s.width > 0).tolist() == [c == "integer" for c in kinds.values()]


def test_given_kinds():
    X = np.array([[1.0, 3.0, 0.0, 2.0], [4.0, 7.0, 1.0, 5.0], [4.0, 9.0, 1.0, 5.0]])
    kinds = {0: "categorical", 1: "integer", "x2": "boolean", 3: "ordinal"}
    codec, typed, back = round_trip(X, kinds=kinds)
    assert [c.kind for c in codec.schema.columns] == list(kinds.values())
    assert typed[:, [0, 2, 3]].tolist() == [[0, 0, 0], [1, 1, 1], [1, 1, 1]]
    np.testing.assert_array_equal(back, X)
    codec, _, back = round_trip(X.astype(int), kinds=dict.fromkeys(range(4), "real"))
    assert codec.schema.base_measure == "lebesgue"
    np.testing.assert_array_equal(back, X.astype(int))


def test_interval_of_integers_makes_them_levels():
    X = pd.DataFrame({"age": [17, 20, 90], "flag": [0, 1, 0]})
    support = {"age": ("interval", 16.5, 99), "flag": ("interval", 0, 9)}
    codec, _typed, back = round_trip(X, support=support)
    assert codec.schema.cardinality.tolist() == [83, 10]
    assert codec.schema.ordered.all()
    pd.testing.assert_frame_equal(back, X)


def test_integers_keep_an_integer_center():
    X = np.random.default_rng(0).poisson(30, size=(500, 1)) + 10**12
    codec = TableCodec().fit(X)
    typed, _ = codec.encode(X)
    k = typed.numpy() / codec.schema.width
    np.testing.assert_allclose(k, np.rint(k), atol=1e-9)
    assert abs(typed.mean()) < 0.1
    assert abs(typed.std() - 1) < 0.01
    rare = np.zeros((100, 1), int)
    rare[0] = 3
    assert TableCodec().fit(rare).schema.width.tolist() == [1.0]  # No step wider than a unit.


def test_same_columns_in_any_container_give_the_same_events():
    X = pd.DataFrame({"a": [1.5, 2.5, 4.0], "b": ["u", "v", "u"], "c": [3, 9, 4]})
    expected = TableCodec().fit(X).encode(X)[0]
    for other in (pl.from_pandas(X), pa.Table.from_pandas(X), X.to_numpy(dtype=object)):
        torch.testing.assert_close(TableCodec().fit(other).encode(other)[0], expected)
        torch.testing.assert_close(TableCodec().fit(X).encode(other)[0], expected)
    torch.testing.assert_close(TableCodec().fit(X).encode(X[["c", "a", "b"]])[0], expected)


# ------------------------------------------------------------------------------- outside


def outside_rows(codec, X):
    typed, ladj = codec.encode(X)
    assert torch.isfinite(typed).all()
    assert not torch.isnan(ladj).any()
    return np.isneginf(ladj.numpy()).tolist()


def test_values_outside_the_support_score_minus_infinity():
    X = np.array([[1.0], [2.0], [4.0]])
    rows = np.array([[-1.0], [0.0], [9.0], [4.0]])
    with pytest.warns(UserWarning, match="no mass.*column 0: 2"):
        found = outside_rows(TableCodec(support="positive").fit(X), rows)
    assert found == [True, True, False, False]
    # An end that no row of fit equals has no mass.
    with pytest.warns(UserWarning, match="no mass.*column 0: 3"):
        found = outside_rows(TableCodec(support=("interval", 0, 5)).fit(X), rows)
    assert found == [True, True, True, False]
    assert outside_rows(TableCodec().fit(X), rows) == [False] * 4
    assert outside_rows(TableCodec(kinds={0: "integer"}).fit(X), np.array([[1.5], [7.0]])) == [
        True,
        False,
    ]


def test_another_value_of_a_constant_column_scores_minus_infinity():
    X = pd.DataFrame({"k": [5.0, 5, 5], "w": ["z"] * 3, "x": [1.0, 2, 3]})
    codec, _, back = round_trip(X)
    pd.testing.assert_frame_equal(back, X)
    rows = X.assign(k=[5.0, 6, 5], w=["z", "z", "y"])
    assert outside_rows(codec, rows) == [False, True, True]


def test_unseen_levels_score_minus_infinity_and_warn_once():
    X = pd.DataFrame({"c": ["u", "v", "u"], "f": [0, 1, 0]})
    codec = TableCodec().fit(X)
    rows = pd.DataFrame({"c": ["u", "new", "v"], "f": [0, 1, 7]})
    with pytest.warns(UserWarning, match=r"'c': 'new'; column 'f': 7.*Categorical") as caught:
        assert outside_rows(codec, rows) == [False, True, True]
    assert len(caught) == 1
    rows["c"] = pd.Categorical(["v", "x", "u"], categories=["v", "u", "x"])
    with pytest.warns(UserWarning, match="'c': 'x'"):
        assert outside_rows(codec, rows) == [False, True, True]


def test_declared_categories_are_no_surprise():
    X = pd.DataFrame({"c": pd.Categorical(["u", "v"], categories=["u", "v", "w"])})
    codec = TableCodec().fit(X)
    assert codec.encode(pd.DataFrame({"c": ["w"]}))[0].tolist() == [[2.0]]


# ------------------------------------------------------------------------------- refusals

GOOD = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": ["u", "v", "u"]})


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (np.zeros(3), "Expected 2D array, got 1D.*Reshape"),
        (np.float64(3), r"Expected 2D array, got 0D"),
        (np.zeros((2, 2, 2)), r"3D array.*\(2, 2, 2\)"),
        (np.zeros((0, 2)), r"empty.*\(0, 2\)"),
        (np.zeros((2, 0)), r"empty.*\(2, 0\)"),
        (np.ones((4, 2)), "constant.*nothing to learn"),
        (np.ones((2, 2)) * 1j, "Complex data not supported"),
        (np.array([[b"a"], [b"b"]]), "dtype .S1"),
        (np.array([[1.0, np.nan], [2, 3]]), "'?1'?.*NaN: 1 missing.*impute"),
        (np.array([[1.0, np.inf], [2, 3]]), "infinity.*1 of 2"),
        (np.ma.masked_array(np.eye(2), mask=np.eye(2)), "2 masked"),
        ([[1.0, 2.0], [3.0]], "differ in length"),
        (pd.DataFrame(np.eye(2), columns=["a", "a"]), "Duplicate column name 'a'"),
        (pd.DataFrame({"a": ["u", None]}), "'a'.*1 missing"),
        (pd.DataFrame({"a": pd.array([1, None], dtype="Int64")}), "'a'.*1 missing"),
        (pd.DataFrame({"a": pd.to_datetime(["2020", None])}), "'a'.*1 missing"),
        (pd.DataFrame({"a": pd.Categorical(["u", None])}), "'a'.*1 missing"),
        (pd.DataFrame({"a": [1 + 1j, 2]}), "Complex data not supported: column 'a'"),
        (pd.DataFrame({"a": pd.to_timedelta([1, 2], "s")}), "'a'.*timedelta.*seconds"),
        (pd.DataFrame({"a": pd.cut([1, 2, 3], 2)}), r"'a'.*Interval.*rename_categories\(str\)"),
        (pd.DataFrame({(1, 2): [1, 2]}), "tuple"),
        (pl.DataFrame({"a": [1.0, None]}), "'a'.*1 missing"),
        (pl.DataFrame({"a": [1.0, float("nan")]}), "'a'.*1 missing"),
        (pl.DataFrame({"a": [[1], [2]]}), "'a'.*List"),
        (pa.table([pa.array([1, 2]), pa.array([1, 2])], ["a", "a"]), "Duplicate.*'a'"),
    ],
)
def test_tables_that_are_refused(X, words):
    with pytest.raises(ValueError, match=words):
        TableCodec().fit(X)


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (np.array([[{"a": 1}], [2.0]], dtype=object), "dict.* must be a string or a number"),
        (np.array([["a"], [2.0]], dtype=object), "float, str"),
        (pd.DataFrame({"a": ["u", 3]}), "'a' holds int, str"),
        (scipy.sparse.eye(3).tocsr(), "Sparse.*toarray"),
        (pd.DataFrame({"a": pd.arrays.SparseArray([0, 1])}), "'a' is sparse"),
        (pl.LazyFrame({"a": [1, 2]}), "collect"),
    ],
)
def test_types_that_are_refused(X, words):
    with pytest.raises(TypeError, match=words):
        TableCodec().fit(X)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kinds": {"aa": "real"}}, "kinds names the column 'aa'.*did you mean 'a'"),
        ({"support": {"c": "positive"}}, "support names the column 'c'"),
        ({"kinds": {"a": "float"}}, "kinds\\['a'\\]='float'; choose one of real, integer"),
        ({"kinds": {"b": "real"}}, "'b'.*'real' does not go with dtype str"),
        ({"kinds": {"a": "datetime"}}, "'a'.*'datetime' does not go with dtype float64"),
        ({"kinds": {"a": "boolean"}}, "'a'.*3 levels"),
        ({"support": {"b": "positive"}}, "'b'.*categorical.*numbers"),
        ({"support": "negative"}, "'negative'.*'positive'"),
        ({"support": ("interval", 3, 1)}, "low < high"),
        ({"support": {"a": ("interval", 0, 2)}}, r"1 value\(s\) lie outside, for example 3.0"),
        (
            {"support": {"a": ("circle", 0, 9)}, "kinds": {"a": "integer"}},
            "column of integers must be.*interval",
        ),
    ],
)
def test_options_that_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        TableCodec(**options).fit(GOOD)


def test_kinds_must_be_a_mapping_and_integers_whole():
    with pytest.raises(TypeError, match="kinds must map columns"):
        TableCodec(kinds=["real"]).fit(GOOD)
    with pytest.raises(ValueError, match=r"'integer', but the column holds 1\.5"):
        TableCodec(kinds={0: "integer"}).fit(np.array([[1.5], [2.0]]))
    with pytest.raises(ValueError, match="no real column"):
        TableCodec(support="positive").fit(np.array([[1], [5]]))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (GOOD[["a"]], "missing 'b', unexpected none"),
        (GOOD.rename(columns={"b": "B"}), "missing 'b', unexpected 'B'"),
        (GOOD.assign(c=1), "unexpected 'c'"),
        (np.zeros((2, 3)), "3 features.*fit saw 2"),
        (GOOD.assign(a=["1", "2", "3"]), "'a' held numbers.*strings"),
        (GOOD.assign(b=[1, 2, 3]), "'b' held strings.*numbers"),
        (GOOD.assign(a=pd.Categorical([1, 2, 3])), "'a' held numbers"),
        (GOOD.assign(a=[1.0, np.nan, np.inf]), "'a'.*1 missing"),
        (GOOD.assign(a=[1.0, 2, np.inf]), "'a'.*infinity"),
    ],
)
def test_rows_that_are_refused(rows, words):
    codec = TableCodec().fit(GOOD)
    with pytest.raises(ValueError, match=words):
        codec.encode(rows)


def test_identifiers_are_pointed_out():
    X = pd.DataFrame({"id": [f"user {i}" for i in range(150)], "x": np.arange(150.0)})
    with pytest.warns(UserWarning, match="'id' has 150 distinct.*identifier"):
        TableCodec().fit(X)


# ------------------------------------------------------------------------------- state


def is_plain(value):
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(is_plain(v) for pair in value.items() for v in pair)
    if isinstance(value, (Schema, Column)):
        return all(is_plain(v) for k, v in vars(value).items() if not k.startswith("_"))
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "biuf"
    return type(value) in (type(None), bool, int, float, str)


def test_state_is_plain_values_and_enough_to_go_on():
    X = pd.DataFrame(
        {
            "a": np.array([1.5, 2, 3], dtype=np.float32),
            "c": pd.Categorical([3, 1, 3], categories=[3, 1]),
            "t": pd.date_range("2020", periods=3, tz="UTC"),
            "k": ["k"] * 3,
            "i": np.array([5, 9, 1], dtype=np.int16),
        }
    )
    for data in (X, X.to_numpy(dtype=object)[:, [0, 4]], pl.DataFrame({"s": ["u", "v"]})):
        codec = TableCodec(support={}, kinds={}).fit(data)
        assert is_plain(vars(codec)), vars(codec)
        revived = TableCodec.__new__(TableCodec)
        vars(revived).update(copy.deepcopy(vars(codec)))
        typed, _ = codec.encode(data)
        assert str(revived.decode(typed)) == str(codec.decode(typed))
