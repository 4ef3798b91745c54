"""Weighted losses of neural models: the gradient is that of repeated rows."""

import numpy as np
import pytest
import torch
from sklearn.base import clone

import densekit
from densekit import (
    GAN,
    MADE,
    NoiseConditionalScore,
    RealNVP,
    TabularAutoregressive,
    TransformerLanguageModel,
)
from densekit.neural import NeuralDensity
from densekit.training import average

MODELS = {
    name: kind
    for name, kind in densekit.all_estimators().items()
    if issubclass(kind, NeuralDensity)
}
TINY = {
    "hidden_sizes": (8,),
    "width": 8,
    "n_layers": 1,
    "n_heads": 2,
    "n_transforms": 2,
    "dropout": 0.0,
    "n_importance_fit": 3,
    "max_steps": 2,
    "dtype": "float64",
    "random_state": 0,
    "device": "cpu",
    "validation_fraction": 0.0,
}
REPEATS = torch.tensor([1, 3, 1, 2, 4, 1])
"""How often a row is repeated, or what it weighs."""


def rows_of(kind):
    modality = kind._capabilities.modalities[0]
    rng = np.random.default_rng(0)
    if modality == "text":
        return ["ab", "b", "abba", "aab", "bbbbb", "a"]
    if modality == "image":
        return rng.integers(0, 4, (6, 4, 4), dtype=np.uint8)
    return rng.normal(size=(6, 2))


def fitted(kind, **changes):
    small = {k: v for k, v in {**TINY, **changes}.items() if k in kind._names()}
    if kind._capabilities.modalities[0] == "image":
        small["support"] = ("interval", 0, 3)
    est = kind(**small).fit(rows_of(kind))
    events = est._events(est.codec_.encode(rows_of(kind))[0])
    return est, est.module_.requires_grad_(True).train(), events


def gradient(player, module, x, weights=None):
    """Of the mean loss of one batch, as one vector."""
    losses = player.loss(module, x, None)
    size = None if player.size is None else player.size(x)
    loss, _ = average(losses, weights, size)
    parts = torch.autograd.grad(loss, player.parameters, allow_unused=True)
    return torch.cat([g.reshape(-1) for g in parts if g is not None])


def named(kind):
    return kind.__name__


DRAW_NOISE = {
    "ContinuousFlow",
    "GAN",
    "MADE",
    "MaskedDiffusion",
    "NoiseConditionalScore",
    "TabularAutoregressive",
    "VAE",
}
"""Models whose loss draws noise, by a row's place in the batch in some."""


@pytest.mark.parametrize("kind", [MODELS[k] for k in sorted(set(MODELS) - DRAW_NOISE)], ids=named)
def test_the_gradient_of_a_full_batch_is_that_of_repeated_rows(kind):
    est, module, x = fitted(kind)
    (player,) = est._players(module)
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        x = est._view(x)  # once, since a repeated row must draw the same noise of dequantization
    weighted = gradient(player, module, x, REPEATS.double())
    repeated = gradient(player, module, x.repeat_interleave(REPEATS, 0))
    scale = float(repeated.abs().max())
    torch.testing.assert_close(weighted, repeated, rtol=1e-7, atol=1e-9 * scale)
    assert (gradient(player, module, x) - repeated).abs().max() > 1e-3 * scale


@pytest.mark.parametrize("name", sorted(DRAW_NOISE))
def test_with_noise_in_the_loss_it_is_that_in_the_mean(name):
    """Five standard errors of these draws, along the direction that unweighted rows miss most."""
    est, module, x = fitted(MODELS[name], n_steps=2)
    repeats = torch.tensor([1, 20, 1, 1, 1, 1])
    w, copies = repeats.double(), x.repeat_interleave(repeats, 0)
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        for player in est._players(module):

            def slopes(rows, weights=None, player=player):
                found = []
                for _ in range(1500 if name == "NoiseConditionalScore" else 60):
                    # Noise may go by the place in a batch, whose rows are shuffled.
                    order = torch.randperm(len(rows))
                    given = None if weights is None else weights[order]
                    found.append(gradient(player, module, rows[order], given))
                return torch.stack(found)

            repeated, plain = slopes(copies), slopes(x)
            along = (repeated.mean(0) - plain.mean(0)) / (repeated.var(0) + repeated.var())
            repeated = slopes(copies) @ along
            assert abs(z_value(slopes(x, w) @ along, repeated)) < 5
            # The generator's loss does not look at rows.
            if player.name != "generator":
                assert abs(z_value(plain @ along, repeated)) > 5


def z_value(one, other):
    error = (one.var() / len(one) + other.var() / len(other)).sqrt()
    return float((one.mean() - other.mean()) / error)


@pytest.mark.parametrize("kind", MODELS.values(), ids=MODELS)
def test_a_rows_loss_is_its_own(kind):
    """Another row in the batch changes no loss but its own, under the same noise."""
    est, module, x = fitted(kind)
    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(0)
        x = est._view(x)
    other = x.clone()
    other[3] = x[0]
    for player in est._players(module):
        found = []
        for rows in (x, other):
            with torch.random.fork_rng():
                torch.random.default_generator.manual_seed(1)
                found.append(player.loss(module, rows, None).detach())
        rest = torch.arange(len(x)) != 3
        torch.testing.assert_close(found[0][rest], found[1][rest], rtol=1e-9, atol=1e-9)
        if player.name != "generator":
            assert not torch.isclose(found[0][3], found[1][3], rtol=1e-6)


