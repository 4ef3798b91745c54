"""Atoms, ends, steps and derived columns: detection, round trips and measures."""

import datetime as dt
import math
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import torch

import densekit
from densekit import ColumnWarning, Gaussian, describe
from densekit.codecs import TableCodec
from densekit.codecs.grids import Grid

RNG = np.random.default_rng(0)
N = 2000


def fit(X, **options):
    return TableCodec(**{"atom_share": 0.05} | options).fit(X)


def column(x, **options):
    return fit(pd.DataFrame({"x": x}), **options).schema.columns[0]


def zero_inflated(n=N, share=0.8, seed=0):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(n) < share, 0.0, rng.lognormal(size=n))


# ------------------------------------------------------------------------------- atoms and ends


def test_a_column_ends_at_an_atom_that_is_its_smallest_or_largest_value():
    x = RNG.normal(size=N)
    assert column(x).support == ("real",)
    x[:200] = x.min() - 1
    assert column(x).support == ("at_least", x.min())
    x[200:400] = x[400:].max() + 1
    assert column(x).support == ("interval", x.min(), x.max())
    assert column(x).atoms == (x.min(), x.max())
    x[:200] = 0.5
    assert column(x).support == ("at_most", x.max())


def test_floats_with_few_values_are_levels_and_others_are_not():
    six = RNG.integers(0, 6, N) * 0.2
    assert (column(six).kind, len(column(six).levels)) == ("ordinal", 6)
    assert column(six, atom_share=None).kind == "real"
    assert column(np.r_[six, RNG.normal(size=9)]).kind == "real"
    back = fit(six[:, None])
    np.testing.assert_array_equal(back.decode(back.encode(six[:, None])[0]), six[:, None])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_neighbors_that_32_bits_tell_apart_badly_are_two_atoms(dtype):
    x = RNG.integers(0, 10**7, N).astype(dtype)
    x[:800], x[800:1200] = 9_999_999, 9_999_998
    codec = fit(x[:, None])
    assert codec.schema.columns[0].atoms == (9_999_998, 9_999_999)
    z = codec.encode(x[:, None])[0].float()
    back = codec.decode(z)[:, 0]
    for value in (9_999_998, 9_999_999):
        np.testing.assert_array_equal(back == value, x == value)


def test_common_integers_of_a_wide_range_are_atoms_and_come_back_exactly():
    x = RNG.integers(0, 2 * 10**9, N)
    x[:300], x[300:600], x[600:660] = 10**9 + 7, 10**9 + 8, 0
    codec = fit(x[:, None])
    assert set(codec.schema.columns[0].atoms) == {0, 10**9 + 7, 10**9 + 8}
    back = codec.decode(codec.encode(x[:, None])[0].float())[:, 0]
    np.testing.assert_array_equal(back[:660], x[:660])


def test_hours_have_an_atom_at_forty_and_small_counts_have_none():
    hours = np.where(RNG.random(N) < 0.5, 40, RNG.normal(40, 12, N).round()).astype(int)
    assert column(hours).atoms == (40,)
    counts = RNG.poisson(1.5, N)
    assert column(counts).atoms == ()
    assert column(counts).support == ("at_least", 0)


def test_a_sentinel_date_is_an_atom_and_the_scale_is_that_of_the_rest():
    days = np.datetime64("2020-01-01") + RNG.integers(0, 700, N)
    days = days.astype("datetime64[us]")
    days[:200] = np.datetime64("9999-12-31")
    found = column(days)
    assert found.support[0] == "at_most"
    codec = fit(pd.DataFrame({"x": days}))
    z, ladj = codec.encode(pd.DataFrame({"x": days}))
    assert torch.isfinite(ladj).all()
    assert 0.9 < z[200:, 1].std() < 1.1
    noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    noise[:, 0] = (torch.arange(4000) < 400).float()
    drawn = codec.decode(noise)["x"]
    assert (drawn[:400] == pd.Timestamp("9999-12-31").as_unit("us")).all()
    assert drawn[400:].dt.year.between(2010, 2040).mean() > 0.99
    assert (drawn == drawn.dt.normalize()).all()


def test_few_dates_are_levels():
    days = pd.Series(pd.to_datetime(["2020-01-01", "2020-02-01", "2020-03-01"] * 40))
    X = pd.DataFrame({"x": days})
    codec = fit(X)
    assert codec.schema.cardinality.tolist() == [3]
    pd.testing.assert_frame_equal(codec.decode(codec.encode(X)[0]), X)
    with pytest.warns(UserWarning, match="did not see"):
        ladj = codec.encode(pd.DataFrame({"x": [pd.Timestamp("2020-01-15")]}))[1]
    assert np.isneginf(ladj.item())


