"""Scores with missing cells and given columns, draws under contexts, and filling cells in."""

import itertools
import math
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest

import densekit
from densekit import TabularAutoregressive

SMALL = {
    "hidden_sizes": (16,),
    "dropout": 0.0,
    "learning_rate": 5e-3,
    "max_steps": 60,
    "random_state": 0,
    "device": "cpu",
    "dtype": "float64",
}


def normals(n=500, seed=0):
    rng = np.random.default_rng(seed)
    return rng.multivariate_normal(np.zeros(3), [[1, 0.8, 0.5], [0.8, 1, 0.6], [0.5, 0.6, 1]], n)


@pytest.fixture(scope="module", params=["float32", "float64"])
def on_normals(request):
    settings = {"max_steps": 300, "random_state": 0, "device": "cpu", "dtype": request.param}
    return TabularAutoregressive(**settings, hidden_sizes=(64, 64)).fit(normals())


def mixed(n=600, seed=0):
    """A category, an amount with zeros, a count, a day, a number and a flag."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(["ash", "elm", "oak"], n)
    amount = np.where(rng.random(n) < 0.35, 0.0, rng.normal(5 + 3 * (kind == "oak"), 1, n))
    amount[:3] = -2.0
    size = rng.normal(amount, 1.0)
    return pd.DataFrame(
        {
            "kind": pd.Categorical(kind),
            "amount": amount,
            "count": rng.poisson(8 + 4 * (kind == "elm"), n),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, n), "D"),
            "size": size,
            "flag": rng.random(n) < 1 / (1 + np.exp(-size)),
        }
    )


@pytest.fixture(scope="module")
def on_mixed():
    return TabularAutoregressive(**SMALL | {"max_steps": 200}).fit(mixed())


# ------------------------------------------------------------------------------- scores


@pytest.mark.parametrize("cell", range(3))
def test_the_integral_over_a_missing_cell_is_the_score_without_it(on_normals, cell):
    """The issue's check: 0.86, 1.46 and 2.09 it was."""
    grid = np.linspace(-30, 30, 12_001)
    for place in ([0.5, -1.0, 0.3], [2.5, -2.0, 1.0], [-3.0, 1.0, 2.0]):
        line = np.tile(place, (len(grid), 1))
        line[:, cell] = grid
        total = np.trapezoid(np.exp(on_normals.score_samples(line).astype(float)), grid)
        row = np.array([place])
        row[0, cell] = np.nan
        score, info = on_normals.score_samples(row, return_info=True)
        assert info["kind"].tolist() == ["exact"]
        assert total / math.exp(float(score[0])) == pytest.approx(1, abs=3e-4)
        network, info = on_normals.score_samples(row, method="network", return_info=True)
        assert info["kind"].tolist() == ["estimate"]
        assert np.isfinite(network).all()


def test_integrals_over_two_missing_cells_are_within_the_stated_error(on_normals):
    grid = np.linspace(-12, 12, 241)
    a, b = (v.ravel() for v in np.meshgrid(grid, grid))
    ratios = []
    for value in np.linspace(-2, 2, 9):
        plane = np.stack([np.full(len(a), value), a, b], 1)
        full = (
            np.exp(on_normals.score_samples(plane).astype(float)).sum() * (grid[1] - grid[0]) ** 2
        )
        score, info = on_normals.score_samples([[value, np.nan, np.nan]], return_info=True)
        assert info["kind"].tolist() == ["lower_bound"]
        assert 1 < info["effective_sample_size"][0] <= 64
        ratios.append((math.log(full) - float(score[0])) / info["std"][0])
    assert np.abs(ratios).max() < 4.5
    assert np.mean(np.square(ratios)) < 3


