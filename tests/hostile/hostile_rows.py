"""Rows drawn by Hypothesis: tables, images and texts, good ones and hostile ones.

Each drawn column comes with its fate: "good" must be taken, "bad" must be refused by name, "open" may
go either way.
"""

import dataclasses
import datetime
import decimal
import itertools
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

# ------------------------------------------------------------------------------- columns


ODD_CHARACTERS = [
    "",
    "\x00",
    "a\x00",
    "\ud800",
    "e\u0301",
    "\u05d0\u202e",
    "\U0001f600",
    "nan",
    "1",
]
odd_text = st.sampled_from(ODD_CHARACTERS) | st.text(max_size=4)
proper_text = odd_text.filter(lambda t: "\ud800" not in t)
scales = st.sampled_from([1e-300, 1e-30, 1.0, 1e15, 1e30, 1e300])
finite = (
    st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(-10, 10)
    | st.integers(-5, 5).map(lambda k: 1e15 + k)
)
missing = st.sampled_from([None, np.nan, pd.NA, pd.NaT])
scalars = st.one_of(
    st.integers(-9, 9),
    st.sampled_from([2**63, -(2**63), 2**64, 10**30, True, False]),
    finite,
    odd_text,
    missing,
    st.sampled_from(
        [
            1j,
            b"x",
            np.inf,
            (1,),
            [1],
            {},
            decimal.Decimal("1.5"),
            datetime.date(2020, 1, 1),
            datetime.datetime(2020, 1, 1),
            pd.Timestamp("2020", tz="UTC"),
            np.float32(1),
            np.int8(1),
            np.str_("s"),
        ]
    ),
)


def rarely(draw):
    return draw(st.integers(0, 9)) == 5


def many(draw, n, elements):
    return draw(st.lists(elements, min_size=n, max_size=n))


def whole(draw, n):
    dtype = draw(st.sampled_from([f"{u}int{w}" for u in ("", "u") for w in (8, 16, 32, 64)]))
    ends = np.iinfo(dtype)
    near = [int(v) for v in (ends.min, ends.min + 1, 0, 1, 2, ends.max - 1, ends.max)]
    elements = (
        st.sampled_from(near) | st.integers(int(ends.min), int(ends.max)) | st.integers(0, 9)
    )
    return pd.Series(np.array(many(draw, n, elements), dtype)), "good"


def nullable(draw, n):
    dtype = draw(
        st.sampled_from(["Int8", "Int64", "UInt8", "UInt64", "boolean", "int64[pyarrow]"])
    )
    values = many(draw, n, st.booleans() if dtype == "boolean" else st.integers(0, 100))
    if values and rarely(draw):
        values[draw(st.integers(0, n - 1))] = pd.NA
    lacks = any(v is pd.NA for v in values)
    return pd.Series(values, dtype=dtype), "bad" if lacks else "good"


def floating(draw, n):
    dtype = draw(st.sampled_from(["float16", "float32", "float64", "Float64", "double[pyarrow]"]))
    values = np.array(many(draw, n, finite), dtype=float)
    if draw(st.booleans()):
        values = np.clip(values, -10, 10) * draw(scales)
    if n and rarely(draw):
        values[draw(st.integers(0, n - 1))] = draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        series = pd.Series(values.astype(dtype) if dtype.startswith("f") else values, dtype=dtype)
    held = series.to_numpy(float, na_value=np.nan)
    return series, "good" if np.isfinite(held).all() else "bad"


def flags(draw, n):
    return pd.Series(many(draw, n, st.booleans()), dtype=bool), "good"


def strings(draw, n):
    dtype = draw(st.sampled_from(["object", "string", "string[python]", "str", "string[pyarrow]"]))
    values = many(draw, n, odd_text if dtype == "object" else proper_text)
    if values and rarely(draw):
        values[draw(st.integers(0, n - 1))] = draw(missing)
    lacks = any(not isinstance(v, str) or "\ud800" in v for v in values)
    return pd.Series(values, dtype=dtype), "bad" if lacks else "good"


def mixed(draw, n):
    # Wrapped one by one: a list of lists would become a table.
    values = np.empty(n, dtype=object)
    for i, v in enumerate(many(draw, n, scalars)):
        values[i] = v
    return pd.Series(values, dtype=object), "open"