def test_rows_beyond_a_learned_end_have_no_mass_and_are_counted():
    codec = fit(zero_inflated()[:, None])
    with pytest.warns(ColumnWarning, match=r"number of rows: column 0: 2\."):
        ladj = codec.encode(np.array([[-1.0], [-1e-300], [0.0], [1.0]]))[1]
    assert np.isneginf(ladj.numpy()).tolist() == [True, True, False, False]


# ------------------------------------------------------------------------------- supports


@pytest.mark.parametrize(
    ("support", "draw", "atoms"),
    [
        ("nonnegative", lambda: np.r_[0.0, RNG.exponential(size=300)], (0.0,)),
        ("nonnegative", lambda: RNG.exponential(size=300), ()),
        (("at_least", 2), lambda: 2 + RNG.exponential(size=300), ()),
        (("at_most", 2), lambda: np.r_[2, 2 - RNG.exponential(size=300)], (2.0,)),
        (("interval", -1, 1), lambda: RNG.uniform(-1, 1, 300), ()),
    ],
)
def test_densities_on_half_lines_integrate_to_one_with_their_atoms(support, draw, atoms):
    x = draw()
    est = Gaussian(support={0: support}, atom_share=None, dequantization_draws=256).fit(x[:, None])
    assert est.schema_.columns[0].atoms == atoms
    ends = [e for e in est.schema_.columns[0].ends if e is not None]
    # Points that crowd toward the ends, where a density may be infinite.
    u = np.concatenate([np.geomspace(1e-9, 40, 4001), -np.geomspace(1e-9, 40, 4001)])
    grid = np.sort(np.concatenate([e + u for e in ends]))
    low = ends[0] if support[0] != "at_most" and support != "real" else -math.inf
    high = ends[-1] if support[0] in ("at_most", "interval") else math.inf
    grid = grid[(grid > low) & (grid < high)]
    density = np.exp(est.score_samples(grid[:, None]))
    mass = np.trapezoid(density, grid) + sum(np.exp(est.score_samples([[a]]))[0] for a in atoms)
    assert mass == pytest.approx(1, abs=0.02)
    drawn = est.sample(2000, random_state=0)[:, 0]
    assert ((drawn > low) & (drawn < high) | np.isin(drawn, atoms)).all()


@pytest.mark.parametrize("kind", ["int64", "uint64"])
def test_supports_of_integers_of_any_range(kind):
    low, high = (5, 2**63 + 10**6) if kind == "uint64" else (-(2**62), 2**62)
    x = np.array(
        [low + 1, high - 1, *RNG.integers(low + 1, 2**62 - 1, 98, dtype=kind)], dtype=kind
    )
    codec = TableCodec(support={0: ("interval", low, high)}).fit(x[:, None])
    assert codec.schema.columns[0].ends == (low, high)
    drawn = codec.decode(torch.tensor([[-1e6], [1e6]], dtype=torch.float64))[:, 0]
    assert drawn.tolist() == [low, high]
    with pytest.raises(ValueError, match="lie outside"):
        TableCodec(support={0: ("at_least", low + 2)}).fit(x[:, None])


def test_supports_of_datetimes():
    when = pd.to_datetime("2021-01-01") + pd.to_timedelta(RNG.exponential(1e6, 300), "s")
    X = pd.DataFrame({"when": when})
    codec = TableCodec(support={"when": ("at_least", "2021-01-01")}).fit(X)
    back = codec.decode(codec.encode(X)[0])
    assert ((back - X).abs() <= pd.Timedelta(100, "ns")).all(axis=None)
    h = np.timedelta64(1000, "s")
    far = X[X["when"] > pd.Timestamp("2021-01-02")]
    up, down = codec.encode(far + h)[0], codec.encode(far - h)[0]
    slope = ((up - down) / 2000.0).log()[:, 0]
    torch.testing.assert_close(codec.encode(far)[1], slope, atol=1e-2, rtol=0)
    drawn = codec.decode(torch.full((3, 1), -50.0))["when"]
    assert (drawn > pd.Timestamp("2021-01-01")).all()


# ------------------------------------------------------------------------------- steps