def test_given_columns_close_the_chain_on_a_mixed_frame(on_mixed):
    rows = mixed(40, 3)[3:]
    whole = on_mixed.score_samples(rows)
    for given in (["kind"], ["amount", "flag"], ["count", "day", "size"], [*rows.columns[1:]]):
        rest, of_rest = on_mixed.score_samples(rows, given=given, return_info=True)
        alone = rows.astype(object)
        alone[[c for c in rows if c not in given]] = None
        first, of_first = on_mixed.score_samples(alone, return_info=True)
        np.testing.assert_allclose(first + rest, whole, atol=1e-9)
        exact = (of_first["kind"] == "exact").tolist()
        assert exact == (of_rest["kind"] == "exact").tolist()
        np.testing.assert_allclose(of_first["std"], of_rest["std"])
        # Another number of draws is a second opinion: apart by no more than both errors.
        other = TabularAutoregressive(**SMALL)
        other.__dict__.update(vars(on_mixed), n_draws=1024)
        again, of_again = other.score_samples(rows, given=given, return_info=True)
        error = np.hypot(of_rest["std"], of_again["std"]) + 1e-9
        assert (np.abs(again - rest) < 5 * error).all()


def test_what_is_given_is_integrated_out_where_it_is_missing_too(on_mixed):
    rows = mixed(20, 4)[3:].assign(amount=np.nan)
    a = on_mixed.score_samples(rows, given=["kind", "amount"])
    b = on_mixed.score_samples(rows, given=["kind"])
    np.testing.assert_allclose(a, b, atol=1e-9)


def test_info_says_of_each_row_what_its_score_is(on_mixed):
    rows = mixed(9, 5).astype(object)
    rows.loc[1, "kind"] = None
    rows.loc[2, "amount"] = None
    rows.loc[3, ["kind", "flag"]] = None
    rows.loc[4, ["size", "amount"]] = None
    rows.loc[5, "count"] = None
    rows.loc[6, :] = None
    scores, info = on_mixed.score_samples(rows, return_info=True)
    plain, std = on_mixed.score_samples(rows, return_std=True)
    np.testing.assert_array_equal(scores, plain)
    np.testing.assert_array_equal(std, info["std"])
    assert scores.dtype == on_mixed.dtype
    assert info["kind"].tolist() == ["exact"] * 4 + ["lower_bound"] + ["exact"] * 4
    assert np.isfinite(info["effective_sample_size"]).tolist() == [i == 4 for i in range(9)]
    assert info["std"][4] > 1e-4
    assert (info["std"].drop(4) < 1e-4).all()
    assert scores[6] == 0


@pytest.mark.parametrize("model", ["Gaussian", "MADE", "RealNVP", "VAE", "KernelDensity"])
def test_every_estimator_has_info(model):
    settings = {"max_steps": 5} if model not in ("Gaussian", "KernelDensity") else {}
    X = mixed(200)[["kind", "size"]]
    est = getattr(densekit, model)(**settings, random_state=0).fit(X)
    scores, info = est.score_samples(X[:7], return_info=True)
    found, std = est.score_samples(X[:7], return_std=True)
    np.testing.assert_array_equal(scores, found)
    np.testing.assert_array_equal(std, info["std"])
    assert info["kind"].tolist() == [est.density_kind_] * 7
    assert list(info) == ["std", "kind", "effective_sample_size"]
    sampled = est.density_kind_ != "exact"
    sizes = info["effective_sample_size"]
    assert ((sizes >= 1) & (sizes <= 64)).all() if sampled else sizes.isna().all()


def test_the_kind_claims_no_more_than_holds_for_the_rows_of_fit():
    X = mixed(200)[["kind", "size", "flag"]]
    settings = SMALL | {"max_steps": 2}
    assert TabularAutoregressive(**settings).fit(X).density_kind_ == "exact"
    holes = X.assign(kind=X["kind"].where(X["size"] > 0))
    assert TabularAutoregressive(**settings).fit(holes).density_kind_ == "exact"
    holes = X.assign(size=X["size"].where(X["size"] > 0))
    some = TabularAutoregressive(**settings).fit(holes)
    assert some.density_kind_ == "lower_bound"
    last = TabularAutoregressive(**settings, n_orders=1)
    assert last.fit(holes[["kind", "flag", "size"]]).density_kind_ == "exact"


