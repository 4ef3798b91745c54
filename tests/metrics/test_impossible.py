import math
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import beta

from densekit.metrics import impossible_values

REASONS = ["beyond_end", "off_grid", "unknown_level", "no_value"]


def reasons(X, Y, **kwargs):
    """Shares of each reason in a single column."""
    found = impossible_values(X, Y, **kwargs).table
    assert len(found) == 1
    return dict(found.loc[:, REASONS].iloc[0])


def only(**shares):
    return pytest.approx(dict.fromkeys(REASONS, 0.0) | shares)


RNG = np.random.default_rng(0)
SMOOTH = RNG.normal(size=400)


def test_a_column_ends_at_its_smallest_or_largest_value_if_that_is_an_atom():
    x = np.where(np.arange(400) % 4 == 0, 0.0, np.abs(SMOOTH))
    y = np.array([0.0, -1e-9, 0.5, 99.0])
    assert reasons(x, y) == only(beyond_end=0.25)
    assert reasons(-x, -y) == only(beyond_end=0.25)
    tenth = np.minimum(
        x, 0.1
    )  # in half the precision it is above 0.1, and is the end all the same
    assert reasons(tenth, np.array([0.1, 0.2], np.float32)) == only(beyond_end=0.5)
    # Positive as it happens is no evidence, and nor is an atom inside.
    assert reasons(np.abs(SMOOTH), y) == only()
    assert reasons(np.where(np.arange(400) % 4 == 0, 0.0, SMOOTH), y - 50) == only()


@pytest.mark.parametrize(("rows", "atom"), [(19, False), (20, True)])
def test_an_atom_is_a_twentieth_of_the_rows(rows, atom):
    x = np.append(np.zeros(rows), 1 + np.abs(SMOOTH)[: 400 - rows])
    assert reasons(x, [-1.0])["beyond_end"] == atom
    assert reasons(x, [-1.0], atom_share=0.04)["beyond_end"] == 1


@pytest.mark.parametrize(("rows", "atom"), [(9, False), (10, True)])
def test_an_atom_has_ten_rows(rows, atom):
    x = np.append(np.zeros(rows), 1 + np.abs(SMOOTH)[:20])
    assert reasons(x, [-1.0])["beyond_end"] == atom


def test_missing_cells_are_no_rows_of_a_share():
    x = np.concatenate([np.zeros(20), 1 + np.abs(SMOOTH)[:80], np.full(900, np.nan)])
    assert reasons(x, [-1.0, np.nan]) == only(beyond_end=0.5)


