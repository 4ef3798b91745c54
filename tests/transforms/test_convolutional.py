"""The coupling of images, and common properties of all layers of images."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densekit import Glow
from densekit.codecs.schema import Schema
from densekit.transforms.affine import AffineElement
from densekit.transforms.columns import Stack
from densekit.transforms.convolutional import ConvCoupling
from densekit.transforms.linear import Diagonal, LULinear, Reverse
from densekit.transforms.part import Part
from densekit.transforms.pixelwise import Pixelwise
from densekit.transforms.spline import SplineElement
from densekit.transforms.squeeze import Squeeze

SPLINE, AFFINE, WIDE = SplineElement(4, 4.0), AffineElement(), (6, 6)


def glow(coupling):
    def build(shape, n_context):
        model = Glow(coupling=coupling, hidden_sizes=WIDE, n_transforms=2, n_levels=3)
        flow = model._level(shape, n_context, model.n_levels)
        assert model._build(Schema("image", shape), None).event_shape == shape
        return flow

    return build


KINDS = {
    "squeeze": lambda s, c: Squeeze(s),
    "diagonal": lambda s, c: Pixelwise(Diagonal(s[0]), s[1] * s[2]),
    "linear": lambda s, c: Pixelwise(Stack([Reverse(s[0]), LULinear(s[0])]), s[1] * s[2]),
    "affine coupling": lambda s, c: ConvCoupling(s, AFFINE, WIDE, c),
    "spline coupling": lambda s, c: ConvCoupling(s, SPLINE, WIDE, c),
    "part": lambda s, c: Part(ConvCoupling(s, AFFINE, WIDE, c), math.prod(s) + 2),
    "affine glow": glow("affine"),
    "spline glow": glow("spline"),
}
SHAPES = [(1, 1, 1), (1, 1, 2), (3, 1, 1), (1, 3, 3), (2, 5, 7), (1, 8, 8), (3, 4, 6)]
CONDITIONED = [k for k in KINDS if k not in ("squeeze", "diagonal", "linear")]


def make(kind, shape, n_context=0, dtype=torch.float64, spread=0.5):
    """A layer away from its starting point, with weights a trained one might have."""
    torch.manual_seed(0)
    transform = KINDS[kind](shape, n_context).to(dtype)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in transform.parameters():
            # As wide as a layer of many inputs can be without blowing its output up.
            width = spread / max(1, math.prod(p.shape[1:])) ** 0.5
            p.add_(width * torch.randn(p.shape, generator=g, dtype=torch.float64).to(dtype))
    return transform


def rows(n, d, dtype=torch.float64, seed=1):
    g = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(n, d, generator=g, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_layer_starts_by_changing_no_number(kind, shape):
    transform = KINDS[kind](shape, 0)
    x = rows(7, transform.n_features, torch.float32)
    z, ladj = transform.to_noise(x.t().contiguous())
    torch.testing.assert_close(z.t().sort(1)[0], x.sort(1)[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ladj, torch.zeros(7), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_layer_inverse_undoes_it(kind, shape, dtype, atol):
    # In float32 an error of z is as much larger in x as the map is steep: a milder map there.
    transform = make(kind, shape, dtype=dtype, spread=0.1 if dtype == torch.float32 else 0.3)
    x = rows(20, transform.n_features, dtype)
    x[0, 0], x[1, -1], x[2, 0] = 40.0, -4.0, 1e6  # beyond a spline's bound, on it, and far off
    if "glow" in kind:  # what is mixed with 1e6 loses its last digits, which the next layer reads
        x[2, 0] = 50.0
    with torch.no_grad():
        z, ladj = transform.to_noise(x.t())
        back, other = transform.to_data(z)
        # Mixed with another, a number is as exact as the greatest of its row allows.
        scale = x.abs().amax(1).clamp_min(1)
        assert ((back.t() - x).abs().amax(1) / scale).max() < 3 * atol
        assert ((other + ladj).abs() / scale).max() < 30 * atol


@pytest.mark.parametrize("shape", [s for s in SHAPES if math.prod(s) <= 72])
@pytest.mark.parametrize("kind", KINDS)
def test_layer_log_det_is_that_of_autodiff(kind, shape):
    transform = make(kind, shape)
    for z in rows(2, transform.n_features):
        jacobian = torch.autograd.functional.jacobian(transform, z)
        expected = torch.linalg.slogdet(jacobian)[1]
        ours = transform.log_abs_det_jacobian(z, transform(z))
        torch.testing.assert_close(ours, expected, atol=1e-8, rtol=1e-8)
        ours = transform.to_data(z[:, None])[1][0]
        torch.testing.assert_close(ours, expected, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_both_ways_agree_with_finite_differences(kind):
    transform = make(kind, (2, 2, 3))
    x = rows(2, transform.n_features).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: transform.inv(x), (x,))
    assert torch.autograd.gradcheck(transform, (x,))


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 2), (2, 3, 4)])
@pytest.mark.parametrize("kind", CONDITIONED)
def test_context_changes_the_map_and_inverts_with_it(kind, shape):
    transform = make(kind, shape, n_context=2)
    x, context = rows(9, transform.n_features), rows(9, 2, seed=3)
    given = transform.condition(context)
    z = given.inv(x)
    torch.testing.assert_close(given(z), x, atol=1e-9, rtol=1e-9)
    changed = (transform.condition(context + 1).inv(x) != z).any(0)
    moved = math.ceil(shape[0] / 2) * shape[1] * shape[2]
    assert changed.sum() == (moved if "coupling" in kind or kind == "part" else len(changed))
    shared = transform.condition(context[0])
    torch.testing.assert_close(shared.inv(x)[0], z[0], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_finite_far_out_in_float32(kind):
    transform = make(kind, (2, 2, 3), dtype=torch.float32)
    d = transform.n_features
    x = (torch.eye(d) * torch.where(torch.arange(d) % 2 == 0, 1e6, -1e6) + 0.5).requires_grad_()
    for way in (transform.inv, transform):
        y = way(x)
        y.sum().backward()
        assert torch.isfinite(y).all()
        assert torch.isfinite(x.grad).all()
    assert torch.isfinite(transform.log_abs_det_jacobian(x, x)).all()


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=60, deadline=None)
@given(x=st.lists(finite, min_size=12, max_size=12), kind=st.sampled_from(list(KINDS)))
def test_no_finite_image_makes_nan(x, kind):
    transform = make(kind, (1, 3, 4) if "glow" in kind else (3, 2, 2), dtype=torch.float32)
    x = torch.tensor(x + x[: transform.n_features - 12])
    with torch.no_grad():
        for y, ladj in (transform.to_noise(x[:, None]), transform.to_data(x[:, None])):
            assert not torch.isnan(ladj).any()
            # A sum of numbers of 3e38 may be beyond all floats, and inf - inf is then not avoidable.
            assert x.abs().max() > 1e36 or not torch.isnan(y).any()


def test_coupling_moves_the_last_channels_as_the_first_say():
    transform = make("affine coupling", (3, 3, 3))
    jacobian = torch.autograd.functional.jacobian(transform.inv, rows(1, 27)[0])
    assert torch.equal(jacobian[:9, :9], torch.eye(9, dtype=torch.float64))
    assert not jacobian[:9, 9:].any()
    within = jacobian[9:, 9:]
    assert torch.equal(within, within.diagonal().diag())
    assert (within.diagonal() > 0).all()
    assert jacobian[9:, :9].all()  # on 3 x 3 pixels two convolutions see everything


def test_coupling_scales_and_shifts_by_what_the_network_says():
    transform = make("affine coupling", (2, 2, 2))
    x = rows(5, 8).t()
    r, b = transform.net(x[:4]).chunk(2)
    z, ladj = transform.to_noise(x)
    torch.testing.assert_close(z[4:], x[4:] * torch.tanh(r).exp() + b)
    torch.testing.assert_close(ladj, torch.tanh(r).sum(0))
