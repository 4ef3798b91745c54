import pyro.distributions as dist
import pytest
import torch

from densekit.transforms.affine import AffineElement
from densekit.transforms.autoregressive import AutoregressiveTransform
from densekit.transforms.columns import Stack
from densekit.transforms.coupling import CouplingTransform, binary_split
from densekit.transforms.elementwise import ElementwiseTransform
from densekit.transforms.linear import Diagonal, Householder, LULinear, Reverse
from densekit.transforms.monotone import MonotoneElement
from densekit.transforms.planar import PlanarTransform
from densekit.transforms.radial import RadialTransform
from densekit.transforms.spline import SplineElement
from densekit.transforms.sylvester import SylvesterTransform

SPLINE, AFFINE, WIDE = SplineElement(5, 4.0), AffineElement(), (16, 16)
KINDS = {
    "spline autoregressive": lambda d, c: AutoregressiveTransform(d, SPLINE, WIDE, c),
    "reversed": lambda d, c: AutoregressiveTransform(d, SPLINE, (16, 12), c, reverse=True),
    "narrow": lambda d, c: AutoregressiveTransform(d, SPLINE, (2,), c),
    "monotone autoregressive": lambda d, c: AutoregressiveTransform(
        d, MonotoneElement(4), WIDE, c
    ),
    "elementwise": lambda d, c: ElementwiseTransform(d, MonotoneElement(4), WIDE, c),
    "affine autoregressive": lambda d, c: AutoregressiveTransform(d, AFFINE, WIDE, c),
    "spline coupling": lambda d, c: CouplingTransform(binary_split(d, 0), SPLINE, WIDE, c),
    "affine coupling": lambda d, c: CouplingTransform(binary_split(d, 1), AFFINE, WIDE, c),
    "reverse": lambda d, c: Reverse(d, c),
    "diagonal": lambda d, c: Diagonal(d),
    "lu": lambda d, c: LULinear(d),
    "householder": lambda d, c: Householder(d, 2),
    "planar": lambda d, c: PlanarTransform(d, (16,), c),
    "radial": lambda d, c: RadialTransform(d, (16,), c),
    "sylvester": lambda d, c: SylvesterTransform(d, min(d, 3), (16,), c),
    "stack": lambda d, c: Stack(
        [
            AutoregressiveTransform(d, SPLINE, WIDE, c),
            LULinear(d),
            CouplingTransform(binary_split(d, 1), AFFINE, WIDE, c),
        ]
    ),
}

WITHOUT_CONTEXT = ("reverse", "diagonal", "lu", "householder")


def make(kind, n_features=5, n_context=0, dtype=torch.float64, spread=0.3):
    """A transform away from its starting point, with weights a trained one might have."""
    torch.manual_seed(0)
    transform = KINDS[kind](n_features, n_context).to(dtype)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in transform.parameters():
            p.add_(spread * torch.randn(p.shape, generator=g, dtype=torch.float64).to(dtype))
    return transform