def test_constants_and_flags_end_on_both_sides():
    assert reasons([0.1] * 3, [0.1, 0.2, 0.0]) == only(beyond_end=2 / 3)
    flags = np.array([0] * 999 + [1])
    assert reasons(flags, [0, 1, 2, -1]) == only(beyond_end=0.5)
    counts = np.array([0] * 999 + [2])
    assert reasons(counts, [0, 2, 4, -2]) == only(beyond_end=0.25)
    day = np.array(["2024-02-29"] * 4, "datetime64[D]")
    assert reasons(day, day + np.array([0, 0, 1, -1])) == only(beyond_end=0.5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("step", [0.01, 0.25, 0.3, 1.0, 2.5, 100.0, 1e-6])
def test_floats_lie_on_the_grid_of_all_rows(dtype, step):
    k = np.arange(-200, 200)
    k = np.random.default_rng(1).permutation(k[k % 7 < 5])
    x, later = (k * step).astype(dtype), ((k + 10**4) * step).astype(dtype)
    found = impossible_values(x, later).table.iloc[0]
    assert found["step"] == pytest.approx(step)
    assert found["share"] == 0
    half = ((k + 0.5) * step).astype(dtype)
    assert reasons(x, half) == only(off_grid=1.0)


def test_rounding_errors_of_products_and_sums_stay_on_the_grid():
    x = np.arange(50) * 0.1
    assert (np.round(x, 1) != x).any()
    found = impossible_values(x, np.array([0.1 + 0.2, 0.3, 0.35])).table.iloc[0]
    assert found["step"] == 0.1
    assert found["off_grid"] == pytest.approx(1 / 3)


def test_what_floats_do_not_resolve_is_no_grid():
    for x in (SMOOTH, np.float32(1e7) + SMOOTH.astype(np.float32), SMOOTH * 1e20, SMOOTH * 1e-12):
        assert impossible_values(x, x).table["step"].item() is None
    assert impossible_values(np.arange(19) / 4, [0.1]).table["step"].item() is None  # few rows


def test_integers_have_a_grid():
    x = RNG.integers(0, 50, 300)
    assert reasons(x, np.array([3.0, 3.5, 70.0, -2.0])) == only(off_grid=0.25)
    assert reasons(100 * x, 100 * x[:4] + [0, 1, 50, 100]) == only(off_grid=0.5)
    big = 10**18 + 7 * x
    assert reasons(7 * x, np.append(7 * x[:3], 10**18)) == only(off_grid=float(10**18 % 7 > 0) / 4)
    assert reasons(big - big.min() % 7, big[:4] - big.min() % 7 + [0, 1, 0, 0]) == only(
        off_grid=0.25
    )


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_datetimes_lie_on_days_and_minutes(unit):
    days = np.datetime64("2024-01-01") + RNG.integers(0, 900, 300)
    x = days.astype(f"datetime64[{unit}]")
    y = x[:4] + np.array([0, 86_400, 60, 1], "timedelta64[s]")
    found = impossible_values(x, y).table.iloc[0]
    assert found["off_grid"] == 0.5
    assert found["step"] == np.timedelta64(1, "D")
    minutes = (days + np.timedelta64(1, "m") * RNG.integers(0, 10**6, 300)).astype(
        f"datetime64[{unit}]"
    )
    assert reasons(minutes, y) == only(off_grid=0.25)
    finer = x[:2].astype("datetime64[ns]") + np.array([0, 10**6])
    assert reasons(x, finer.astype("datetime64[ms]")) == only(off_grid=0.5)


def test_a_sentinel_in_the_year_9999_is_an_end():
    x = np.array(["2020-05-17"] * 300, "datetime64[s]") + RNG.integers(0, 10**7, 300)
    x[::10] = np.datetime64("9999-12-31")
    y = np.array(["9999-12-31", "10000-01-01", "1543-01-01", "2020-01-01"], "datetime64[s]")
    assert reasons(x, y) == only(beyond_end=0.25)
    # Nanoseconds end in 2262, where 9999 would come out as 1816, an end.
    assert reasons(x, np.array(["1700-01-01"], "datetime64[ns]")) == only()


def test_few_floats_are_all_there_are():
    x = np.repeat([0, 0.2, 0.4, 0.6, 0.8, 1.0], 10)
    assert reasons(x, np.array([0.2, 0.3, 1.2, 0.4])) == only(unknown_level=0.5)
    assert reasons(x, np.array([0.2, 0.4], np.float32)) == only()
    assert reasons(x, [1, 0, 2, 1]) == only(unknown_level=0.25)
    # A value of nine rows may have neighbors that were not seen.
    assert reasons(x[1:], np.array([0.2, 0.3, 1.2, 0.4]))["unknown_level"] == 0


def test_levels_are_those_that_occur_or_are_declared():
    x = pd.DataFrame({"c": ["a", "b"] * 30})
    y = pd.DataFrame({"c": ["a", "c", "b", "d"]})
    assert reasons(x, y) == only(unknown_level=0.5)
    declared = pd.CategoricalDtype(["c", "b", "a"])
    assert reasons(x.astype(declared), y) == only(unknown_level=0.25)
    kinds = pl.DataFrame({"c": pl.Series(["a"] * 3, dtype=pl.Enum(["a", "b", "c"]))})
    assert reasons(kinds, pl.from_pandas(y)) == only(unknown_level=0.25)
    assert reasons([[True]] * 5, [[False], [True]]) == only()


def test_a_missing_or_infinite_value_is_none():
    frame = pd.DataFrame({"n": SMOOTH[:50], "c": ["a", "b"] * 25})
    holes = frame.assign(n=[None, np.inf] + [0.5] * 48, c=[None] + ["a"] * 49)
    assert impossible_values(frame, holes).table["no_value"].tolist() == [0.04, 0.02]
    assert impossible_values(holes.replace(np.inf, 1.0), holes).table["no_value"].tolist() == [
        0.02,
        0,
    ]
    with pytest.raises(ValueError, match="X: column 'n' contains infinity"):
        impossible_values(holes, frame)


def test_a_value_counts_once_and_so_does_a_row():
    x = pd.DataFrame({"a": np.repeat([0, 5], 30), "b": ["u"] * 60, "c": SMOOTH[:60]})
    y = pd.DataFrame({"a": [-1, 5, 2], "b": ["v", "u", "u"], "c": [0.0, 1.0, 2.0]})
    found = impossible_values(x, y)
    assert found.table["share"].tolist() == pytest.approx([2 / 3, 1 / 3, 0])  # -1: end and grid
    assert found.table["beyond_end"].tolist() == pytest.approx([1 / 3, 0, 0])
    assert found.table["off_grid"].tolist() == pytest.approx([2 / 3, 0, 0])
    assert found.values.value == pytest.approx(1 / 3)
    assert found.rows.value == pytest.approx(2 / 3)


@pytest.mark.parametrize("k", [0, 1, 300, 1000])
def test_standard_errors_are_those_of_a_posterior(k):
    y = np.array([7] * k + [0] * (1000 - k))
    found = impossible_values(np.array([0, 1] * 20), y)
    truth = beta(k + 1, 1001 - k).std()
    assert found.table["standard_error"].item() == pytest.approx(truth, rel=1e-9)
    assert found.values.standard_error == pytest.approx(truth, rel=1e-9)
    assert found.rows.standard_error == pytest.approx(truth, rel=1e-9)


COLUMNS = st.one_of(
    arrays(np.float64, st.integers(1, 60), elements=st.floats(-1e12, 1e12)),
    arrays(np.float32, st.integers(1, 60), elements=st.floats(-(2.0**40), 2.0**40, width=32)),
    arrays(np.int64, st.integers(1, 60), elements=st.integers(-(2**62), 2**62)),
    arrays(np.int8, st.integers(1, 60)),
    arrays(np.uint64, st.integers(1, 60)),
    arrays(np.int64, st.integers(1, 60), elements=st.integers(-(10**11), 10**11)).map(
        lambda k: k.astype("datetime64[s]")
    ),
    st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=60).map(
        lambda k: np.array(k) / 100
    ),
)


