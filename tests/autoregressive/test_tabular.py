import itertools
import math
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

import densekit
from densekit import TabularAutoregressive

SMALL = {
    "hidden_sizes": (16,),
    "n_orders": 1,
    "dropout": 0.0,
    "learning_rate": 5e-3,
    "max_steps": 60,
    "random_state": 0,
    "device": "cpu",
    "dtype": "float64",
}
KINDS, COLORS = ["ash", "elm", "oak"], ["red", "blue"]


def trees(n=300, seed=0):
    """Three categories that depend on each other."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(KINDS, n, p=[0.5, 0.3, 0.2])
    color = np.where(rng.random(n) < np.where(kind == "oak", 0.9, 0.2), "red", "blue")
    return pd.DataFrame({"kind": kind, "color": color, "tall": rng.random(n) < 0.3})


EVERY = pd.DataFrame(
    list(itertools.product(KINDS, COLORS, [False, True])), columns=["kind", "color", "tall"]
)


@pytest.fixture(scope="module")
def fitted():
    return TabularAutoregressive(**SMALL).fit(trees())


@pytest.fixture(scope="module")
def averaged():
    return TabularAutoregressive(**SMALL | {"n_orders": 3}).fit(trees())


def mixed(n=600, seed=0):
    """A balance that is 0 for a third of the rows, a count that is 0 for most, a category and an age."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(KINDS, n)
    balance = np.where(rng.random(n) < 0.35, 0.0, rng.normal(5 + 3 * (kind == "oak"), 1, n))
    count = np.where(rng.random(n) < 0.8, 0, rng.poisson(8, n))
    balance[:3], count[:3] = -2.0, -1  # so that neither ends at 0
    return pd.DataFrame(
        {
            "kind": kind,
            "balance": balance,
            "count": count,
            "age": rng.integers(18, 80, n),
            "flag": (rng.random(n) < 0.5).astype(int),
        }
    )


@pytest.fixture(scope="module")
def on_mixed():
    return TabularAutoregressive(**SMALL | {"max_steps": 200}).fit(mixed())


# ------------------------------------------------------------------------------- sums to one


@pytest.mark.parametrize("n_orders", [1, 3])
def test_masses_of_all_rows_sum_to_one(n_orders, fitted, averaged):
    est = fitted if n_orders == 1 else averaged
    assert np.exp(est.score_samples(EVERY)).sum() == pytest.approx(1, abs=1e-9)
    assert (est.density_kind_, est.base_measure_) == ("exact", "counting")


@pytest.mark.parametrize("given", [["kind"], ["tall"], ["color", "kind"], []])
def test_masses_given_any_columns_sum_to_one(given, averaged):
    mass = pd.Series(np.exp(averaged.score_samples(EVERY, given=given)))
    if not given:
        assert mass.sum() == pytest.approx(1, abs=1e-9)
        return
    sums = mass.groupby([EVERY[c] for c in given]).sum()
    np.testing.assert_allclose(sums, 1, atol=1e-9)
    assert len(sums) > 1


def test_what_is_given_first_in_the_order_closes_the_chain(fitted):
    """log p(all) = log p(kind) + log p(others | kind), kind being the first of the one order."""
    alone = EVERY.assign(color=None, tall=None)
    whole = fitted.score_samples(EVERY)
    first = fitted.score_samples(alone)
    rest = fitted.score_samples(EVERY, given=["kind"])
    np.testing.assert_allclose(first + rest, whole, atol=1e-9)
    assert np.ptp(first) > 0.1


def test_spikes_and_slab_integrate_to_one_with_the_spikes_mass(on_mixed):
    grid = np.linspace(-60, 60, 24_002)
    assert 0.0 not in grid
    row = {"kind": "oak", "count": 0, "age": 40, "flag": 1}
    slab = pd.DataFrame({**row, "balance": grid})[["kind", "balance", "count", "age", "flag"]]
    spike = pd.DataFrame([{**row, "balance": 0.0}])[slab.columns]
    others = ["kind", "count", "age", "flag"]
    density = np.exp(on_mixed.score_samples(slab, given=others))
    mass = float(np.exp(on_mixed.score_samples(spike, given=others))[0])
    assert mass == pytest.approx(0.35, abs=0.15)
    assert mass + np.trapezoid(density, grid) == pytest.approx(1, abs=1e-5)
    assert on_mixed.base_measure_ == "product"


