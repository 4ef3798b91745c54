import itertools
import math
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from scipy.stats import ks_2samp

from densekit import datasets
from densekit.datasets import DownloadError
from densekit.metrics import shape_errors, trend_errors


def uniform(n, seed):
    """Numbers in [0, 1) by integer arithmetic: the same in every version of NumPy."""
    x = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(2654435761)
    x = (x + np.uint64(seed) * np.uint64(40503)) % np.uint64(2**32)
    for _ in range(3):
        x ^= x >> np.uint64(15)
        x = (x * np.uint64(2246822519)) % np.uint64(2**32)
    x ^= x >> np.uint64(13)
    return x / 2**32


def example(n, seed, shift=0.0, holes=False):
    """A table with an atom, ties, a trend, all kinds of columns and cells that are missing."""
    u = [uniform(n, 10 * seed + k) for k in range(9)]
    amount = np.round(-100 * (1 + shift) * np.log(1 - u[1]), 2)
    seconds = (1e8 * u[5] ** (1 + shift)).astype(int).astype("timedelta64[s]")
    cities = np.array(["Bern", "Oslo", "Rome", "Wien"])
    frame = pd.DataFrame(
        {
            "amount": np.where(u[0] < 0.3 + shift, 0.0, amount),
            "age": 18 + (60 * u[2] ** (1 + shift)).astype(int),
            "city": cities[(4 * u[3] ** (1 + 2 * shift)).astype(int)],
            "member": u[4] < 0.4 + shift,
            "since": np.datetime64("2020-01-01T00:00:00") + seconds,
        }
    )
    frame["spent"] = frame["amount"] * (1 + u[6]) + shift * frame["age"]
    if shift:
        frame.loc[[3, 5], "city"] = "Pisa"
    if holes:
        frame["age"] = frame["age"].astype(float)
        for k, column in enumerate(["amount", "age", "city", "since"]):
            share = 0.1 * (k + 1) * (1 - shift)
            frame.loc[uniform(n, 100 * seed + k) < share, column] = None
    return frame


def examples(holes):
    return example(700, 1, holes=holes), example(500, 2, shift=0.1, holes=holes)


COLUMNS = ["amount", "age", "city", "member", "since", "spent"]
# One minus the scores of SDMetrics 0.32.0 on `examples(holes)`, in an environment of its own (pandas
# 2.3.3). "shape": QualityReport's Column Shapes. "each": its Column Pair Trends, with both thresholds 0.
# "data": CorrelationSimilarity and ContingencySimilarity, with `continuous_column_names` the columns of
# numbers, dates as nanoseconds.
SDMETRICS = {
    False: {
        "shape": [0.076, 0.045428571, 0.061142856, 0.106857143, 0.090857143, 0.311428571],
        "data": [
            0.000620178, 0.104571429, 0.122857143, 0.001264797, 0.001928414, 0.138285714, 0.128857143,
            0.004358704, 0.005652474, 0.108857143, 0.166285714, 0.084, 0.157428571, 0.121142857,
            0.00508573,
        ],
        "each": [
            0.000620178, 0.107142857, 0.123428571, 0.001264797, 0.001928414, 0.14, 0.132857143,
            0.004358704, 0.005652474, 0.108857143, 0.168857143, 0.088, 0.155428571, 0.118, 0.00508573,
        ],
        "means": [1 - 0.8847142858945579, 1 - 0.9225678849421521],
    },
    True: {
        "shape": [0.06823985, 0.045099137, 0.074943845, 0.106857143, 0.095826777, 0.311428571],
        "data": [
            0.002128869, 0.128857143, 0.126, 0.007371884, 0.00161862, 0.161142857, 0.144285714,
            0.028211204, 0.002428576, 0.108571429, 0.161142857, 0.116571429, 0.132285714, 0.121142857,
            0.005487235,
        ],
        "each": [
            0.002128869, 0.133714286, 0.124, 0.007371884, 0.00161862, 0.161142857, 0.148857143,
            0.028211204, 0.002428576, 0.108571429, 0.159142857, 0.120285714, 0.129714286, 0.118,
            0.005487235,
        ],
        "means": [1 - 0.8829341129222077, 1 - 0.9166216693208852],
    },
}  # fmt: skip


@pytest.mark.parametrize("holes", [False, True])
def test_errors_are_one_minus_the_scores_of_sdmetrics(holes):
    X, Y = examples(holes)
    known = SDMETRICS[holes]
    shapes = shape_errors(X, Y)
    assert shapes.table.index.tolist() == COLUMNS
    assert shapes.table["error"].tolist() == pytest.approx(known["shape"], abs=1e-6)
    for edges in ("data", "each"):
        trends = trend_errors(X, Y, bin_edges=edges)
        assert trends.table.index.tolist() == list(itertools.combinations(COLUMNS, 2))
        assert trends.table["error"].tolist() == pytest.approx(known[edges], abs=1e-6)
    means = [shapes.mean.value, trends.mean.value]
    assert means == pytest.approx(known["means"], abs=1e-6)


# The same of the test parts of data sets beside their training parts, of the report alone.
REAL = {
    "adult": (0.993634051026227, 0.9822561709147524),
    "king": (0.9873720410431941, 0.9507567822998477),
    "california_housing": (0.9843951894170729, 0.9802055847451161),
}


@pytest.mark.parametrize("name", REAL)
def test_real_tables_have_the_scores_of_sdmetrics(name):
    try:
        data = datasets.load(name)
    except DownloadError:
        pytest.skip("not on this machine")
    X, Y = data.train, data.test
    found = shape_errors(X, Y).mean.value, trend_errors(X, Y, bin_edges="each").mean.value
    assert found == pytest.approx([1 - score for score in REAL[name]], abs=1e-6)


# ----------------------------------------------------------------------------------- definitions


@pytest.mark.parametrize("values", [5, 200, 10**9])
def test_shapes_of_numbers_are_kolmogorov_smirnov_with_ties(values):
    rng = np.random.default_rng(values)
    for n, m in ((1, 1), (3, 40), (200, 150)):
        x, y = rng.integers(0, values, n) / 7, rng.integers(0, values + 2, m) / 7
        found = shape_errors(x, y)
        assert found.table["error"].item() == pytest.approx(ks_2samp(x, y).statistic, abs=1e-12)


def test_trends_follow_their_formulas():
    X, Y = examples(holes=True)
    found = trend_errors(X, Y).table
    r, s = (frame[["amount", "age"]].corr().iloc[0, 1] for frame in (X, Y))
    assert found.loc[("amount", "age"), "error"] == pytest.approx(abs(r - s) / 2, abs=1e-12)
    edges = [-np.inf, *np.linspace(X["amount"].min(), X["amount"].max(), 11)[1:-1], np.inf]
    shares = []
    for frame in (X, Y):
        bins = pd.cut(frame["amount"], edges, right=False, labels=False)
        pairs = pd.DataFrame({"bin": bins.fillna(-1), "city": frame["city"].fillna("none")})
        shares.append(pairs.value_counts(normalize=True))
    apart = shares[0].sub(shares[1], fill_value=0).abs().sum() / 2
    assert found.loc[("amount", "city"), "error"] == pytest.approx(apart, abs=1e-12)


def test_same_rows_have_no_error_and_disjoint_ones_the_largest():
    X, _ = examples(holes=True)
    for measure in (shape_errors, trend_errors):
        assert measure(X, X.iloc[::-1]).table["error"].to_numpy() == pytest.approx(0, abs=1e-12)
    x = pd.DataFrame({"n": [1.0, 2, 3], "m": [1, 2, 3], "c": list("abc"), "d": list("aab")})
    y = pd.DataFrame({"n": [7.0, 8, 9], "m": [9, 8, 7], "c": list("def"), "d": list("ccc")})
    assert shape_errors(x, y).table["error"].tolist() == pytest.approx([1] * 4)
    assert trend_errors(x, y).table["error"].tolist() == pytest.approx([1] * 6)


def test_integers_beyond_float_precision_and_dates_to_the_year_9999_are_distinguished():
    big = 2**60 + np.arange(4)
    assert shape_errors(big, big + 1).mean.value == 0.25
    x = np.array(["2020-01-01", "2020-01-02", "9999-12-31"], "datetime64[s]")
    assert shape_errors(x, x).mean.value == 0
    fine = x[:2].astype("datetime64[ns]")
    assert shape_errors(x, fine).mean.value == pytest.approx(1 / 3)
    assert (
        shape_errors(fine, fine.astype("datetime64[ms]") + np.timedelta64(1, "ms")).mean.value
        == 0.5
    )


