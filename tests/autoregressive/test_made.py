import itertools
import math

import numpy as np
import pandas as pd
import pytest

from densekit import MADE

SMALL = {
    "hidden_sizes": (32, 32),
    "n_masks": 1,
    "dropout": 0.0,
    "learning_rate": 3e-3,
    "max_steps": 150,
    "random_state": 0,
    "device": "cpu",
}


def parity(n, seed=0):
    """Three fair flags and their parity."""
    x = np.random.default_rng(seed).integers(0, 2, (n, 3))
    return np.column_stack([x, x.sum(1) % 2])


EVERY = np.array(list(itertools.product([0, 1], repeat=4)))


def test_a_parity_is_found_and_drawn():
    est = MADE(**SMALL | {"max_steps": 500}).fit(parity(1000))
    assert est.score(parity(500, 1)) > -3 * math.log(2) - 0.1
    drawn = est.sample(1000, random_state=0)
    assert (drawn.sum(1) % 2 == 0).mean() > 0.95


@pytest.mark.parametrize("n_masks", [1, 4])
def test_masses_of_flags_sum_to_one(n_masks):
    est = MADE(**SMALL | {"n_masks": n_masks, "dtype": "float64"}).fit(parity(300))
    assert np.exp(est.score_samples(EVERY)).sum() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("n_masks", [1, 3])
def test_mixed_rows_have_mass_one(n_masks):
    rng = np.random.default_rng(0)
    kind = rng.choice(["ash", "elm", "oak"], 400)
    height = rng.normal(size=400) + 2 * (kind == "oak")
    X = pd.DataFrame({"kind": kind, "height": height, "flag": rng.random(400) < 0.4})
    est = MADE(**SMALL | {"n_masks": n_masks, "dtype": "float64"}).fit(X)
    grid = np.linspace(-40, 40, 8001)
    total = 0.0
    for k, f in itertools.product(["ash", "elm", "oak"], [False, True]):
        density = np.exp(est.score_samples(pd.DataFrame({"kind": k, "height": grid, "flag": f})))
        total += np.trapezoid(density, grid)
    assert est.base_measure_ == "product"
    assert est.density_kind_ == "exact"
    assert total == pytest.approx(1, abs=1e-4)


def test_masses_of_all_binary_images_sum_to_one():
    rng = np.random.default_rng(0)
    X = rng.random((200, 2, 2)) < [[0.2, 0.8], [0.5, 0.3]]
    est = MADE(**SMALL, dtype="float64").fit(X)
    every = EVERY.reshape(-1, 2, 2).astype(bool)
    assert np.exp(est.score_samples(every)).sum() == pytest.approx(1, abs=1e-9)
    assert est.sample(3).shape == (3, 2, 2)
    assert est.base_measure_ == "counting"


@pytest.mark.parametrize("component", ["logistic", "normal"])
def test_pixels_have_masses_and_their_bins_fill_the_scale(component):
    X = np.clip(np.random.default_rng(0).normal([30, 250], 20, (300, 2)), 0, 255).astype(np.uint8)
    est = MADE(**SMALL, component=component, image_shape=(1, 2), dtype="float64").fit(X)
    every = np.array(list(itertools.product(range(256), repeat=2)), np.uint8)
    assert np.exp(est.score_samples(every)).sum() == pytest.approx(1, abs=1e-9)


def test_numbers_have_several_modes():
    rng = np.random.default_rng(0)
    X = rng.choice([-3.0, 0.0, 4.0], (1500, 1)) + 0.1 * rng.normal(size=(1500, 1))
    est = MADE(**SMALL | {"max_steps": 600}).fit(X)
    truth = 0.5 * math.log(2 * math.pi * math.e * 0.01) + math.log(3)
    assert -est.score(X) < truth + 0.15


def test_the_order_is_by_number_or_by_name_and_skips_constant_columns():
    X = pd.DataFrame(parity(64), columns=list("abcd")).assign(still=1)
    fitted = MADE(order=("d", "still", "a", "c", "b"), **SMALL | {"max_steps": 1}).fit(X)
    assert fitted.module_.net.orders.tolist() == [[3, 0, 2, 1]]
    by_number = MADE(order=(3, 4, 0, 2, 1), **SMALL | {"max_steps": 1}).fit(X)
    assert by_number.module_.net.orders.tolist() == [[3, 0, 2, 1]]


def test_a_random_order_is_the_seeds():
    X = np.random.default_rng(0).integers(0, 2, (64, 12))
    orders = [
        MADE(**SMALL | {"max_steps": 1, "random_state": s}, order="random")
        .fit(X)
        .module_.net.orders.tolist()
        for s in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize(
    "order", [(0, 1), (0, 1, 2, 2), (0, 1, 2, 4), ("a", 1, 2, 3), (0.5, 1, 2, 3)]
)
def test_an_order_without_each_column_once_is_an_error(order):
    with pytest.raises(ValueError, match=r"order=.*each of the 4 columns once"):
        MADE(order=order, **SMALL).fit(parity(50))


def test_fifty_thousand_categories_are_fitted_and_scored():
    rng = np.random.default_rng(0)
    city = pd.Categorical(
        [f"c{k}" for k in rng.integers(0, 50_000, 500)], [f"c{k}" for k in range(50_000)]
    )
    X = pd.DataFrame({"city": city, "flag": rng.integers(0, 2, 500)})
    with pytest.warns(UserWarning, match=r"'city' has 50,000 categories.* MiB"):
        est = MADE(hidden_sizes=(16,), max_steps=3, random_state=0).fit(X)
    assert np.isfinite(est.score_samples(X)).all()
    assert est.sample(3)["city"].dtype == X["city"].dtype


def test_a_context_shifts_the_law():
    rng = np.random.default_rng(0)
    c = rng.integers(0, 2, 1000)
    X = (rng.random((1000, 3)) < np.where(c, 0.9, 0.1)[:, None]).astype(int)
    est = MADE(**SMALL | {"max_steps": 400}).fit(X, context=c)
    drawn = est.sample(400, context=[[1]], random_state=0)
    assert drawn.mean() > 0.8
    assert est.sample(400, context=[[0]], random_state=0).mean() < 0.2


def test_more_columns_than_rows_do_not_lose_to_independent_columns():
    """Only the shares can be learned, and the model starts with them."""
    rng = np.random.default_rng(0)
    p = rng.uniform(0.2, 0.8, 150)
    X, T = ((rng.random((n, 150)) < p).astype(int) for n in (100, 500))
    q = (X.sum(0) + 1) / (len(X) + 2)
    independent = (T * np.log(q) + (1 - T) * np.log1p(-q)).sum(1).mean()
    made = MADE(n_masks=2, max_steps=200, random_state=0, device="cpu").fit(X)
    assert made.score(T) > independent - 0.2