def categories(draw, n):
    pool = draw(
        st.sampled_from(
            [
                (proper_text, "good"),
                (st.integers(-(2**62), 2**62), "good"),
                (st.floats(-1e9, 1e9), "good"),
                (st.booleans(), "good"),
                (scalars.filter(lambda v: not isinstance(v, list | dict)), "open"),
                (st.datetimes(), "open"),
            ]
        )
    )
    elements, fate = pool
    levels = draw(st.lists(elements, max_size=6, unique_by=lambda v: (type(v).__name__, str(v))))
    ordered = draw(st.booleans())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dtype = pd.CategoricalDtype(levels, ordered=ordered)
    except (ValueError, TypeError):  # Not unique or not sortable in pandas' eyes.
        dtype = pd.CategoricalDtype(["a", "b"])
        fate = "good"
    low = -1 if not len(dtype.categories) or rarely(draw) else 0
    codes = many(draw, n, st.integers(low, len(dtype.categories) - 1))
    fate = "bad" if -1 in codes else fate
    return pd.Series(pd.Categorical.from_codes(codes, dtype=dtype)), fate


def instants(draw, n):
    unit = draw(st.sampled_from(["s", "ms", "us", "ns"]))
    reach = draw(st.sampled_from([10, 10**6, 2**63 - 1]))
    ticks = many(draw, n, st.integers(-reach, reach))
    values = np.array(ticks, dtype=np.int64).astype(f"datetime64[{unit}]")
    if n and rarely(draw):
        values[0] = np.datetime64("NaT")
    series = pd.Series(values)
    lacks = bool(series.isna().any())
    if not lacks and reach < 2**62 and draw(st.booleans()):
        series = series.dt.tz_localize("UTC").dt.tz_convert(
            draw(st.sampled_from(["UTC", "Asia/Kolkata", "America/New_York", "+05:30"]))
        )
    return series, "bad" if lacks else "good"


def unreadable(draw, n):
    made = draw(
        st.sampled_from(
            [
                lambda: pd.Series(np.arange(n).astype("timedelta64[s]")),
                lambda: pd.Series(np.full(n, 1j)),
                lambda: pd.Series([b"x"] * n, dtype=object),
                lambda: pd.Series([[1, 2]] * n, dtype=object),
                lambda: pd.Series([{"a": 1}] * n, dtype=object),
                lambda: pd.Series(pd.period_range("2020", periods=n, freq="D")),
                lambda: pd.Series(pd.interval_range(0, n, n)) if n else pd.Series([{}]),
                lambda: pd.Series(pd.arrays.SparseArray(np.arange(float(n)))),
                lambda: pd.Series([decimal.Decimal(1)] * n, dtype=object),
                lambda: pd.Series([[1]] * n, dtype=pd.ArrowDtype(pa.list_(pa.int8()))),
                lambda: pd.Series([b"x"] * n, dtype=pd.ArrowDtype(pa.binary())),
            ]
        )
    )
    return made(), "bad"


def constant(draw, n):
    value = draw(st.sampled_from([0, 1e300, -5e-324, 2**63 - 1, True, "", "\x00", "x"]))
    return pd.Series([value] * n, dtype=None if n else float), "good"


COLUMNS = [whole, nullable, floating, flags, strings, mixed, categories, instants, unreadable]
COLUMNS += [constant, floating, whole, strings, categories]
GOOD = [whole, floating, flags, strings, categories, instants]
LABELS = ["a", "b", "c", "x0", "x1", "", "\x00", "e\u0301", "\u05d0", "a b", "'", "%s{}"]
ODD_LABELS = [0, 1, True, np.int64(2), 1.5, ("a", 1), None, b"a", "a", "\ud800", np.nan]


@dataclasses.dataclass
class Drawn:
    """A table with the labels of its columns, their fates, and whether its form alone is wrong."""

    X: object
    labels: list
    fates: list
    wrong: tuple = ()
    """Words of which the error must have one, where the table is refused whatever is in it."""
    open: bool = False

    @property
    def culprits(self):
        """What an error may name."""
        return [
            *itertools.chain(*(self.words(j) for j, f in enumerate(self.fates) if f != "good")),
            *self.wrong,
        ]

    def words(self, j):
        if isinstance(self.X, np.ndarray | list):
            return [f"olumn {j}", f"'x{j}'"]
        label = self.labels[j]
        return [repr(int(label) if isinstance(label, np.integer) else label)]