def test_correlations_of_numbers_far_from_zero_are_exact():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 9, (2, 300, 2))
    near, far = trend_errors(x, y).mean.value, trend_errors(x + 10**15, y + 10**15).mean.value
    assert far == pytest.approx(near, abs=1e-12)
    huge = trend_errors(x * 1e300, y * 1e300).mean.value
    assert huge == pytest.approx(near, abs=1e-12)
    k = np.arange(50)
    x = pd.DataFrame({"t": np.datetime64("2024-05-17", "ns") + k, "k": k})
    assert trend_errors(x, x.assign(k=-k)).mean.value == pytest.approx(1)


# ------------------------------------------------------------------------------------ containers


def test_containers_read_alike():
    X, Y = examples(holes=True)
    expected = shape_errors(X, Y), trend_errors(X, Y)
    others = [
        pl.from_pandas,
        lambda f: pa.Table.from_pandas(f),
        lambda f: f.convert_dtypes(),
        lambda f: f.convert_dtypes(dtype_backend="pyarrow"),
        lambda f: f.astype({"city": "category"}),
        lambda f: f.astype(object).where(f.notna(), None),
        lambda f: f.assign(since=f["since"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")),
        lambda f: f[f.columns[::-1]],
    ]
    for convert in others:
        # Both the same, and one of each.
        for x, y in ((convert(X), convert(Y)), (X, convert(Y))):
            shapes, trends = shape_errors(x, y), trend_errors(x, y)
            same = {frozenset(pair): e for pair, e in trends.table["error"].items()}
            for pair, error in expected[1].table["error"].items():
                assert same[frozenset(pair)] == pytest.approx(error, abs=1e-12)
            for column, error in expected[0].table["error"].items():
                assert shapes.table["error"][column] == pytest.approx(error, abs=1e-12)


def test_dates_decimals_and_enums_are_read_as_what_they_are():
    import datetime
    from decimal import Decimal

    days = [datetime.date(2024, 1, d) for d in (1, 2, 3, 4)]
    prices = [Decimal("1.10"), Decimal("2.20"), Decimal("3.30"), None]
    x = pd.DataFrame({"d": days, "p": prices}, dtype=object)
    kinds = pl.Enum(["low", "high"])
    frames = [
        x,
        pl.DataFrame({"d": days, "p": pl.Series(prices, dtype=pl.Decimal(10, 2))}),
        pa.table({"d": pa.array(days, pa.date32()), "p": pa.array(prices, pa.decimal128(10, 2))}),
        pd.DataFrame({"d": pd.to_datetime(days), "p": [1.1, 2.2, 3.3, math.nan]}),
        pd.DataFrame({"d": pd.PeriodIndex(days, freq="D"), "p": [1.1, 2.2, 3.3, math.nan]}),
    ]
    for a, b in itertools.product(frames, frames):
        found = shape_errors(a, b)
        assert found.table["metric"].tolist() == ["KSComplement"] * 2
        assert found.table["error"].tolist() == [0, 0]
    flags = pd.DataFrame({"f": [True, False, False]})
    assert shape_errors(flags, flags.astype("category")).mean.value == 0
    holes = pa.table({"n": pa.array([1.0, math.nan, None])})
    nans = pl.DataFrame({"n": [math.nan, math.nan, 1.0]})
    assert shape_errors(holes, nans).mean.value == 0
    a = pl.DataFrame({"e": pl.Series(["low"] * 3 + ["high"], dtype=kinds)})
    assert shape_errors(a, pl.DataFrame({"e": ["high"] * 2 + ["low"] * 2})).mean.value == 0.25


def test_arrays_have_columns_by_number():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 50, 3))
    assert trend_errors(x, y).table.index.tolist() == [(0, 1), (0, 2), (1, 2)]
    mixed = [[1, "a", True], [2, "b", False], [3, "a", None]]
    found = shape_errors(mixed, mixed[:2]).table
    assert found["metric"].tolist() == ["KSComplement", "TVComplement", "TVComplement"]
    assert found["error"].tolist() == pytest.approx([1 / 3, 1 / 6, 0])