@settings(max_examples=300, deadline=None)
@given(COLUMNS)
def test_the_data_themselves_are_possible(x):
    x = np.concatenate([x, x[:1].repeat(30)])  # enough rows for atoms and grids
    frame = pd.DataFrame({"c": x})
    for rows in (x, frame, pl.from_pandas(frame)):
        found = impossible_values(rows, rows)
        assert found.values.value == found.rows.value == 0


def test_bad_settings():
    for share in (0, -0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match=r"atom_share=.*greater than 0 and at most 1"):
            impossible_values([[1.0]], [[1.0]], atom_share=share)
    x = pd.DataFrame({"n": [1.0], "c": ["a"]})
    with pytest.raises(ValueError, match=r"only X has the columns \['c'\], and only Y has \[\]"):
        impossible_values(x, x[["n"]])
    with pytest.raises(ValueError, match="column 'n' is float64 in X and datetime64"):
        impossible_values(x, x.assign(n=pd.to_datetime(["2020"])))


def test_no_codec_has_a_hand_in_it():
    code = """
import sys
import pandas as pd
from densekit.metrics import impossible_values, shape_errors, trend_errors
x = pd.DataFrame({"n": [0.0, 0.5] * 20, "c": ["a", "b"] * 20, "t": pd.to_datetime(["2020"] * 40)})
assert impossible_values(x, x.assign(n=0.3)).rows.value == 1
shape_errors(x, x), trend_errors(x.drop(columns="t"), x.drop(columns="t"))
print([name for name in sys.modules if name.startswith(("densekit.codecs", "torch"))])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr
