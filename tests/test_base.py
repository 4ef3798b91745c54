"""The estimator base on a model whose every number is known: a Gaussian with given parameters."""

import math
from typing import ClassVar

import numpy as np
import pandas as pd
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate, stats
from torch import nn

from densekit import ColumnWarning
from densekit.base import Capabilities, DensityEstimator
from densekit.neural import NeuralDensity


class StandardNormal(DensityEstimator):
    """N(0, 1) for every entry of an event, independent of the data."""

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact", view="relaxed", modalities=("table", "image")
    )

    def _fit(self, events, context):
        self.n_seen_ = len(events)

    def _distribution(self, context):
        d = self.schema_.n_dims
        zero = torch.zeros(d, dtype=self._torch_dtype)
        return dist.Normal(zero, torch.ones_like(zero), validate_args=False).to_event(1)


class Linear(nn.Module):
    def __init__(self, n_dims, n_context):
        super().__init__()
        self.net = nn.Linear(n_context, n_dims) if n_context else None
        self.loc = nn.Parameter(torch.zeros(n_dims))
        self.log_scale = nn.Parameter(torch.zeros(n_dims))

    def forward(self, context):
        loc = self.loc if context is None else self.loc + self.net(context)
        return dist.Normal(loc, self.log_scale.exp(), validate_args=False).to_event(1)