def test_a_score_is_the_same_in_any_batch_and_at_any_call(on_mixed):
    rows = mixed(30, 6).astype(object)
    rows.loc[::2, ["amount", "count", "day"]] = None
    rows.loc[::3, "size"] = None
    together, alone = on_mixed.score_samples(rows), []
    for i in range(len(rows)):
        alone += on_mixed.score_samples(rows[i : i + 1]).tolist()
    np.testing.assert_allclose(together, alone, rtol=1e-9)
    np.testing.assert_array_equal(together, on_mixed.score_samples(rows))


def test_a_method_that_is_none_is_an_error(on_mixed):
    for call in (on_mixed.score_samples, on_mixed.impute):
        with pytest.raises(ValueError, match="method='exact' must be 'marginal' or 'network'"):
            call(mixed(5), method="exact")
    with pytest.raises(ValueError, match="method='exact' must be 'marginal' or 'network'"):
        on_mixed.sample(5, method="exact")


# ------------------------------------------------------------------------------- draws


@pytest.fixture(scope="module")
def codes():
    """Three codes, and the masses of all rows; the conditional laws contradict each other."""
    rng = np.random.default_rng(0)
    a = rng.integers(0, 3, 400)
    X = pd.DataFrame(
        {"a": a, "b": (a + rng.integers(0, 2, 400)) % 3, "c": rng.integers(0, 3, 400)}
    )
    X = X.astype("category")
    est = TabularAutoregressive(**SMALL | {"max_steps": 15, "learning_rate": 0.1}).fit(X)
    every = pd.DataFrame(list(itertools.product(range(3), repeat=3)), columns=list("abc"))
    every = every.astype(X.dtypes.to_dict())
    return est, every, np.exp(est.score_samples(every))


def shares(drawn, rows):
    found = drawn.astype(int).value_counts(normalize=True)
    return found.reindex(pd.MultiIndex.from_frame(rows.astype(int)), fill_value=0).to_numpy()


def test_draws_under_a_context_are_of_the_density_of_full_rows(codes):
    est, every, mass = codes
    apart = 0.0
    for context in ({"c": 1}, {"c": [0, 2], "b": [0, 1]}, {"b": 2, "c": [1, 2]}):
        allowed = {k: v if isinstance(v, list) else [v] for k, v in context.items()}
        keep = np.logical_and.reduce([every[k].isin(v) for k, v in allowed.items()])
        drawn, info = est.sample(20_000, context=context, random_state=0, return_info=True)
        expected = mass[keep] / mass[keep].sum()
        np.testing.assert_allclose(shares(drawn, every[keep]), expected, atol=0.015)
        assert info["log_probability"] == pytest.approx(math.log(mass[keep].sum()), abs=0.02)
        assert info["effective_sample_size"] > 20_000
        network = est.sample(20_000, context=context, method="network", random_state=0)
        apart = max(apart, np.abs(shares(network, every[keep]) - expected).max())
    assert apart > 0.02


def test_a_frame_is_one_context_for_each_draw(on_mixed):
    context = mixed(40, 7)[["kind", "amount", "day"]][3:]
    context.loc[5:12, "amount"] = np.nan
    drawn, info = on_mixed.sample(len(context), context=context, random_state=0, return_info=True)
    assert list(drawn) == list(mixed())
    pd.testing.assert_series_equal(drawn["kind"], context["kind"])
    pd.testing.assert_series_equal(drawn["day"], context["day"], check_dtype=False)
    known = context["amount"].notna()
    pd.testing.assert_series_equal(drawn["amount"][known], context["amount"][known])
    assert not drawn.isna().any(axis=None)
    assert len(info["effective_sample_size"]) == len(context)
    assert len(on_mixed.sample(context=context)) == len(context)
    one = on_mixed.sample(30, context=context[:1], random_state=0)
    assert set(one["kind"]) == {context["kind"].iloc[0]}
    assert one["size"].nunique() > 20
    with pytest.raises(ValueError, match="context has 37 rows and n_samples is 3"):
        on_mixed.sample(3, context=context)
    with pytest.raises(ValueError, match=r"row 0 of context has 'pine' in column 'kind'"):
        on_mixed.sample(context=pd.DataFrame({"kind": ["pine"]}))
    with pytest.raises(ValueError, match="context names the column 'height'"):
        on_mixed.sample(context=pd.DataFrame({"height": [3]}))