@pytest.mark.parametrize(
    ("values", "step"),
    [
        (RNG.integers(1, 9000, 200) / 100, 0.01),
        (RNG.integers(1, 9000, 200) * 0.125, 0.125),
        (RNG.integers(1, 9000, 200) * 2.5, 2.5),
        (RNG.integers(1, 900, 200) * 100.0, 100),
        ((RNG.integers(1, 9000, 200) / 100).astype(np.float32), 0.01),
        (RNG.integers(1, 9000, 200) * 1e-7, 1e-7),
        (RNG.normal(size=200), 0),
        (RNG.normal(size=200).astype(np.float32), 0),
        (1e15 + RNG.normal(size=200), 0),
        (np.array([1.0, 2.0, 4.0]), 0),
        (RNG.integers(1, 900, 200) * 15, 15),
    ],
)
def test_the_coarsest_grid_is_found(values, step):
    whole, pieces = Grid(), Grid()
    whole.add(values)
    for part in np.array_split(values, 3):
        pieces.add(part)
    assert whole.step == pieces.step == pytest.approx(step, rel=1e-12)


def test_draws_lie_on_the_grid_off_the_atoms_and_inside():
    x = np.where(RNG.random(N) < 0.3, 0.0, np.round(RNG.lognormal(-3, 1, N), 2) + 0.01)
    codec = fit(x[:, None])
    assert codec.schema.columns[0].step == 0.01
    noise = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0)) * 3
    noise[:, 0] = 0
    drawn = codec.decode(noise)[:, 0]
    assert drawn.min() == 0.01
    np.testing.assert_array_equal(drawn, np.round(drawn, 2))
    off = TableCodec(atom_share=0.05, step={0: None}).fit(x[:, None]).decode(noise)[:, 0]
    assert (off != np.round(off, 2)).mean() > 0.9
    given = TableCodec(step={0: 0.25}).fit(RNG.normal(size=(50, 1))).decode(noise[:, 1:])
    np.testing.assert_array_equal(given * 4, np.rint(given * 4))


def test_float32_draws_do_not_round_onto_an_atom_or_an_open_end():
    x = RNG.uniform(0, 1, N).astype(np.float32)
    x[:600] = 1.0
    codec = fit(x[:, None])
    drawn = codec.decode(torch.tensor([[0.0, z] for z in np.linspace(2, 60, 500)]))[:, 0]
    assert drawn.dtype == np.float32
    assert drawn.max() < 1


def test_a_step_that_is_no_step_is_refused():
    for step in (0, -1, "fine", math.inf):
        with pytest.raises(ValueError, match=r"step\[0\]"):
            TableCodec(step={0: step}).fit(RNG.normal(size=(50, 1)))


# ------------------------------------------------------------------------------- objects and dates


def test_objects_of_dates_decimals_and_instants_come_back_as_they_are():
    import pyarrow as pa

    days = [dt.date(2020, 1, 1) + dt.timedelta(int(k)) for k in RNG.integers(0, 400, 100)]
    prices = [Decimal(int(k)) / 100 for k in RNG.integers(1, 10_000, 100)]
    X = pd.DataFrame(
        {
            "day": pd.Series(days, dtype=object),
            "price": pd.Series(prices, dtype=object),
            "arrow_day": pd.Series(days, dtype=pd.ArrowDtype(pa.date32())),
            "arrow_price": pd.Series(prices, dtype=pd.ArrowDtype(pa.decimal128(10, 2))),
        }
    )
    codec = fit(X)
    pd.testing.assert_frame_equal(codec.decode(codec.encode(X)[0]), X)
    assert codec.schema.base_measure == "product"


@pytest.mark.parametrize(
    ("bad", "remedy"),
    [
        (pd.Series(pd.period_range("2020-01", periods=60, freq="M")), "to_timestamp"),
        (
            pd.Series(
                [pd.Timestamp("2020", tz="UTC"), pd.Timestamp("2021", tz="Asia/Tokyo")] * 30
            ),
            "utc=True",
        ),
    ],
)
def test_what_has_no_one_reading_is_refused_with_a_remedy(bad, remedy):
    with pytest.raises(TypeError, match=remedy):
        fit(pd.DataFrame({"x": bad.astype(object)}))


def test_days_of_timestamps_have_a_mass_where_asked():
    X = pd.DataFrame(
        {"x": pd.to_datetime("2020-01-01") + pd.to_timedelta(RNG.integers(0, 99, N), "D")}
    )
    assert fit(X).schema.columns[0].step == 86400 * 10**6
    counted = fit(X, kinds={"x": "date"})
    assert counted.schema.base_measure == "counting"
    pd.testing.assert_frame_equal(counted.decode(counted.encode(X)[0]), X)
    with pytest.raises(ValueError, match="no midnight"):
        fit(X + pd.Timedelta("1h"), kinds={"x": "date"})


# ------------------------------------------------------------------------------- description, findings