class LinearGaussian(NeuralDensity):
    """A Gaussian whose mean is linear in the context."""

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact", view="relaxed", modalities=("table",), context="features"
    )
    learning_rate: float = 0.02

    def _build(self, schema, context_schema):
        return Linear(schema.n_dims, context_schema.n_features if context_schema else 0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_score_is_the_density_of_the_data_in_its_own_units(rng):
    X = rng.normal([5, -1e6], [3, 1e-2], size=(500, 2))
    est = StandardNormal(dtype="float64").fit(X)
    expected = stats.norm(X.mean(0), X.std(0)).logpdf(X).sum(1)
    np.testing.assert_allclose(est.score_samples(X), expected, rtol=1e-6, atol=1e-6)
    assert est.score(X) == pytest.approx(expected.mean())
    assert (est.density_kind_, est.base_measure_) == ("exact", "lebesgue")


@pytest.mark.parametrize(
    ("support", "low", "high"), [("positive", 0, np.inf), (("interval", -2.0, 3.0), -2, 3)]
)
def test_a_bounded_column_keeps_its_mass_inside(rng, support, low, high):
    x = rng.gamma(2, size=(300, 1)) if support == "positive" else rng.uniform(-2, 3, (300, 1))
    est = StandardNormal(dtype="float64", support={"x": support}).fit(
        pd.DataFrame(x, columns=["x"])
    )

    def density(v):
        return math.exp(est.score_samples(pd.DataFrame({"x": [v]}))[0])

    mass = integrate.quad(density, low, high, limit=200, epsabs=1e-6)[0]
    assert mass == pytest.approx(1, abs=1e-4)
    outside = pd.DataFrame({"x": [low - 1.0, high + 1.0] if np.isfinite(high) else [-1.0, 0.0]})
    with pytest.warns(ColumnWarning, match="'x': 2"):
        assert (est.score_samples(outside) == -np.inf).all()
    drawn = est.sample(1000, random_state=0)["x"]
    assert drawn.between(low, high).all()


def test_dequantized_codes_have_their_mass_bounded_from_below_and_tightly(rng):
    """Codes relax to exact normals by their shares, so a standard normal gives every category its
    share (add-one smoothed): there the bound has no slack and no noise."""
    X = pd.DataFrame({"c": pd.Categorical(rng.choice(list("abcd"), 200), categories=list("abcd"))})
    est = StandardNormal(dtype="float64").fit(X)
    assert (est.density_kind_, est.base_measure_) == ("lower_bound", "counting")
    scores, std = est.score_samples(X, return_std=True)
    counts = X["c"].map(X["c"].value_counts()).to_numpy()
    np.testing.assert_allclose(scores, np.log((counts + 1) / 204), atol=1e-9)
    np.testing.assert_allclose(std, 0, atol=1e-9)


def test_dequantized_integers_are_bounded_by_the_true_mass(rng):
    X = rng.poisson(20, size=(2000, 1))
    est = StandardNormal(dtype="float64", dequantization_draws=64).fit(X)
    column = est.codec_.schema.columns[0]
    values = np.arange(3, 42)[:, None]
    edges = stats.norm(column.origin + column.loc, column.scale)
    mass = edges.cdf(values[:, 0] + 1) - edges.cdf(values[:, 0])
    scores, std = est.score_samples(values, return_std=True)
    assert (std > 0).all()
    assert (np.abs(scores - np.log(mass)) < 5 * std + 1e-9).all()
    assert np.exp(scores).sum() == pytest.approx(1, abs=0.02)


def test_a_context_is_learned_by_name_and_comes_back_in_the_sample(rng):
    n = 2000
    frame = pd.DataFrame({"a": rng.normal(size=n), "g": rng.choice(["u", "v"], n)})
    frame["y"] = 2 * frame["a"] + 5 * (frame["g"] == "v") + 0.1 * rng.normal(size=n)
    frame = frame[["y", "a", "g"]]
    est = LinearGaussian(random_state=0, max_steps=1500).fit(frame, context=["a", "g"])
    residual = frame["y"] - 2 * frame["a"] - 5 * (frame["g"] == "v")
    expected = stats.norm(0, residual.std()).logpdf(residual).mean()
    assert est.score(frame) == pytest.approx(expected, abs=0.05)
    drawn = est.sample(500, context={"a": 1.0, "g": "v"}, random_state=0)
    assert list(drawn.columns) == ["y", "a", "g"]
    assert (drawn["a"] == 1).all()
    assert (drawn["g"] == "v").all()
    assert drawn["y"].mean() == pytest.approx(7, abs=0.05)
    per_row = est.sample(3, context=frame.iloc[:3], random_state=0)
    assert per_row["a"].tolist() == frame["a"].iloc[:3].tolist()
    assert est.condition(frame.iloc[:4]).batch_shape == (4,)
    with pytest.raises(AttributeError, match="use condition"):
        est.distribution_  # noqa: B018
    with pytest.raises(ValueError, match=r"context, .* row 0 of X has 'w' in column 'g'"):
        est.sample(1, context={"a": 1.0, "g": "w"})
    with pytest.raises(ValueError, match=r"lacks the columns \['g'\]"):
        est.sample(1, context={"a": 1.0})
    with pytest.raises(ValueError, match=r"has \['h'\], which it cannot condition on; .*'a', 'g'"):
        est.sample(1, context={"a": 1.0, "g": "v", "h": 2})
    with pytest.raises(ValueError, match="give it context="):
        est.sample(1)


def test_a_context_array_conditions_row_by_row(rng):
    C = rng.normal(size=(1000, 1))
    X = np.c_[3 * C, -C] + 0.1 * rng.normal(size=(1000, 2))
    est = LinearGaussian(random_state=0, max_steps=1000).fit(X, context=C)
    drawn = est.sample(1000, context=[[2.0]], random_state=1)
    np.testing.assert_allclose(drawn.mean(0), [6, -2], atol=0.1)
    each = est.sample(context=np.array([[1.0], [-1.0]]), random_state=1)
    assert each.shape == (2, 2)
    for bad, message in [
        (None, "fitted with a context"),
        (C[:3], "context has 3 rows and X has 1000"),
    ]:
        with pytest.raises(ValueError, match=message):
            est.score_samples(X, context=bad)
    with pytest.raises(ValueError, match="context has 2 rows and n_samples is 3"):
        est.sample(3, context=C[:2])
    with pytest.raises(ValueError, match="takes no context"):
        StandardNormal().fit(X, context=C)


def test_a_failed_fit_leaves_the_estimator_as_it_was(rng):
    X = rng.normal(size=(50, 2))
    est = StandardNormal()
    with pytest.raises(ValueError, match="NaN"):
        est.fit(np.full((5, 2), np.nan))
    assert not [k for k in vars(est) if k.endswith("_")]
    est.fit(X)
    state = {k: v for k, v in vars(est).items() if k.endswith("_")}
    with pytest.raises(ValueError, match="NaN"):
        est.fit(np.full((5, 2), np.nan))
    assert {k: v for k, v in vars(est).items() if k.endswith("_")} == state
    est.score_samples(X)


def test_constant_columns_are_points_and_say_so(rng):
    X = np.c_[rng.normal(size=100), np.full(100, 7.5)]
    est = StandardNormal(dtype="float64").fit(X)
    assert est.base_measure_ == "product"
    expected = stats.norm(X[:, 0].mean(), X[:, 0].std()).logpdf(X[:, 0])
    np.testing.assert_allclose(est.score_samples(X), expected)
    assert est.score_samples([[0.0, 7.4]])[0] == -np.inf
    assert (est.sample(5)[:, 1] == 7.5).all()


def test_images_of_bytes_are_scored_over_counting_measure(rng):
    X = rng.integers(0, 256, size=(300, 3, 2), dtype=np.uint8)
    est = StandardNormal(dtype="float64").fit(X)
    assert (est.density_kind_, est.base_measure_) == ("lower_bound", "counting")
    # Uniform pixels relax to standard normals, up to the standardization of the mid-points.
    assert est.score(X) == pytest.approx(-6 * math.log(256), rel=2e-3)
    drawn = est.sample(7)
    assert drawn.shape == (7, 3, 2)
    assert drawn.dtype == np.uint8


def test_a_model_refuses_what_it_does_not_take(rng):
    with pytest.raises(ValueError, match=r"takes tables; X looks like image data .*\(4, 3, 2\)"):
        LinearGaussian().fit(rng.integers(0, 255, (4, 3, 2), dtype=np.uint8))
    with pytest.raises(ValueError, match="takes tables and images; X looks like text"):
        StandardNormal().fit(["a", "b"])


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (0, ValueError, "n_samples=0"),
        (-1, ValueError, "n_samples=-1"),
        (1.5, TypeError, "float 1.5"),
    ],
)
def test_wrong_numbers_of_draws_are_named(rng, n, error, message):
    est = StandardNormal().fit(rng.normal(size=(9, 2)))
    with pytest.raises(error, match=message):
        est.sample(n)