def test_draws_for_rows_of_contexts_follow_the_density_of_full_rows(codes):
    est, every, mass = codes
    context = pd.DataFrame({"c": [1] * 20_000}).astype(every.dtypes[["c"]].to_dict())
    drawn = est.sample(context=context, random_state=0)
    keep = every["c"] == 1
    np.testing.assert_allclose(
        shares(drawn, every[keep]), mass[keep] / mass[keep].sum(), atol=0.015
    )


def test_conditions_beyond_all_rows_warn_with_their_log_probability():
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"value": rng.uniform(0, 249, 500), "kind": rng.choice(["a", "b"], 500)})
    est = TabularAutoregressive(**SMALL | {"dtype": "float32"}).fit(X)
    for context in ({"value": (1e5, 2e5)}, {"value": 1e5}, {"value": (None, -1e4), "kind": "a"}):
        with pytest.warns(UserWarning, match="'value' is outside the range of the values in fit"):
            _, info = est.sample(2, context=context, return_info=True, random_state=0)
        assert info["log_probability"] < math.log(1e-6)
    # Between rows, where there is next to nothing, too.
    gap = X.assign(value=np.where(X["value"] > 125, X["value"] + 1e7, X["value"]))
    est = TabularAutoregressive(**SMALL | {"max_steps": 300}).fit(gap)
    with pytest.warns(UserWarning, match=r"'value' has a log-probability of -\d+"):
        _, info = est.sample(2, context={"value": (4e6, 4e6 + 1e-3)}, return_info=True)
    assert info["log_probability"] < math.log(1e-6)


