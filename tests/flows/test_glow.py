import math

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_digits

from densekit import Gaussian, Glow
from densekit.codecs.schema import Schema
from densekit.transforms.convolutional import ConvCoupling
from densekit.transforms.part import Part

SMALL = {"n_transforms": 2, "hidden_sizes": (16, 16), "max_steps": 60, "random_state": 0}


def digits(n=1200):
    return load_digits().images.astype(np.uint8)[:n]


def module(shape, dtype=torch.float64, **settings):
    torch.manual_seed(0)
    return Glow(**{**SMALL, **settings})._build(Schema("image", shape), None).to(dtype)


@pytest.mark.parametrize("coupling", ["affine", "spline"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 5, 7), (1, 1, 1)])
def test_untrained_glow_is_the_standard_normal(coupling, shape):
    x = torch.randn(5, *shape, dtype=torch.float64)
    want = stats.norm.logpdf(x.numpy()).sum((1, 2, 3))
    dist = module(shape, coupling=coupling)()
    np.testing.assert_allclose(dist.log_prob(x).detach(), want, rtol=1e-6, atol=1e-5)
    assert dist.event_shape == shape
    assert dist.sample((2, 3)).shape == (2, 3, *shape)
    assert dist.log_prob(x[:4].reshape(2, 2, *shape)).shape == (2, 2)


def test_one_step_is_the_papers_formula():
    """Actnorm, 1 x 1 convolution and affine coupling of four pixels, by NumPy."""
    flow = module((1, 2, 2), n_transforms=1, n_levels=1, coupling="affine")
    rng = np.random.default_rng(0)
    s, b, shift, diagonal = rng.normal(size=(4, 4)) / 3
    lower, upper = np.tril(rng.normal(size=(4, 4)), -1), np.triu(rng.normal(size=(4, 4)), 1)
    r = rng.normal(size=4)
    _, pixelwise, coupling = flow.transform.transforms
    actnorm, _, conv = pixelwise.transform.transforms
    with torch.no_grad():
        for weight, value in ((actnorm.log_scale, s), (actnorm.shift, b), (conv.shift, shift),
                              (conv.lower, lower), (conv.upper, upper),
                              (conv.log_diagonal, diagonal), (coupling.net.last_bias, r)):  # fmt: skip
            weight.copy_(torch.from_numpy(value).view(weight.shape))
    x = rng.normal(size=(6, 4))
    W = (lower + np.eye(4)) @ (upper + np.diag(np.exp(diagonal))) @ np.eye(4)[::-1]
    y = (np.exp(s) * x + b) @ W.T + shift
    z = np.c_[y[:, :2], y[:, 2:] * np.exp(np.tanh(r[:2])) + r[2:]]
    ladj = s.sum() + np.linalg.slogdet(W)[1] + np.tanh(r[:2]).sum()
    scores = flow().log_prob(torch.from_numpy(x).view(6, 1, 2, 2))
    np.testing.assert_allclose(scores.detach(), stats.norm.logpdf(z).sum(1) + ladj, rtol=1e-10)


def test_half_of_the_channels_leave_after_each_level():
    parts = [m for m in module((1, 8, 8), n_levels=3).modules() if isinstance(m, Part)]
    assert [(p.n_features, p.transform.n_features) for p in parts] == [(64, 32), (32, 16)]


@pytest.mark.parametrize(
    ("size", "scales"),
    [
        ((28, 28), [(14, 14), (7, 7)]),  # a third would take 7 pixels at once
        ((8, 8), [(4, 4), (2, 2), (1, 1)]),
        ((3, 3), [(1, 3), (1, 1)]),
        ((29, 29), [(1, 29)]),
        ((1, 1), [(1, 1)]),
    ],
)
def test_levels_end_where_an_image_cannot_be_squeezed_by_little(size, scales):
    flow = module((1, *size), n_levels=5, coupling="affine")
    found = [m.net.size for m in flow.modules() if isinstance(m, ConvCoupling)]
    assert list(dict.fromkeys(found)) == scales


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 3), (5, 7), (2, 2, 3), (6, 5, 1)])
@pytest.mark.parametrize("coupling", ["affine", "spline"])
def test_glow_fits_images_of_any_size_better_than_uniform_pixels(coupling, shape):
    rng = np.random.default_rng(0)
    X = rng.binomial(255, 0.3 + 0.4 * rng.random((300, *(1 for _ in shape))), (300, *shape))
    X = X.astype(np.uint8)
    flow = Glow(**SMALL | {"coupling": coupling}).fit(X)
    assert flow.density_kind_ == "lower_bound"
    assert flow.score(X) > -math.prod(shape) * math.log(256)
    drawn = flow.sample(3)
    assert (drawn.shape, drawn.dtype) == ((3, *shape), np.uint8)


@pytest.mark.parametrize(("coupling", "nats"), [("affine", 2), ("spline", 10)])
def test_glow_learns_digits_better_than_a_gaussian(coupling, nats):
    X, support = digits(), ("interval", 0, 16)
    settings = SMALL | {"max_steps": 250, "n_transforms": 4, "hidden_sizes": (32, 32)}
    flow = Glow(coupling=coupling, support=support, **settings).fit(X[:1000])
    gaussian = Gaussian(support=support).fit(X[:1000])
    assert flow.score(X[1000:]) > gaussian.score(X[1000:]) + nats


def test_float_images_have_an_exact_score_and_flat_ones_come_back_flat():
    X = np.random.default_rng(0).beta(2, 3, (200, 12))
    flow = Glow(image_shape=(3, 4), **SMALL).fit(X)
    assert (flow.density_kind_, flow.base_measure_) == ("exact", "lebesgue")
    assert flow.sample(4).shape == (4, 12)
    assert flow.distribution_.event_shape == (1, 3, 4)


def test_glow_follows_its_context():
    y = load_digits().target[:1200, None] < 2
    labels = np.where(y, 1.0, -1.0)
    X = np.where(y[:, :, None], digits(), 16 - digits()).astype(np.uint8)
    flow = Glow(support=("interval", 0, 16), **SMALL | {"max_steps": 150}).fit(X, context=labels)
    dark, bright = (flow.sample(50, context=[[c]], random_state=0).mean() for c in (1.0, -1.0))
    assert bright > dark + 3
    assert flow.score(X, context=labels) > flow.score(X, context=-labels) + 10


def test_glow_keeps_no_state_beside_its_weights():
    flow = module((1, 8, 8))
    assert set(flow.state_dict()) == {name for name, _ in flow.named_parameters()}
    fresh, x = module((1, 8, 8)), torch.randn(7, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        for p in flow.parameters():
            p.add_(0.02 * torch.randn_like(p))
    fresh.load_state_dict(flow.state_dict())
    assert torch.equal(fresh().log_prob(x), flow().log_prob(x))


def test_glow_refuses_tables_by_name():
    with pytest.raises(ValueError, match=r"Glow takes images; X looks like table data"):
        Glow().fit(np.zeros((20, 4)))


@pytest.mark.parametrize("bad", [{"n_levels": 0}, {"coupling": "cubic"}, {"hidden_sizes": ()}])
def test_glow_names_a_wrong_hyper_parameter(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Glow(**bad).fit(digits(20))