def test_the_average_is_the_weighted_mean_per_size():
    losses = torch.tensor([1.0, 5.0, 2.0], dtype=torch.float64)
    w, s = torch.tensor([2.0, 1.0, 4.0]).double(), torch.tensor([3, 1, 2])
    assert average(losses)[0].item() == pytest.approx(8 / 3)
    assert average(losses, None, s)[0].item() == pytest.approx(8 / 6)
    assert average(losses, w)[0].item() == pytest.approx(15 / 7)
    mean, total = average(losses, w, s)
    assert mean.item() == pytest.approx(15 / 15)
    assert total.item() == 15
    # Ratios that single precision does not hold, in losses of single precision.
    tiny = torch.tensor([1e-60, 3e-60, 1e-60], dtype=torch.float64)
    assert average(losses.float(), tiny)[0].item() == pytest.approx(18 / 5)


# What weights do to a fit.


def clusters():
    rng = np.random.default_rng(0)
    far = rng.random(400) < 0.5
    X = np.column_stack(
        [np.where(far, 4.0, -4.0) + 0.3 * rng.normal(size=400), rng.normal(size=400)]
    )
    return X, np.where(far, 9.0, 1.0), 9 * far.sum() / (9 * far.sum() + (~far).sum())


@pytest.mark.parametrize("kind", [TabularAutoregressive, MADE, GAN, NoiseConditionalScore])
def test_draws_have_the_shares_that_the_weights_say(kind):
    X, w, share = clusters()
    est = kind(
        hidden_sizes=(32,), max_steps=400, learning_rate=1e-2, random_state=0, patience=None
    )
    drawn = est.fit(X, sample_weight=w).sample(2000, random_state=0)
    assert (drawn[:, 0] > 0).mean() == pytest.approx(share, abs=0.08)


def test_a_further_fit_and_a_pass_take_weights(monkeypatch):
    seen = []
    train = RealNVP._train

    def looked_at(self, events, context, weights=None, *, start=None):
        seen.append((len(events), weights))
        return train(self, events, context, weights, start=start)

    monkeypatch.setattr(RealNVP, "_train", looked_at)
    X = np.random.default_rng(0).normal(size=(40, 2))
    w = np.r_[np.zeros(10), np.full(30, 2.0)]
    est = RealNVP(hidden_sizes=(8,), max_steps=2, random_state=0)
    est.partial_fit(X, sample_weight=w)
    est.partial_fit(X, sample_weight=w)
    est.set_params(warm_start=True).fit(X, sample_weight=w)
    est.fit(X)
    assert [n for n, _ in seen] == [30, 30, 30, 40]
    assert all(torch.equal(found, torch.full((30,), 2.0).double()) for _, found in seen[:3])
    assert seen[3][1] is None
    one = np.zeros(40)
    one[7] = 1
    est.partial_fit(X, sample_weight=one)
    assert seen[4][0] == 1
    before = est.score_samples(X)
    with pytest.raises(ValueError, match="negative"):
        est.partial_fit(X, sample_weight=-w)
    np.testing.assert_array_equal(est.score_samples(X), before)


def test_a_checkpoint_of_other_weights_is_another_fit(tmp_path):
    X, w, _ = clusters()

    settings = {"hidden_sizes": (8,), "max_steps": 40, "random_state": 0}
    folder = {"checkpoint_dir": str(tmp_path)}
    killed = RealNVP(**settings, **folder, callbacks=(Dying(20),))
    with pytest.raises(KeyboardInterrupt):
        killed.fit(X, sample_weight=w)
    for other in (None, w[::-1]):
        with pytest.raises(ValueError, match="another sample_weight"):
            RealNVP(**settings, **folder).fit(X, sample_weight=other)
    again = RealNVP(**settings, **folder).fit(X, sample_weight=w)
    whole = RealNVP(**settings).fit(X, sample_weight=w)
    np.testing.assert_array_equal(again.score_samples(X), whole.score_samples(X))


class Dying:
    """A callback that ends the fit as Control-C would, once the step is past."""

    def __init__(self, step):
        self.step = step

    def __call__(self, state):
        if state.step > self.step:
            raise KeyboardInterrupt


def test_two_processes_weigh_as_one_does():
    """Rows of strings differ in tokens too, by which the mean of the ranks must count."""
    X, w, _ = clusters()
    flow = {"hidden_sizes": (8,), "n_transforms": 2, "max_steps": 12, "batch_size": 25}
    text = ["ab" * (1 + i % 9) for i in range(60)]
    tokens = {"width": 8, "n_layers": 1, "n_heads": 2, "max_steps": 6, "batch_size": 7}
    for est, rows, weights in (
        (RealNVP(**flow), X, w),
        (TransformerLanguageModel(**tokens), text, np.arange(60) % 4 + 1.0),
    ):
        est.set_params(device="cpu", random_state=3)
        one = est.fit(rows, sample_weight=weights).score_samples(rows)
        two = clone(est).set_params(devices=2).fit(rows, sample_weight=weights).score_samples(rows)
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-3)


def test_two_processes_see_the_coordinates_of_the_first_batch_alike():
    X, w, _ = clusters()
    settings = {"hidden_sizes": (8,), "max_steps": 3, "device": "cpu", "random_state": 3}
    one, two = (
        NoiseConditionalScore(**settings, devices=d).fit(X, sample_weight=w).module_.frame
        for d in (None, 2)
    )
    torch.testing.assert_close(one.whiten, two.whiten, rtol=1e-4, atol=1e-5)