def test_common_contexts_do_not_warn(on_mixed):
    rows = mixed(40, 8)[3:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for row in rows[["kind", "amount", "count", "day", "size"]].to_dict("records"):
            on_mixed.sample(5, context=row, random_state=0)
        on_mixed.sample(5, context={"amount": (0, 5), "count": (5, 9)}, random_state=0)


def test_the_log_probability_of_values_is_their_score(on_mixed):
    row = mixed(9, 9)[["kind", "size"]].iloc[5]
    _, info = on_mixed.sample(4000, context=row.to_dict(), random_state=0, return_info=True)
    alone = mixed(1).astype(object)
    alone.loc[0, :] = None
    alone.loc[0, ["kind", "size"]] = row.tolist()
    score, of_score = on_mixed.score_samples(alone, return_info=True)
    error = 5 * max(float(of_score["std"][0]), 0.02)
    assert info["log_probability"] == pytest.approx(float(score[0]), abs=error)


def test_a_context_of_a_derived_column_acts_on_what_it_is_derived_from():
    rng = np.random.default_rng(0)
    level = rng.choice(["a", "b", "c", "d"], 400)
    X = pd.DataFrame(
        {"level": level, "number": [{"a": 1, "b": 2, "c": 2, "d": 5}[v] for v in level]}
    )
    X["x"] = rng.normal(size=400)
    est = TabularAutoregressive(**SMALL | {"max_steps": 5}, derived={"number": "level"}).fit(X)
    assert set(est.sample(60, context={"number": 2}, random_state=0)["level"]) == {"b", "c"}
    assert set(est.sample(60, context={"number": (None, 2)})["level"]) == {"a", "b", "c"}
    both = est.sample(60, context={"number": [2, 5], "level": ["a", "b"]}, random_state=0)
    assert set(both["level"]) == {"b"}
    with pytest.raises(ValueError, match="contradicts what the context says of column 'level'"):
        est.sample(5, context={"number": 5, "level": "a"})
    holes = X.astype(object)[:4].assign(level=None, number=[1, 5, None, 1])
    assert est.impute(holes)["level"][[0, 1, 3]].tolist() == ["a", "d", "a"]
    with pytest.raises(ValueError, match="row 0 of X has 2 in column 'number', which 2 levels"):
        est.impute(holes.assign(number=2))


# ------------------------------------------------------------------------------- integers


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("top", [2 * 10**9, 2**62])
@pytest.mark.parametrize("container", ["pandas", "polars", "pyarrow", "numpy"])
def test_integers_are_exact_in_contexts(container, top, dtype):
    rng = np.random.default_rng(0)
    n = 300
    wide = np.where(rng.random(n) < 0.5, rng.integers(0, 5000, n), rng.integers(0, top, n))
    balance = np.where(rng.random(n) < 0.3, 0, rng.integers(-3, 10**9, n))
    X = pd.DataFrame({"wide": wide, "balance": balance, "small": rng.integers(0, 9, n)})
    rows, columns = X, ["wide", "balance", "small"]
    if container == "numpy":
        rows, columns = X.to_numpy(), [0, 1, 2]
    elif container != "pandas":
        rows = pl.from_pandas(X)
        rows = rows if container == "polars" else rows.to_arrow()
    est = TabularAutoregressive(**SMALL | {"max_steps": 20, "dtype": dtype}).fit(rows)

    def draw(context, n=300):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            drawn = est.sample(n, context=context, random_state=0)
        assert type(drawn) is type(rows)
        values = drawn.T if container == "numpy" else [drawn[c] for c in columns]
        return [np.array(v.to_pylist() if hasattr(v, "to_pylist") else v) for v in values]

    first, second, _ = columns
    assert set(draw({first: 17})[0].tolist()) == {17}
    assert set(draw({first: [17]})[0].tolist()) == {17}
    assert set(draw({first: [17, 19, 1001]})[0].tolist()) <= {17, 19, 1001}
    inside = draw({first: (1000, 1010)})[0]
    assert set(inside.tolist()) == set(range(1000, 1011))
    assert np.bincount(inside - 1000).max() < 80
    top_end = draw({first: (top - 10**6, top - 10**6 + 5)})[0]
    assert set(top_end.tolist()) == {top - 10**6 + k for k in range(6)}
    zero = draw({}, 2000)[1] if container == "numpy" else draw({columns[2]: (0, 9)}, 2000)[1]
    assert 0.15 < (zero == 0).mean() < 0.6
    assert set(draw({second: 0, first: (0, 4000)})[1].tolist()) == {0}
    beside = draw({second: (1, 40)})[1]
    assert beside.min() >= 1
    assert beside.max() <= 40
    assert len(set(beside.tolist())) > 20


# ------------------------------------------------------------------------------- impute


def holed(X, seed=0, share=0.3):
    rng = np.random.default_rng(seed)
    return X.mask(rng.random(X.shape) < share)


@pytest.mark.parametrize("method", ["marginal", "network"])
@pytest.mark.parametrize("container", ["pandas", "polars", "pyarrow"])
def test_impute_fills_frames_and_leaves_what_is_there(container, method):
    whole = mixed(300).assign(code=np.arange(300) * 7 + 2**40, name=["x", "y", "z"] * 100)
    X = whole.astype({"code": "Int64", "count": "Int64", "flag": "boolean"})
    holes = holed(X)
    if container != "pandas":
        X, holes = (
            pl.from_pandas(v).with_columns(pl.col("kind").cast(pl.String)) for v in (X, holes)
        )
        holes = holes.with_columns(pl.col("amount", "size").fill_nan(None))
        if container == "pyarrow":
            X, holes = X.to_arrow(), holes.to_arrow()
    est = TabularAutoregressive(**SMALL | {"max_steps": 5}).fit(X)
    filled = est.impute(holes, method=method, random_state=0)
    assert type(filled) is type(holes)
    again = est.impute(holes, method=method, random_state=0)
    cells = [v if container == "pandas" else v.to_pandas() for v in (holes, filled, again)]
    holes, filled, again = cells
    assert list(filled) == list(holes)
    assert not filled.isna().any(axis=None)
    for c in holes:
        known = holes[c].notna()
        assert 100 < known.sum() < 280
        assert (filled[c][known].astype(object) == holes[c][known].astype(object)).all()
        assert (filled[c] == again[c]).all()
    assert set(filled["kind"]) <= {"ash", "elm", "oak"}
    assert set(filled["name"]) <= {"x", "y", "z"}
    assert (pd.to_datetime(filled["day"]).dt.normalize() == pd.to_datetime(filled["day"])).all()
    gone = holes["amount"].isna()
    assert 0.1 < (filled["amount"][gone] == 0).mean() < 0.7


def test_impute_keeps_index_order_and_full_columns(on_mixed):
    X = mixed(50, 3)
    X.index = [f"r{i}" for i in range(50)]
    holes = X.assign(size=X["size"].where(X["size"] > 2), kind=X["kind"].where(X["flag"]))
    before = holes.copy()
    filled = on_mixed.impute(holes, random_state=0)
    pd.testing.assert_frame_equal(holes, before)
    assert list(filled) == list(X)
    pd.testing.assert_frame_equal(
        filled[["flag", "day", "count", "amount"]], X[["flag", "day", "count", "amount"]]
    )
    assert filled["kind"].dtype == X["kind"].dtype
    assert filled.index.equals(X.index)
    pd.testing.assert_frame_equal(on_mixed.impute(X), X)


def test_impute_fills_arrays_of_integers_exactly():
    rng = np.random.default_rng(0)
    X = np.stack([rng.integers(0, 2 * 10**9, 300), rng.integers(0, 50, 300)], 1).astype(float)
    est = TabularAutoregressive(**SMALL, kinds={0: "integer", 1: "integer"}).fit(X)
    holes = X.copy()
    holes[::3, 1] = np.nan
    filled = est.impute(holes, random_state=0)
    there = ~np.isnan(holes)
    assert (filled[there] == X[there]).all()
    assert (filled == np.rint(filled)).all()
    assert filled.dtype == X.dtype
    assert np.isnan(holes[::3, 1]).all()  # the caller's own is left alone


def test_impute_draws_from_the_law_given_the_others(codes):
    est, every, mass = codes
    holes = pd.DataFrame({"a": [2] * 20_000, "b": [None] * 20_000, "c": [0] * 20_000})
    drawn = est.impute(holes.astype(every.dtypes.to_dict()), random_state=0)
    keep = (every["a"] == 2) & (every["c"] == 0)
    np.testing.assert_allclose(
        shares(drawn, every[keep]), mass[keep] / mass[keep].sum(), atol=0.015
    )


def test_impute_says_what_it_cannot_take(on_mixed):
    with pytest.raises(TypeError, match="X is of polars, and fit saw rows of pandas"):
        on_mixed.impute(pl.from_pandas(mixed(5)))
    with pytest.raises(ValueError, match=r"row 1 of X has 'pine' in column 'kind'"):
        on_mixed.impute(mixed(3).assign(kind=["ash", "pine", None]))
    with pytest.raises(ValueError, match=r"columns|feature names"):
        on_mixed.impute(mixed(3).drop(columns="kind"))


def test_a_complete_row_has_the_same_bits_next_to_rows_with_missing_cells():
    """In float32 too, where a sum in another precision would show."""
    X = mixed(200)
    est = TabularAutoregressive(**SMALL | {"dtype": "float32", "max_steps": 5}).fit(X)
    rows = X[:50].astype(object)
    rows.loc[1::3, "size"] = None
    rows.loc[2::3, ["kind", "size"]] = None
    together, alone = est.score_samples(rows), est.score_samples(X[:50:3])
    np.testing.assert_array_equal(together[::3], alone)
    np.testing.assert_array_equal(together[20:], est.score_samples(rows[20:]))