def table_of(draw, makers, labels, n, odd=False):
    """A table in any container, with a column from each maker."""
    drawn = [maker(draw, n) for maker in makers]
    fates = [fate for _, fate in drawn]
    X = pd.DataFrame({j: series.reset_index(drop=True) for j, (series, _) in enumerate(drawn)})
    # object, so that pandas changes no label.
    X.columns = pd.Index(labels, dtype=object, tupleize_cols=False)
    if odd:
        X.index = pd.Index(["i"] * len(X))
        return Drawn(X, labels, fates, (*map(repr, labels), "names", "empty"), open=True)
    wrong = () if n else ("empty", "no rows", "0 sample")
    container = draw(st.sampled_from(["pandas", "pandas", "polars", "pyarrow"]))
    # polars panics at a zone that is an offset, and renames a column without a name.
    offsets = any("+" in str(dtype) for dtype in X.dtypes)
    if container == "pandas" or offsets or not all(labels):
        return Drawn(X, labels, fates, wrong)
    try:
        # What does not survive the way there is not for this container to tell.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            X = pa.Table.from_pandas(X, preserve_index=False)
            X = pl.from_arrow(X) if container == "polars" else X
    except Exception:
        return Drawn(X, labels, fates, wrong)
    return Drawn(X, labels, ["open" if f == "bad" else f for f in fates], wrong, open=True)


@st.composite
def tables(draw, kinds, least):
    n, d = draw(st.sampled_from([0, 1, 2, 3, 5, 8, 12])), draw(st.integers(1, 4))
    makers = many(draw, d, st.sampled_from(kinds))
    if odd := kinds is COLUMNS and rarely(draw):
        labels = many(draw, d, st.sampled_from(LABELS[:3] + ODD_LABELS))
    else:
        labels = draw(st.permutations(LABELS))[:d]
    return table_of(draw, makers, labels, max(n, least), odd)


@st.composite
def pairs(draw):
    """Two tables of the same names and mostly the same sorts of columns, the first a good one."""
    d = draw(st.integers(1, 4))
    makers, labels = many(draw, d, st.sampled_from(GOOD)), draw(st.permutations(LABELS))[:d]
    others = [draw(st.sampled_from(COLUMNS)) if rarely(draw) else m for m in makers]
    fitted = table_of(draw, makers, labels, draw(st.integers(2, 8)))
    return fitted, table_of(draw, others, labels, draw(st.integers(0, 4)))


@st.composite
def native_tables(draw):
    """Types that only polars or pyarrow have."""
    n = draw(st.sampled_from([1, 2, 5]))
    days = [datetime.date(2020, 1, 1 + k) for k in range(n)]
    polars = {
        "decimal": pl.Series([decimal.Decimal(k) for k in range(n)]),
        "wide": pl.Series(list(range(n)), dtype=pl.Int128),
        "list": pl.Series([[k] for k in range(n)]),
        "struct": pl.Series([{"a": k} for k in range(n)]),
        "duration": pl.Series([datetime.timedelta(k) for k in range(n)]),
        "clock": pl.Series([datetime.time(k) for k in range(n)]),
        "null": pl.Series([None] * n),
        "binary": pl.Series([bytes([k]) for k in range(n)]),
        "enum": pl.Series(["b"] * n, dtype=pl.Enum(["a", "b", ""])),
        "categorical": pl.Series([str(k % 2) for k in range(n)], dtype=pl.Categorical),
        "days": pl.Series(days),
        "float": pl.Series([float(k) for k in range(n)], dtype=pl.Float32),
        "nan": pl.Series([float("nan")] * n),
        "object": pl.Series([len] * n, dtype=pl.Object),
    }
    arrow = {
        "half": pa.array(np.arange(n, dtype=np.float16)),
        "view": pa.array([str(k) for k in range(n)], pa.string_view()),
        "large": pa.array([str(k) for k in range(n)], pa.large_string()),
        "date64": pa.array(days, pa.date64()),
        "date32": pa.array(days, pa.date32()),
        "time": pa.array(list(range(n)), pa.time64("us")),
        "months": pa.array([(1, k, 0) for k in range(n)], pa.month_day_nano_interval()),
        "map": pa.array([[("k", k)] for k in range(n)], pa.map_(pa.string(), pa.int8())),
        "dictionary": pa.array(["b", "a", "b", "c", "a"][:n]).dictionary_encode(),
        "numbers": pa.array([3, 1, 3, 2, 1][:n]).dictionary_encode(),
        "decimal": pa.array([decimal.Decimal(k) for k in range(n)]),
        "null": pa.nulls(n),
        "fixed": pa.array([b"ab"] * n, pa.binary(2)),
        "zoned": pa.array(list(range(n)), pa.timestamp("ms", "Europe/Rome")),
        "nan": pa.array([float("nan")] * n),
        "ends": pa.array([2**64 - 1 - k for k in range(n)], pa.uint64()),
    }
    chosen = draw(st.sampled_from([polars, arrow]))
    names = draw(st.lists(st.sampled_from(sorted(chosen)), min_size=1, max_size=3, unique=True))
    made = {k: chosen[k] for k in names}
    X = pl.DataFrame(made) if chosen is polars else pa.table(made)
    return Drawn(X, names, ["open"] * len(names), open=True)