def test_a_spike_of_integers_has_its_share_and_all_integers_sum_to_one(on_mixed):
    count = np.arange(-4000, 4000)
    rows = pd.DataFrame({"kind": "ash", "balance": 5.0, "count": count, "age": 30, "flag": 0})
    mass = np.exp(on_mixed.score_samples(rows, given=["kind", "balance", "age", "flag"]))
    assert mass.sum() == pytest.approx(1, abs=1e-6)
    assert mass[4000] == pytest.approx(0.8, abs=0.1)


def test_a_value_near_a_spike_has_a_density_and_the_spike_a_mass():
    """Even one so near that 32 bits do not tell it from the spike."""
    X = np.where(np.arange(400) % 2, 1000.0, np.random.default_rng(0).normal(1000, 5, 400))[
        :, None
    ]
    est = TabularAutoregressive(**SMALL | {"dtype": "float32"}).fit(X)
    at, beside, off = est.score_samples(np.array([[1000.0], [1000.0 + 1e-8], [1000.01]]))
    assert beside == pytest.approx(off, abs=1e-2)
    assert abs(at - beside) > 0.5
    drawn = est.sample(400, random_state=0)
    assert 0.3 < (drawn == 1000.0).mean() < 0.7


def test_scores_are_in_the_units_of_the_slab():
    """Ten times the numbers: the density of the slab is a tenth, the mass of the spike the same."""
    X = mixed()[["balance", "age"]].to_numpy()
    one, ten = (TabularAutoregressive(**SMALL).fit(X * s) for s in ([1, 1], [10, 1]))
    rows = X[:50]
    moved = one.score_samples(rows) - ten.score_samples(rows * [10, 1])
    expected = np.where(rows[:, 0] == 0, 0.0, math.log(10))
    np.testing.assert_allclose(moved, expected, atol=1e-6)
    given = one.score_samples(rows, given=[0]) - ten.score_samples(rows * [10, 1], given=["x0"])
    np.testing.assert_allclose(given, 0, atol=1e-6)


# ------------------------------------------------------------------------------- missing cells


def test_a_missing_cell_that_comes_last_is_the_sum_over_its_values(fitted):
    rows = EVERY[EVERY["tall"]].reset_index(drop=True)
    marginal = fitted.score_samples(rows.assign(tall=None))
    both = [fitted.score_samples(rows.assign(tall=v)) for v in (False, True)]
    np.testing.assert_allclose(marginal, np.logaddexp(*both), atol=1e-9)


@pytest.mark.parametrize("column", ["kind", "color", "tall"])
def test_masses_of_rows_without_a_column_sum_to_one(column, averaged):
    rest = [c for c in EVERY.columns if c != column]
    rows = EVERY.drop_duplicates(rest).assign(**{column: None})
    assert np.exp(averaged.score_samples(rows)).sum() == pytest.approx(1, abs=1e-9)


def test_a_row_without_any_cell_has_mass_one(averaged):
    assert averaged.score_samples(EVERY[:2].assign(kind=None, color=None, tall=None)).tolist() == [
        0,
        0,
    ]


def test_a_missing_number_takes_its_units_along(on_mixed):
    rows = mixed(53, 1)[3:]
    marginal = on_mixed.score_samples(rows.assign(balance=np.nan))
    without = on_mixed.score_samples(rows, given=["balance"])
    assert np.isfinite(marginal).all()
    assert np.abs(marginal - without).max() < 3  # both are masses of the other columns


def test_missing_cells_are_learned_from_what_is_there():
    """A third of the cells is missing at random; the model learns the distribution of complete rows."""
    rng = np.random.default_rng(0)
    X = trees(3000)
    blank = X.astype(object).mask(rng.random(X.shape) < 0.3)
    settings = SMALL | {"max_steps": 300, "hidden_sizes": (32,), "dtype": "float32"}
    est = TabularAutoregressive(**settings).fit(blank)
    truth = X.value_counts(normalize=True)
    found = pd.Series(
        np.exp(est.score_samples(EVERY.astype(object))), pd.MultiIndex.from_frame(EVERY)
    )
    assert (found - truth.reindex(found.index, fill_value=0)).abs().sum() < 0.15
    assert not pd.isna(est.sample(20, random_state=0)).any(axis=None)


NULLS = {
    "numpy": (lambda X: X[["balance", "age"]].to_numpy(float), np.nan),
    "pandas nullable": (lambda X: X.astype({"age": "Int64", "count": "Int64"}), pd.NA),
    "polars": (lambda X: pl.from_pandas(X), None),
    "pyarrow": (lambda X: pl.from_pandas(X).to_arrow(), None),
}