def test_models_and_folds_with_one_description_have_one_measure():
    x = zero_inflated(400)
    X = np.column_stack([x, RNG.normal(size=400)])
    columns = describe(X)
    fold = X[x > 0][:60]  # no zero in it
    assert Gaussian().fit(fold).measure_ != Gaussian().fit(X).measure_
    fitted = [
        Gaussian(columns=columns).fit(fold),
        densekit.MADE(columns=columns, max_steps=3, hidden_sizes=(8,)).fit(X),
    ]
    assert fitted[0].measure_ == fitted[1].measure_
    assert np.isfinite(fitted[0].score_samples(X)).all()
    with pytest.raises(ValueError, match="columns= describes all columns"):
        Gaussian(columns=columns, kinds={0: "integer"}).fit(X)
    with pytest.raises(ValueError, match="outside its description"):
        Gaussian(columns=columns).fit(X - 1)


def test_a_description_is_saved_with_the_model(tmp_path):
    X = zero_inflated(200)[:, None]
    est = Gaussian(columns=describe(X)).fit(X)
    est.save(tmp_path / "g.densekit")
    again = densekit.load(tmp_path / "g.densekit")
    assert again.measure_ == est.measure_
    assert again.columns == est.columns
    np.testing.assert_array_equal(again.score_samples(X), est.score_samples(X))


def test_a_fit_says_once_what_there_is_to_know_of_its_columns():
    n = 500
    X = pd.DataFrame(
        {
            "value": zero_inflated(n),
            "still": 3.0,
            "a": RNG.normal(size=n),
            "b": RNG.normal(size=n),
            "id": np.arange(n) + 7,
            "zip": RNG.choice([10115, 60311, 80331, 1067], n),
            "level": RNG.choice(["low", "mid", "high"], n),
        }
    )
    X["copy"], X["sum"] = X["a"], X["a"] - 2 * X["b"] + 1
    X["number"] = X["level"].map({"low": 1, "mid": 5, "high": 9})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        TableCodec(atom_share=0.05).fit(X)
    found = [str(w.message) for w in caught if issubclass(w.category, ColumnWarning)]
    assert len(found) == 1
    for words in (
        "'value' has values with a mass of their own (0.0)",
        "'still' never varies",
        "'id' has another integer in each row",
        "'zip' has 4 integers far apart",
        "'copy' repeats 'a'",
        "'sum' is an exact linear function",
        "'number' is a function of 'level'",
    ):
        assert words in found[0], words
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TableCodec(columns=describe(X)).fit(X)


def test_a_derived_column_comes_back_and_a_contradiction_has_no_mass():
    level = RNG.choice(["low", "mid", "high"], 300)
    X = pd.DataFrame({"level": level, "x": RNG.normal(size=300)})
    X["number"] = X["level"].map({"low": 1, "mid": 5, "high": 9})
    est = Gaussian(derived={"number": "level"}, random_state=0).fit(X)
    assert est.schema_.n_dims == 2
    drawn = est.sample(200, random_state=0)
    assert (drawn["number"] == drawn["level"].map({"low": 1, "mid": 5, "high": 9})).all()
    plain = Gaussian(atom_share=None, random_state=0).fit(X[["level", "x"]])
    np.testing.assert_allclose(
        est.score_samples(X), plain.score_samples(X[["level", "x"]]), atol=1e-9
    )
    assert np.isneginf(est.score_samples(X.assign(number=5)))[level != "mid"].all()
    with pytest.raises(ValueError, match="'number' is no function"):
        Gaussian(derived={"number": "level"}).fit(X.assign(number=np.arange(300)))
    with pytest.raises(ValueError, match="a parent must have levels"):
        Gaussian(derived={"number": "x"}).fit(X)


# ------------------------------------------------------------------------------- weights


def test_weights_count_as_repeated_rows():
    n = 300
    X = pd.DataFrame(
        {
            "value": zero_inflated(n, 0.3),
            "count": RNG.poisson(20, n),
            "kind": RNG.choice(["a", "b", "c"], n),
            "real": RNG.normal(5, 2, n),
        }
    )
    w = RNG.integers(1, 5, n)
    repeated = X.loc[X.index.repeat(w)].reset_index(drop=True)
    one = TableCodec(atom_share=0.05).fit(X, weights=w.astype(float))
    other = TableCodec(atom_share=0.05).fit(repeated)
    np.testing.assert_allclose(one.schema.edges, other.schema.edges, atol=1e-12)
    for a, b in zip(one.schema.columns, other.schema.columns, strict=True):
        assert (a.kind, a.atoms, a.support, a.step) == (b.kind, b.atoms, b.support, b.step)
        assert (a.loc, a.scale) == (
            pytest.approx(b.loc, rel=1e-9),
            pytest.approx(b.scale, rel=1e-9),
        )