@st.composite
def arrays(draw):
    """Arrays and nested lists of any dtype and number of dimensions."""
    dtype = draw(hnp.scalar_dtypes() | st.sampled_from([np.dtype("O"), np.dtype("g")]))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4) | two_dims)
    if dtype.kind == "O":
        X = np.empty(shape, dtype=object)
        for i in np.ndindex(*shape):
            X[i] = draw(scalars)
    else:
        X = draw(hnp.arrays(dtype, shape))
    good = X.ndim == 2 and X.size and X.dtype.kind in "biuf" and np.isfinite(X).all()
    good = good and X.dtype != np.longdouble
    if rarely(draw) and X.ndim == 2:
        X, good = X.tolist(), False
        if X and X[0] and rarely(draw):
            X[0] = X[0][1:]
    words = ("X is", "X has", "Expected 2D", "differ in length", "Complex", "masked", "empty")
    d = np.ndim(X) > 1 and np.shape(X)[1] if isinstance(X, np.ndarray) else len(X[0]) if X else 0
    fate = "good" if good else "open"
    return Drawn(X, list(range(d)), [fate] * int(d), () if good else words, open=True)


two_dims = st.tuples(st.integers(1, 8), st.integers(1, 3))
good_tables = tables(GOOD, 2)
any_table = st.one_of(good_tables, tables(COLUMNS, 0), native_tables(), arrays(), good_tables)
alike = ("Every column of X is constant",)


# ------------------------------------------------------------------------------- images


@st.composite
def images(draw):
    """Arrays that are or are not images, whether they must be taken, and options of the codec."""
    floats = draw(st.booleans())
    usual = (
        ["float16", "float32", "float64", ">f4"] if floats else ["uint8", "int8", "int64", "bool"]
    )
    dtype = np.dtype(draw(st.sampled_from(usual)))
    if rarely(draw):
        dtype = draw(hnp.scalar_dtypes() | st.sampled_from([np.dtype("O"), np.dtype("g")]))
    side = st.integers(1, 3)
    shape = draw(st.tuples(st.integers(1, 4), side, side, *[side] * draw(st.integers(0, 1))))
    if rarely(draw):
        shape = draw(hnp.array_shapes(min_dims=0, max_dims=6, min_side=0, max_side=3))
    elements = {"f": st.floats(0, 1, width=16), "b": st.booleans()}.get(
        dtype.kind, st.integers(0, 127) if dtype.kind in "iu" else None
    )
    if dtype.kind in "iuf" and rarely(draw):
        elements = None  # NaN, infinity and negative ones among them.
    if dtype.kind == "O":
        X = np.full(shape, draw(scalars), dtype=object)
    else:
        # A fill would make most of them constant.
        fill = None if elements is None else st.nothing()
        X = draw(hnp.arrays(dtype, shape, elements=elements, fill=fill))
    good = X.ndim in (3, 4) and X.size and elements is not None and X.min() < X.max()
    options = {}
    if rarely(draw):
        options["image_shape"] = draw(
            st.sampled_from([X.shape[1:], (2, 2), (0, 2), (2,), (1, 2, 1), "ab", (1.5, 2)])
        )
    if rarely(draw):
        options["support"] = draw(
            st.sampled_from([("interval", 0, 127), ("interval", 0, 1), ("interval", 1, 3), "real"])
        )
    return X, bool(good and not options), options


# ------------------------------------------------------------------------------- texts


@st.composite
def texts(draw):
    """Strings in any container, which of them are no strings, and options of the codec."""
    items = draw(st.lists(proper_text | st.text(max_size=30), max_size=6))
    options = {"tokens": draw(st.sampled_from(["character", "character", "byte", "bpe"]))}
    if rarely(draw):
        options["vocab_size"] = draw(st.sampled_from([3, 4, 5, 258, 259, 300]))
    if rarely(draw):
        options["max_length"] = draw(st.sampled_from([0, 1, 5, None]))
    if options["tokens"] == "bpe":
        options.setdefault("vocab_size", 300)
    container = draw(st.sampled_from(["list", "numpy", "object", "pandas", "polars", "pyarrow"]))
    if container in ("list", "object", "pandas") and items and rarely(draw):
        items[draw(st.integers(0, len(items) - 1))] = draw(odd_text | scalars)
    X = items
    if container == "object":
        X = np.empty(len(items), dtype=object)
        X[:] = items
    elif container == "numpy":
        X = np.array(items, dtype=str)
    elif container == "pandas":
        X = pd.Series(items, dtype=object)
    elif container == "polars":
        X = pl.Series("t", items, dtype=pl.String)
    elif container == "pyarrow":
        X = pa.array(items, pa.string())
    return X, options
