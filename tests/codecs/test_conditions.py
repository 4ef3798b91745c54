import datetime
import math

import numpy as np
import pandas as pd
import pytest

from densekit.codecs import TableCodec
from densekit.codecs.conditions import Condition, read_conditions

RNG = np.random.default_rng(0)
N = 200
X = pd.DataFrame(
    {
        "kind": RNG.choice(["ash", "elm", "oak"], N),
        "size": pd.Categorical(RNG.choice(["s", "m", "l"], N), ["s", "m", "l"], ordered=True),
        "grade": pd.Categorical(RNG.choice([1, 3, 5], N), [1, 3, 5], ordered=True),
        "wet": RNG.random(N) < 0.5,
        "rings": RNG.integers(0, 90, N),
        "girth": RNG.lognormal(size=N),
        "share": RNG.random(N),
        "felled": pd.Timestamp("2020-01-01") + pd.to_timedelta(RNG.integers(0, 10**6, N), "s"),
    }
)
CODEC = TableCodec(support={"girth": "positive", "share": ("interval", 0, 1)}).fit(X)


def entry(**context):
    return next(iter(read_conditions(CODEC, context).entries.values()))


def typed(column, value):
    """The entry of one value, by encoding a row that has it."""
    row = X[:1].copy()
    row[column] = row[column].astype(object)
    row.loc[0, column] = value
    return CODEC.encode(row.astype(X.dtypes.to_dict()))[0][0, list(X).index(column)].item()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("kind", "elm"),
        ("size", "l"),
        ("grade", 5),
        ("wet", True),
        ("wet", np.False_),
        ("rings", 7),
        ("rings", np.int8(7)),
        ("girth", 2.5),
        ("share", 0.25),
        ("felled", pd.Timestamp("2020-01-03 12:00")),
        ("felled", datetime.datetime(2020, 1, 4)),
    ],
)
def test_a_value_is_what_a_row_with_it_is_encoded_to(column, value):
    assert entry(**{column: value}).values == (pytest.approx(typed(column, value)),)


def test_intervals_of_levels_are_codes_by_their_value_or_by_their_order():
    assert entry(grade=(2, 9)).values == (1.0, 2.0)
    assert entry(size=("m", None)).values == (1.0, 2.0)
    assert entry(size=("s", "m")).values == (0.0, 1.0)
    assert entry(wet=(True, None)).values == (1.0,)


def test_intervals_of_integers_keep_those_inside():
    at = entry(rings=(3.2, 8.9))
    assert (at.low, at.high) == (typed("rings", 4), typed("rings", 8))
    assert entry(rings=(None, 5)) == Condition(low=-math.inf, high=typed("rings", 5))
    assert entry(rings=(6.5, 7)).values == (typed("rings", 7),)


def test_ends_beyond_a_support_are_open():
    assert entry(girth=(-3, 1)).low == -math.inf
    assert entry(girth=(0, 1)).low == -math.inf
    assert entry(share=(0.5, 1.0)) == Condition(low=typed("share", 0.5), high=math.inf)
    assert entry(girth=(1, math.inf)).high == math.inf


@pytest.mark.parametrize(("column", "ends"), [("girth", (-3, -1)), ("share", (1, 2))])
def test_an_interval_outside_the_support_is_an_error(column, ends):
    with pytest.raises(ValueError, match=r"no value of the column is in between"):
        entry(**{column: ends})


def test_datetimes_are_read_as_pandas_reads_them():
    at = entry(felled=("2020-01-02", "2020-01-03T12:00+02:00"))
    assert at.low == pytest.approx(typed("felled", pd.Timestamp("2020-01-02")))
    assert at.high == pytest.approx(typed("felled", pd.Timestamp("2020-01-03 10:00")))


def test_values_of_the_data_are_put_back_into_their_interval():
    asked = read_conditions(CODEC, {"girth": (0.1, 0.7), "share": 0.3})
    codec = CODEC.given((), asked.ends)
    z = CODEC.encode(X)[0]
    found = codec.decode(z)
    assert found["girth"].between(0.1, 0.7).all()
    assert (found["share"] == 0.3).all()
    pd.testing.assert_series_equal(found["rings"], X["rings"])