def test_hyper_parameters_are_checked_by_fit_and_not_before(rng):
    est = LinearGaussian(max_steps=0)
    with pytest.raises(ValueError, match=r"LinearGaussian\(max_steps=0\).*at least 1"):
        est.fit(rng.normal(size=(9, 2)))


def test_a_million_rows_are_scored_without_a_copy_of_them(rng):
    import tracemalloc

    X = rng.normal(size=(400_000, 8))
    est = StandardNormal().fit(X[:1000])
    est.score_samples(X[:1000])
    tracemalloc.start()
    est.score_samples(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.nbytes


def test_a_skewed_category_keeps_its_marginal(rng):
    """Codes relax by their shares, so that even a normal has the right marginal."""
    X = pd.DataFrame({"c": ["a"] * 180 + ["b"] * 15 + ["c"] * 5, "x": rng.normal(size=200)})
    est = StandardNormal(dtype="float64").fit(X)
    share = est.sample(20_000, random_state=0)["c"].value_counts(normalize=True)
    expected = (pd.Series({"a": 180, "b": 15, "c": 5}) + 1) / 203
    np.testing.assert_allclose(share[["a", "b", "c"]], expected, atol=0.01)


def test_ends_of_an_interval_with_rows_on_them_have_a_mass_and_the_rest_integrates(rng):
    X = np.r_[np.zeros(20), np.ones(40), rng.uniform(size=140)][:, None]
    est = StandardNormal(dtype="float64", support=("interval", 0.0, 1.0)).fit(X)
    assert est.density_kind_ == "lower_bound"
    masses = np.exp(est.score_samples(np.array([[0.0], [1.0]])))
    # Standard normal over indicator and value is exact: shares with one imagined row for each.
    np.testing.assert_allclose(masses, [21 / 203, 41 / 203], rtol=1e-6)
    # x = Phi(v): the integral over the open interval, taken over v.
    v = np.linspace(-8, 8, 20001)
    density = np.exp(est.score_samples(stats.norm.cdf(v)[:, None]))
    rest = np.trapezoid(density * stats.norm.pdf(v), v)
    assert rest + masses.sum() == pytest.approx(1, abs=2e-3)
    drawn = est.sample(20_000, random_state=0)
    assert (drawn == 0).mean() == pytest.approx(21 / 203, abs=0.01)
    assert (drawn == 1).mean() == pytest.approx(41 / 203, abs=0.01)


def test_days_are_counted_and_instants_have_a_density(rng):
    import polars as pl

    days = np.datetime64("2026-01-01", "D") + rng.poisson(10, 300)
    est = StandardNormal(dtype="float64").fit(pl.DataFrame({"day": days}))
    assert (est.density_kind_, est.base_measure_) == ("lower_bound", "counting")
    every = np.datetime64("2025-12-01", "D") + np.arange(90)
    scores = est.score_samples(pl.DataFrame({"day": every}))
    assert np.exp(scores).sum() == pytest.approx(1, abs=0.02)
    instants = pd.DataFrame({"when": days.astype("datetime64[s]") + np.arange(300)})
    assert StandardNormal().fit(instants).base_measure_ == "lebesgue"


@pytest.mark.parametrize("far", [1e12, 1e30, 1e100, 1e300])
def test_rows_far_away_score_low_and_never_nan(rng, far):
    est = LinearGaussian(max_steps=5).fit(rng.normal(size=(50, 2)))
    scores, std = est.score_samples([[far, 0.0], [0.0, -far]], return_std=True)
    assert (scores < -1e9).all()
    assert (std == 0).all()


def test_context_columns_may_come_in_x_or_apart_and_not_in_both(rng):
    frame = pd.DataFrame({"y": rng.normal(size=40), "g": rng.choice(["u", "v"], 40)})
    est = LinearGaussian(max_steps=5, random_state=0).fit(frame, context="g")
    apart = est.score_samples(frame[["y"]], context=frame[["g"]])
    np.testing.assert_array_equal(apart, est.score_samples(frame))
    with pytest.raises(ValueError, match=r"\['g'\] are in X and in context="):
        est.score_samples(frame, context=frame[["g"]])
    for value in ("u", ["u"], np.array([["u"]])):
        assert (est.sample(3, context=value)["g"] == "u").all()


def test_context_columns_come_back_with_their_dtypes_and_values(rng):
    """A category of which one level is given compares with all of them."""
    n = 200
    grade = pd.Categorical(rng.choice(["lo", "hi"], n), ["lo", "mid", "hi"], ordered=True)
    frame = pd.DataFrame(
        {
            "y": rng.normal(size=n),
            "grade": grade,
            "flag": rng.random(n) < 0.5,
            "count": rng.integers(0, 50, n),
            "number": rng.normal(size=n).astype("float32"),
            "when": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 10**6, n), "s"),
        }
    )
    names = list(frame.columns[1:])
    est = LinearGaussian(random_state=0, max_steps=3).fit(frame, context=names)
    when = pd.Timestamp("2020-01-03 01:02:03")
    asked = {"grade": "hi", "flag": 1, "count": 2.0, "number": 1, "when": when}
    drawn = est.sample(3, context=asked, random_state=0)
    assert drawn.dtypes.equals(frame.dtypes)
    assert (drawn["grade"] >= "mid").all()
    assert drawn[names].drop_duplicates().iloc[0].to_dict() == asked | {"flag": True}
    some = frame.sample(20, random_state=1)
    again = est.sample(20, context=some, random_state=0)
    pd.testing.assert_frame_equal(again[names], some[names].reset_index(drop=True))
    apart = est.score_samples(some[["y"]], context=some[names])
    np.testing.assert_array_equal(apart, est.score_samples(some))


def test_names_of_columns_that_are_not_there(rng):
    X = rng.normal(size=(50, 2))
    est = LinearGaussian(max_steps=3)
    with pytest.raises(ValueError, match=r"context has 1 rows and X has 50.*go with a frame"):
        est.fit(X, context=["target"])
    frame = pd.DataFrame(X, columns=["a", "b"])
    with pytest.raises(ValueError, match=r"'0', '1', .*50 in all.*Values go in as a Series"):
        est.fit(frame, context=[str(i) for i in range(50)])
    with pytest.raises(ValueError, match="names a column twice"):
        est.fit(frame, context=["b", "b"])