# ------------------------------------------------------------------------------- standard errors


def draw(rng, n, shift):
    """Five columns of all kinds; the third depends on the first, and the fourth is a copy of it."""
    z = rng.normal(size=(n, 3))
    x = z[:, 0] + shift
    return pd.DataFrame(
        {
            "x": x,
            "i": rng.poisson(5 * (1 + shift), n),
            "f": x + z[:, 2] > 0.5,
            "copy": x,
            "c": rng.choice(list("abcd"), n, p=[0.4 + shift, 0.4 - shift, 0.15, 0.05]),
        }
    )


@pytest.mark.parametrize("measure", [shape_errors, trend_errors])
@pytest.mark.parametrize(("shift", "high"), [(0.3, 1.45), (0.0, 2.2)])
def test_standard_errors_cover_the_spread_over_repetitions(measure, shift, high):
    # Up to twice too large where there is no difference: the size of noise varies less than noise.
    values, claimed = [], []
    for seed in range(80):
        rng = np.random.default_rng(seed)
        found = measure(draw(rng, 400, 0), draw(rng, 300, shift))
        values.append([*found.table["error"], found.mean.value])
        claimed.append([*found.table["standard_error"], found.mean.standard_error])
    spread = np.nanstd(values, 0, ddof=1)
    ratio = np.sqrt(np.mean(np.square(claimed), 0)) / np.where(spread > 1e-9, spread, np.nan)
    if measure is shape_errors:
        assert 0.8 < np.nanmin(ratio) <= np.nanmax(ratio) < high
    else:  # some pairs differ and some do not
        assert 0.8 < np.nanmin(ratio) <= np.nanmax(ratio) < 2.2
        assert ratio[-1] < high


def test_the_mean_of_copies_is_as_uncertain_as_each():
    x, y = (draw(np.random.default_rng(s), 300, 0.1 * s)[["x", "copy"]] for s in (0, 1))
    found = shape_errors(x, y)
    assert found.mean.standard_error == pytest.approx(found.table["standard_error"].iloc[0])
    # And that of independent ones by the square root of two less, roughly.
    rng = np.random.default_rng(0)
    found = shape_errors(rng.normal(size=(4000, 2)), rng.normal(0.5, size=(4000, 2)))
    each = found.table["standard_error"].mean()
    assert found.mean.standard_error == pytest.approx(each / math.sqrt(2), rel=0.1)


def test_standard_error_of_correlations_is_that_of_normals():
    # The variance of r is (1 - r^2)^2 / n.
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 20_000, 2))
    x[:, 1], y[:, 1] = 0.8 * x[:, 0] + 0.6 * x[:, 1], 0.6 * y[:, 0] + 0.8 * y[:, 1]
    truth = math.hypot(1 - 0.8**2, 1 - 0.6**2) / 2 / math.sqrt(20_000)
    assert trend_errors(x, y).mean.standard_error == pytest.approx(truth, rel=0.05)
    # A column and its negative err alike, and their errors do not cancel.
    mirrored = trend_errors(np.c_[x, -x[:, 1]], np.c_[y, -y[:, 1]])
    assert mirrored.mean.standard_error == pytest.approx(truth * 2 / 3, rel=0.05)


def test_standard_error_of_a_share_is_binomial():
    x, y = np.array([True] * 30 + [False] * 70), np.array([True] * 60 + [False] * 140)
    claimed = shape_errors(x, y).mean.standard_error  # equal shares: still not known exactly
    assert claimed == pytest.approx(math.sqrt(0.3 * 0.7 * (1 / 99 + 1 / 199)))


def test_one_row_has_errors_and_no_standard_errors():
    x = pd.DataFrame({"n": [1.0, 2.0], "c": ["a", "b"]})
    for measure in (shape_errors, trend_errors):
        found = measure(x, x.iloc[:1])
        assert found.mean.value == 0.5
        assert math.isnan(found.mean.standard_error)


# ------------------------------------------------------------------------- constants and missing