@pytest.mark.parametrize("container", NULLS)
def test_missing_cells_of_every_container_are_taken(container):
    convert, null = NULLS[container]
    X = mixed(200)
    if container == "numpy":
        rows = convert(X)
        rows[:20, 1] = null
    elif container == "pandas nullable":
        rows = convert(X)
        rows.loc[:19, "age"] = null
    else:
        rows = pl.from_pandas(X).with_row_index("i")
        rows = rows.with_columns(
            pl.when(pl.col("i") < 20).then(None).otherwise(pl.col("age")).alias("age"),
            pl.when(pl.col("i") < 5)
            .then(float("nan"))
            .otherwise(pl.col("balance"))
            .alias("balance"),
            pl.when(pl.col("i") < 9).then(None).otherwise(pl.col("kind")).alias("kind"),
        ).drop("i")
        rows = rows if container == "polars" else rows.to_arrow()
    est = TabularAutoregressive(**SMALL | {"max_steps": 5}).fit(rows)
    scores = est.score_samples(rows)
    assert np.isfinite(scores).all()
    assert scores[:5].mean() > scores[50:].mean()
    assert type(est.sample(3)) is type(rows)


def test_a_column_without_a_value_is_an_error():
    with pytest.raises(ValueError, match=r"'color' has no value in its first 300 row"):
        TabularAutoregressive(**SMALL).fit(trees().assign(color=None))


def test_other_models_still_refuse_missing_values():
    with pytest.raises(ValueError, match=r"'color'.*1 missing.*TabularAutoregressive"):
        densekit.MADE(max_steps=1).fit(trees().assign(color=[None, *trees()["color"][1:]]))


# ------------------------------------------------------------------------------- draws


def test_draws_follow_the_scores(averaged):
    drawn = averaged.sample(20_000, random_state=0)
    share = drawn.value_counts(normalize=True)
    expected = pd.Series(np.exp(averaged.score_samples(EVERY)), pd.MultiIndex.from_frame(EVERY))
    np.testing.assert_allclose(share.reindex(expected.index, fill_value=0), expected, atol=0.015)


def test_draws_given_a_value_follow_the_scores_given_it(averaged):
    drawn = averaged.sample(20_000, context={"tall": True}, random_state=0)
    assert drawn["tall"].all()
    rows = EVERY[EVERY["tall"]]
    expected = np.exp(averaged.score_samples(rows, given=["tall"]))
    share = drawn.value_counts(normalize=True).reindex(
        pd.MultiIndex.from_frame(rows), fill_value=0
    )
    np.testing.assert_allclose(share, expected, atol=0.015)


def test_draws_from_several_restrictions_follow_the_scores(fitted):
    """p(x | kind in A, color in B) is p(x) over A x B, normalized: by importance weights."""
    context = {"kind": ["oak", "elm"], "color": ["red"], "tall": {False, True}}
    drawn, info = fitted.sample(20_000, context=context, random_state=0, return_info=True)
    rows = EVERY[EVERY["kind"].isin(["oak", "elm"]) & (EVERY["color"] == "red")]
    # The one order has kind first; color is one value, so it comes before, by the same network.
    logp = fitted.score_samples(rows, given=["color"])
    expected = np.exp(logp) / np.exp(logp).sum()
    share = drawn.value_counts(normalize=True).reindex(
        pd.MultiIndex.from_frame(rows), fill_value=0
    )
    np.testing.assert_allclose(share, expected, atol=0.015)
    assert info["effective_sample_size"] >= 20_000


def test_intervals_are_kept_and_their_draws_follow_the_law(on_mixed):
    free = on_mixed.sample(20_000, random_state=0)
    held = on_mixed.sample(5_000, context={"age": (30.5, 40)}, random_state=1)
    assert held["age"].between(31, 40).all()
    # An order of its own, age first: it agrees as far as the network has learned.
    kept = free[free["age"].between(31, 40)]
    share = held["age"].value_counts(normalize=True)
    np.testing.assert_allclose(
        share, kept["age"].value_counts(normalize=True).reindex(share.index), atol=0.06
    )


def test_an_interval_holds_spikes_or_leaves_them_out(on_mixed):
    at_zero = on_mixed.sample(500, context={"balance": (-0.5, 6)}, random_state=0)["balance"]
    assert (at_zero == 0).mean() > 0.2
    assert at_zero.between(-0.5, 6).all()
    above = on_mixed.sample(500, context={"balance": (0.25, None)}, random_state=0)["balance"]
    assert above.min() >= 0.25
    just = on_mixed.sample(500, context={"balance": (1e-300, None)}, random_state=0)["balance"]
    assert just.min() > 0
    below = on_mixed.sample(50, context={"balance": (None, -1e-300)}, random_state=0)["balance"]
    assert below.max() < 0
    listed = on_mixed.sample(5, context={"balance": [5.1]}, random_state=0)["balance"]
    assert (listed == 5.1).all()
    exact = on_mixed.sample(50, context={"balance": 5.1, "count": [0, 7]}, random_state=0)
    assert (exact["balance"] == 5.1).all()
    assert set(exact["count"]) <= {0, 7}


