"""PixelCNN and ImageTransformer: masses over all images, causality, draws that keep."""

import itertools

import numpy as np
import pytest
import torch

from densekit import ImageTransformer, PixelCNN

SMALL = {
    PixelCNN: {"width": 8, "n_layers": 3},
    ImageTransformer: {"width": 8, "n_layers": 2, "n_heads": 2},
}
BOTH = pytest.mark.parametrize("kind", [PixelCNN, ImageTransformer])


def fitted(kind, X, context=None, **settings):
    model = kind(**{**SMALL[kind], "max_steps": 20, "random_state": 0, **settings})
    return model.fit(X, context=context)


def levels(shape, top, n=64, seed=0):
    return np.random.default_rng(seed).integers(0, top + 1, (n, *shape), dtype=np.uint8)


def every_image(shape, top):
    every = itertools.product(range(top + 1), repeat=int(np.prod(shape)))
    return np.array(list(every), np.uint8).reshape(-1, *shape)


@BOTH
@pytest.mark.parametrize("likelihood", ["categorical", "logistic"])
@pytest.mark.parametrize(("shape", "top"), [((2, 2), 3), ((2, 1, 3), 2), ((2, 2), 1)])
def test_masses_of_all_images_sum_to_one(kind, likelihood, shape, top):
    X = levels(shape, top)
    model = fitted(
        kind, X, support=("interval", 0, top), likelihood=likelihood, dtype="float64",
        learning_rate=0.05, validation_fraction=0.0,
    )  # fmt: skip
    logp = model.score_samples(every_image(shape, top))
    assert np.exp(logp).sum() == pytest.approx(1, abs=1e-10)
    assert logp.std() > 1e-3
    assert model.density_kind_ == "exact"
    assert model.base_measure_ == "counting"


@BOTH
@pytest.mark.parametrize("top", [1, 255])
@pytest.mark.parametrize("given", [False, True])
def test_kept_states_give_the_scores_of_a_whole_pass(kind, top, given):
    """Each pixel is drawn by the law that it is scored with: the features that the head saw while
    drawing give the draws' log-masses."""
    shape, support = (6, 5, 3), ("interval", 0, top)
    c = np.linspace(-1, 1, 64)[:, None] if given else None
    model = fitted(kind, levels(shape, top), c, support=support, learning_rate=0.02)
    module, logp = model.module_, []
    head, sample = module.head, module.head.sample

    def spy(features):
        x = sample(features)
        logp.append(head.log_prob(features, x))
        return x

    head.sample = spy
    context = torch.linspace(-1, 1, 7)[:, None] if given else None
    x = module(context).sample(() if given else (7,))
    del head.sample
    direct = module(context).log_prob(x)
    torch.testing.assert_close(sum(p for p in logp), direct, rtol=1e-5, atol=1e-5)


@BOTH
def test_a_pixel_does_not_see_those_after_it(kind):
    """The derivative of log P(x_t | x_<t) by x_s vanishes for s > t, and for no s < t."""
    X = np.random.default_rng(0).uniform(0.1, 0.9, (64, 3, 4))
    model = fitted(kind, X, dtype="float64", learning_rate=0.05)
    module, seen = model.module_, []
    head, score = module.head, module.head.log_prob

    def spy(features, x):
        seen.append(features)
        return score(features, x)

    head.log_prob = spy
    x = torch.randn(1, 1, 3, 4, dtype=torch.double)

    def features(x):
        seen.clear()
        module(None).log_prob(x)
        return seen[0].reshape(12, -1)

    jacobian = torch.autograd.functional.jacobian(features, x).reshape(12, -1, 12).abs().sum(1)
    assert (jacobian.triu() == 0).all()
    assert (jacobian[torch.ones(12, 12).tril(-1).bool()] > 0).all()


@BOTH
@pytest.mark.parametrize("shape", [(1, 7), (7, 1), (5, 3, 3), (1, 2, 4)])
def test_images_of_any_shape(kind, shape):
    X = levels(shape, 255)
    model = fitted(kind, X, max_steps=3)
    assert model.sample(2).shape == (2, *shape)
    assert np.isfinite(model.score_samples(X)).all()


@BOTH
def test_colors_follow_one_another(kind):
    """Green is red's equal and blue its opposite: a mass per image near that of one channel."""
    red = levels((2, 2), 1, n=400)
    X = np.stack([red, red, 1 - red], -1)
    model = fitted(
        kind, X, support=("interval", 0, 1), max_steps=300, learning_rate=0.02, patience=None
    )
    assert -model.score_samples(X).mean() < 4 * np.log(2) + 0.4


@BOTH
def test_a_hundred_images_are_enough_to_beat_their_marginals(kind):
    """8 x 8 images of one bar each, somewhere: pixels that do not know each other cost 8 x 8 times
    the entropy of 1/8."""
    rng = np.random.default_rng(0)

    def draw(n):
        X = np.zeros((n, 8, 8), bool)
        X[np.arange(n), :, rng.integers(0, 8, n)] = True
        return X

    model = kind(max_steps=120, random_state=0).fit(draw(100))
    marginal = 64 * -(np.log(1 / 8) / 8 + 7 * np.log(7 / 8) / 8)
    assert -model.score_samples(draw(200)).mean() < marginal / 2


def test_likelihood_is_checked():
    X = np.random.default_rng(0).uniform(0.1, 0.9, (16, 2, 2))
    with pytest.raises(ValueError, match="likelihood='categorical' requires pixels with levels"):
        PixelCNN(likelihood="categorical", max_steps=1).fit(X)