def rows(n, n_features=5, dtype=torch.float64, seed=1):
    g = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(n, n_features, generator=g, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("n_features", [1, 2, 5])
@pytest.mark.parametrize("kind", [k for k in KINDS if k != "householder"])
def test_transform_starts_as_the_identity(kind, n_features):
    transform = KINDS[kind](n_features, 0)
    x = rows(7, n_features, torch.float32)
    z = transform.inv(x)
    torch.testing.assert_close(z, x.flip(1) if kind == "reverse" else x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n_features", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_transform_inverse_undoes_it(kind, n_features, dtype, atol):
    # In float32 an error of z is as much larger in x as the map is steep: a milder map there.
    transform = make(kind, n_features, dtype=dtype, spread=0.1 if dtype == torch.float32 else 0.3)
    x = rows(50, n_features, dtype)
    x[0, 0], x[1, -1] = 40.0, -4.0  # beyond a spline's bound, and on it
    with torch.no_grad():
        z = transform.inv(x)
        torch.testing.assert_close(transform(z), x, atol=3 * atol, rtol=atol)
        torch.testing.assert_close(transform.inv(transform(x)), x, atol=3 * atol, rtol=atol)


@pytest.mark.parametrize("n_features", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_log_det_is_that_of_autodiff(kind, n_features):
    transform = make(kind, n_features)
    for z in rows(5, n_features):
        jacobian = torch.autograd.functional.jacobian(transform, z)
        expected = torch.linalg.slogdet(jacobian)[1]
        x = transform(z)
        torch.testing.assert_close(
            transform.log_abs_det_jacobian(z, x), expected, atol=1e-8, rtol=1e-8
        )
        columns = z[:, None]
        torch.testing.assert_close(
            transform.to_data(columns)[1][0], expected, atol=1e-8, rtol=1e-8
        )


@pytest.mark.parametrize("reverse", [False, True])
def test_autoregressive_jacobian_is_triangular(reverse):
    transform = make("reversed" if reverse else "spline autoregressive")
    jacobian = torch.autograd.functional.jacobian(transform.inv, rows(1)[0])
    other = jacobian.tril(-1) if reverse else jacobian.triu(1)
    assert (other == 0).all()
    assert (jacobian.diagonal() > 0).all()
    kept = jacobian.triu(1) if reverse else jacobian.tril(-1)
    assert kept.count_nonzero() == 10  # and every earlier feature has its say


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_both_ways_agree_with_finite_differences(kind):
    transform = make(kind, 3)
    x = rows(4, 3).requires_grad_()

    def scores(x):
        return transform.inv(x)

    assert torch.autograd.gradcheck(scores, (x,))
    assert torch.autograd.gradcheck(transform, (x,))


@pytest.mark.parametrize(
    "kind",
    [
        "spline autoregressive",
        "affine autoregressive",
        "householder",
        "planar",
        "radial",
        "sylvester",
        "stack",
    ],
)
def test_the_gradient_of_a_sample_reaches_the_weights(kind):
    """dx/dw from solving must be -(dz/dx)^-1 dz/dw from scoring."""
    transform = make(kind, 3)
    z = rows(1, 3)[0]
    x = transform(z)
    weights = [p for p in transform.parameters() if p.requires_grad and p.numel()]
    direct = torch.autograd.grad(x[2], weights, allow_unused=True)
    inverse = torch.linalg.inv(torch.autograd.functional.jacobian(transform.inv, x.detach()))
    implied = torch.autograd.grad(
        -(inverse[2] @ transform.inv(x.detach())), weights, allow_unused=True
    )
    for a, b in zip(direct, implied, strict=True):
        a, b = (torch.zeros(1) if t is None else t for t in (a, b))
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("n_features", [1, 4])
@pytest.mark.parametrize("kind", [k for k in KINDS if k not in WITHOUT_CONTEXT])
def test_context_changes_the_map_and_inverts_with_it(kind, n_features):
    transform = make(kind, n_features, n_context=2)
    x, context = rows(30, n_features), rows(30, 2, seed=3)
    given = transform.condition(context)
    z = given.inv(x)
    torch.testing.assert_close(given(z), x, atol=1e-9, rtol=1e-9)
    other = transform.condition(context + 1)
    moved = torch.ones(n_features, dtype=torch.bool)
    if "coupling" in kind and n_features > 1:
        moved = ~binary_split(n_features, 0 if "spline" in kind else 1)
    changed = ((other.inv(x) - z).abs() > 0).any(0)
    assert changed[moved].all()
    shared = transform.condition(context[0])
    torch.testing.assert_close(shared.inv(x)[0], z[0], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_pyro_takes_it_and_scores_follow_the_weights(kind):
    transform = make(kind, 3)
    base = dist.Normal(torch.zeros(3, dtype=torch.float64), 1.0).to_event(1)
    law = dist.TransformedDistribution(base, [transform])
    x = rows(2 * 6, 3).reshape(2, 6, 3)
    before = law.log_prob(x)
    assert before.shape == (2, 6)
    assert law.sample((4,)).shape == (4, 3)
    with torch.no_grad():
        for p in transform.parameters():
            p.add_(0.1)
    if kind not in ("reverse", "householder"):  # which leave a normal as it is
        assert not torch.allclose(law.log_prob(x), before)


@pytest.mark.parametrize("kind", KINDS)
def test_state_dict_rebuilds_the_map(kind):
    x = rows(9)
    transform, fresh = make(kind), KINDS[kind](5, 0).double()
    fresh.load_state_dict(transform.state_dict())
    assert torch.equal(fresh.inv(x), transform.inv(x))


@pytest.mark.parametrize("kind", KINDS)
def test_finite_far_out_in_float32(kind):
    transform = make(kind, dtype=torch.float32)
    x = torch.tensor([[1e6, -1e6, 0.0, 1.0, -1e6]]).repeat(5, 1)
    x = (x * torch.eye(5) + (1 - torch.eye(5))).requires_grad_()
    for way in (transform.inv, transform):
        y = way(x)
        y.sum().backward()
        assert torch.isfinite(y).all()
        assert torch.isfinite(x.grad).all()
    assert torch.isfinite(transform.log_abs_det_jacobian(x, x)).all()


def test_binary_split_sets_every_pair_apart_and_moves_every_feature():
    for n in (2, 3, 5, 8, 30):
        digits = (n - 1).bit_length()
        splits = torch.stack([binary_split(n, i) for i in range(2 * digits)])
        assert (splits.any(1) & (~splits).any(1)).all()
        apart = (splits[:, :, None] != splits[:, None, :]).any(0)
        assert (apart | torch.eye(n, dtype=torch.bool)).all()
        assert torch.equal(splits[::2], ~splits[1::2])