def test_a_context_that_nobody_had_is_answered(on_mixed):
    """Contexts far outside the data: draws satisfy them and have weights."""
    with pytest.warns(
        UserWarning, match=r"'balance' is outside the range|'age' is outside the range"
    ):
        drawn, info = on_mixed.sample(
            200,
            context={"age": (500, 510), "balance": (-900, -800), "kind": "elm"},
            random_state=0,
            return_info=True,
        )
    assert drawn["age"].between(500, 510).all()
    assert drawn["balance"].between(-900, -800).all()
    assert (drawn["kind"] == "elm").all()
    assert info["log_probability"] < math.log(1e-6)


def test_restrictions_that_do_not_meet_warn_with_their_effective_sample_size():
    rng = np.random.default_rng(0)
    a = rng.normal(size=2000)
    X = np.column_stack([a, a + 0.05 * rng.normal(size=2000)])
    est = TabularAutoregressive(**SMALL | {"max_steps": 400, "hidden_sizes": (32,)}).fit(X)
    with pytest.warns(
        UserWarning, match=r"hardly ever come together.*effective sample size of \d"
    ):
        drawn = est.sample(100, context={"x0": (-1, 1), "x1": (0.99, 1.0)}, random_state=0)
    assert ((drawn >= [-1, 0.99]) & (drawn <= [1, 1])).all()
    assert drawn[:, 0].mean() > 0.7  # weighed, and not uniform over the first interval


def test_a_seed_fixes_draws_under_a_context(on_mixed):
    context = {"kind": ["ash", "oak"], "age": (20, 30)}
    one, other = (on_mixed.sample(30, context=context, random_state=3) for _ in range(2))
    pd.testing.assert_frame_equal(one, other)


# ------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("context", "error", "words"),
    [
        ({"height": 3}, ValueError, "context names the column 'height'.*did you mean"),
        ({"kind": "pine"}, ValueError, "'kind' has no value 'pine'.*'ash', 'elm', 'oak'"),
        ({"kind": 3}, ValueError, "'kind' has strings, and 3"),
        ({"age": "old"}, ValueError, "'age' has numbers, and 'old'"),
        ({"age": np.nan}, ValueError, "'age' has numbers, and nan"),
        ({"age": 30.5}, ValueError, "'age' has no value 30.5"),
        ({"age": (40, 30)}, ValueError, "no value of the column is in between"),
        ({"age": (30.2, 30.8)}, ValueError, "no value of the column is in between"),
        ({"age": (30, 35, 40)}, ValueError, "a tuple is an interval"),
        ({"kind": ("ash", "oak")}, ValueError, "have no order"),
        ({"balance": [1.0, 2.0]}, ValueError, "have no mass"),
        ({"kind": []}, ValueError, "is empty"),
        ({"flag": (2, 9)}, ValueError, "no value of the column is in between"),
        ("oak", TypeError, "context is a str"),
        ([["oak"]], TypeError, "context is a list"),
    ],
)
def test_contexts_that_mean_nothing_are_errors(context, error, words, on_mixed):
    with pytest.raises(error, match=words):
        on_mixed.sample(3, context=context)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (["height"], ValueError, "given names the column 'height'"),
        (["kind", "balance", "count", "age", "flag"], ValueError, "nothing is left to score"),
        ("kind", TypeError, "must be a list of columns"),
    ],
)
def test_given_columns_that_mean_nothing_are_errors(given, error, words, on_mixed):
    with pytest.raises(error, match=words):
        on_mixed.score_samples(mixed(5), given=given)


def test_an_unseen_category_scores_minus_infinity_and_cannot_be_given(on_mixed):
    rows = mixed(4).assign(kind=["ash", "pine", "oak", "elm"])
    with pytest.warns(UserWarning, match="'pine'"):
        assert np.isneginf(on_mixed.score_samples(rows)).tolist() == [False, True, False, False]
    with pytest.raises(ValueError, match=r"row 1 of X.*'pine' in column 'kind'"):
        on_mixed.score_samples(rows, given=["kind"])


def test_a_constant_column_can_be_given_and_asked_for(fitted):
    X = trees().assign(still=7)
    est = TabularAutoregressive(**SMALL | {"max_steps": 3}).fit(X)
    plain = est.score_samples(X[:5])
    np.testing.assert_allclose(est.score_samples(X[:5], given=["still"]), plain)
    assert (est.sample(4, context={"still": 7, "kind": "oak"})["still"] == 7).all()
    with pytest.raises(ValueError, match="'still' has no value 8"):
        est.sample(4, context={"still": 8})