def test_pairs_without_a_correlation_are_not_in_the_mean():
    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.normal(size=(40, 3)), columns=list("abc")).assign(
        d=list("uv") * 20, k=0.1
    )
    y = x.assign(b=0.3)
    with pytest.warns(UserWarning, match=r"column\(s\) \['b'\] are constant in Y but not in X"):
        found = trend_errors(x, y)
    gone = found.table["error"].isna()
    assert set(found.table.index[gone]) == {
        ("a", "b"), ("b", "c"), ("b", "k"), ("a", "k"), ("c", "k")
    }  # fmt: skip
    assert found.mean.value == pytest.approx(found.table["error"][~gone].mean())
    assert math.isfinite(found.mean.standard_error)
    assert found.table.loc[("b", "d"), "error"] > 0.3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trend_errors(x, x)  # constant in both: nothing that a model did


@pytest.mark.parametrize("empty", [math.nan, None])
def test_columns_without_a_value(empty):
    x = pd.DataFrame({"n": [1.0, 2.0, 3.0], "t": pd.to_datetime(["2020"] * 3), "c": list("aab")})
    y = x.assign(n=empty)
    found = shape_errors(x, y)
    assert math.isnan(found.table["error"]["n"])
    assert found.mean.value == 0
    assert trend_errors(x, y).table.loc[("n", "c"), "error"] == pytest.approx(1)
    nothing = pd.DataFrame({"n": [empty] * 3})
    found = shape_errors(nothing, nothing).mean
    assert math.isnan(found.value)
    assert math.isnan(found.standard_error)


# ---------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("measure", [shape_errors, trend_errors])
def test_bad_tables(measure):
    x = pd.DataFrame({"n": [1.0, 2.0], "c": ["a", "b"]})
    with pytest.raises(
        ValueError, match=r"only X has the columns \['c'\], and only Y has \['d'\]"
    ):
        measure(x, x.rename(columns={"c": "d"}))
    with pytest.raises(ValueError, match="rows of X have 2 entries and rows of Y 3"):
        measure(np.zeros((5, 2)), np.zeros((5, 3)))
    with pytest.raises(ValueError, match="column 'c' is str in X and int64 in Y: convert one"):
        measure(x, x.assign(c=[1, 2]))
    with pytest.raises(ValueError, match="column 'c' is str in X and bool in Y: convert one"):
        measure(x, x.assign(c=[True, False]))
    with pytest.raises(ValueError, match="Y: column 'n' contains infinity: 1 of 2"):
        measure(x, x.assign(n=[1, np.inf]))
    with pytest.raises(ValueError, match="X: column 'n' contains infinity: 1 of 2"):
        measure(x.assign(n=[1, -np.inf]), x)
    with pytest.raises(ValueError, match="Y is empty"):
        measure(x, x[:0])
    with pytest.raises(ValueError, match="X: duplicate column name 'n'"):
        measure(x.set_axis(["n", "n"], axis=1), x)
    with pytest.raises(TypeError, match=r"X is a LazyFrame.*X.collect"):
        measure(pl.from_pandas(x).lazy(), x)
    with pytest.raises(TypeError, match="column 'c' holds int, str"):
        measure(x, x.assign(c=pd.Series(["a", 1], dtype=object)))
    with pytest.raises(
        TypeError, match=r"column 'n' has dtype timedelta64.*durations: to seconds"
    ):
        measure(x.assign(n=pd.to_timedelta([1, 2], unit="s")), x)
    with pytest.raises(ValueError, match=r"X has shape \(2, 3, 4\)"):
        measure(np.zeros((2, 3, 4)), x)
    with pytest.raises(TypeError, match="X is an array of complex128"):
        measure(np.zeros((2, 3), complex), x)
    with pytest.raises(TypeError, match="X is sparse"):
        measure(scipy.sparse.eye(3).tocsr(), x)


def test_bad_settings_of_trends():
    x = np.zeros((3, 2))
    with pytest.raises(ValueError, match="bin_edges='both': must be 'data' or 'each'"):
        trend_errors(x, x, bin_edges="both")
    with pytest.raises(ValueError, match="X has one column"):
        trend_errors(x[:, :1], x[:, :1])