# ------------------------------------------------------------------------------- many categories


def test_fifty_thousand_categories_warn_before_memory_is_taken(monkeypatch):
    rng = np.random.default_rng(0)
    names = [f"c{k}" for k in range(50_000)]
    city = pd.Categorical.from_codes(rng.integers(0, 50_000, 400), names)
    X = pd.DataFrame({"city": city, "flag": rng.integers(0, 2, 400)})
    est = TabularAutoregressive(**SMALL | {"max_steps": 2, "dtype": "float32"})
    built = []
    build = TabularAutoregressive._build
    monkeypatch.setattr(
        TabularAutoregressive, "_build", lambda *args: built.append(1) or build(*args)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match=r"'city' has 50,000 categories.* \d+ MiB"):
            est.fit(X)
    assert not built
    with pytest.warns(UserWarning, match="50,000 categories"):
        est.fit(X)
    assert len(built) == 1
    assert est.module_.laws.reads[0] < 50  # an embedding
    assert np.isfinite(est.score_samples(X[:40])).all()
    drawn = est.sample(5, context={"city": ["c1", "c49999"]}, random_state=0)
    assert set(drawn["city"]) <= {"c1", "c49999"}


# ------------------------------------------------------------------------------- training


def test_the_loss_of_random_places_is_the_mean_over_orders():
    """Its expectation is minus the mean log-density over all orders."""
    est = TabularAutoregressive(**SMALL | {"max_steps": 20}).fit(trees())
    module = est.module_
    event = est.codec_.encode(EVERY[:1])[0]
    orders = torch.tensor(list(itertools.permutations(range(3))))
    logp = torch.stack(
        [type(module)(module.net, module.laws, o[None])().log_prob(event)[0] for o in orders]
    )
    torch.manual_seed(0)
    found = module.weighed(event.expand(60_000, -1))
    error = 4 * found.std() / math.sqrt(len(found))
    assert found.mean().item() == pytest.approx(logp.mean().item(), abs=float(error))
    assert error < 0.02


def test_a_file_keeps_orders_spikes_and_conditions(on_mixed, tmp_path):
    on_mixed.save(tmp_path / "m")
    loaded = densekit.load(tmp_path / "m")
    rows = mixed(20, 2).assign(age=np.nan)
    np.testing.assert_array_equal(loaded.score_samples(rows), on_mixed.score_samples(rows))
    context = {"balance": (0, 4), "kind": ["ash"]}
    pd.testing.assert_frame_equal(
        loaded.sample(5, context=context, random_state=0),
        on_mixed.sample(5, context=context, random_state=0),
    )


def test_integers_that_come_again_are_likelier_and_all_sum_to_one(tmp_path):
    """Values of 0 ... 2999 that three rows each have: a new row mostly has one of them."""
    rng = np.random.default_rng(0)
    values = rng.choice(3000, 300, replace=False)
    w = rng.choice(values, 1000)
    rows = pd.DataFrame({"w": w, "g": np.where(rng.random(1000) < 0.5, "a", "b")})
    est = TabularAutoregressive(hidden_sizes=(16,), max_steps=300, random_state=0).fit(rows)
    assert len(est.schema_.columns[0].seen) == len(set(w))
    line = pd.DataFrame({"w": np.arange(-6000, 9000), "g": "a"})
    scores, info = est.score_samples(line, given=["g"], return_info=True)
    mass = np.exp(scores.astype(float))
    # Too many integers to sum over: log p(g) is sampled once for all rows.
    assert set(info["kind"]) == {"estimate"}
    assert 0 < info["std"].max() < 0.05
    assert math.log(mass.sum()) == pytest.approx(0, abs=4 * float(info["std"].max()))
    network = est.score_samples(line, given=["g"], method="network").astype(float)
    assert np.exp(network).sum() == pytest.approx(1, abs=1e-3)
    assert mass[np.isin(line["w"], w)].sum() > 0.8
    draws = est.sample(500, random_state=0)["w"]
    assert draws.isin(set(w)).mean() > 0.7
    some = est.sample(500, context={"w": (1000, 1500)}, random_state=0)["w"]
    assert some.between(1000, 1500).all()
    assert some.isin(set(w)).mean() > 0.7
    est.save(tmp_path / "model")
    again = densekit.load(tmp_path / "model")
    np.testing.assert_array_equal(again.score_samples(rows), est.score_samples(rows))
