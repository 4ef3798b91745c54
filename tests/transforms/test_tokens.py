"""The transform of tokens: dependencies in both directions, at any size."""

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from densekit.distributions.flow import FlowDistribution
from densekit.transforms.affine import AffineElement
from densekit.transforms.columns import Stack
from densekit.transforms.linear import Diagonal
from densekit.transforms.spline import SplineElement
from densekit.transforms.tokens import TokenTransform, patches

SHAPES = [(1,), (2,), (7,), (1, 4, 6), (3, 2, 2), (1, 1, 1)]


def make(shape, n_context=0, dtype=torch.float64, element=None, reverse=False, spread=0.3):
    """A transform away from its start, with weights that a trained one might have."""
    torch.manual_seed(0)
    tokens = patches(shape, 2)
    tokens = tokens.flip(0) if reverse else tokens
    transform = TokenTransform(tokens, element or AffineElement(), 16, 2, 2, n_context).double()
    with torch.no_grad():
        for p in transform.parameters():
            p.add_(spread * torch.randn_like(p))
    return transform.to(dtype)


def columns(d, n, dtype=torch.float64, seed=1):
    g = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(d, n, generator=g, dtype=torch.float64)).to(dtype)


def test_patches_hold_each_pixel_once_and_neighbors_together():
    tokens = patches((3, 6, 8), 4)  # three high, four wide, three channels
    assert tokens.shape == (4, 36)
    assert sorted(tokens.flatten().tolist()) == list(range(144))
    channel, row, column = tokens[1] // 48, tokens[1] % 48 // 8, tokens[1] % 8
    assert set(channel.tolist()) == {0, 1, 2}
    assert set(row.tolist()) == {0, 1, 2}
    assert set(column.tolist()) == {4, 5, 6, 7}


@pytest.mark.parametrize(
    ("shape", "patch_size", "expected"),
    [
        ((1, 28, 28), 4, (49, 16)),
        ((1, 28, 28), 5, (49, 16)),  # four is the largest that divides
        ((1, 7, 10), 4, (35, 2)),  # one high, two wide
        ((1, 4, 4), 9, (4, 4)),  # never the whole
        ((2, 1, 1), 4, (1, 2)),
        ((5,), 4, (5, 1)),
    ],
)
def test_patches_divide_the_image(shape, patch_size, expected):
    assert patches(shape, patch_size).shape == expected


@pytest.mark.parametrize("shape", SHAPES)
def test_it_starts_as_the_identity(shape):
    transform = TokenTransform(patches(shape, 2), AffineElement(), 16, 2, 2)
    x = columns(transform.n_features, 5, torch.float32)
    z, ladj = transform.to_noise(x)
    assert torch.equal(z, x)
    assert (ladj == 0).all()


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("n_context", [0, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_cached_sampling_undoes_scoring_also_far_out(shape, n_context, dtype, atol):
    # In float32 an error of z is as much larger in x as the map is steep: a milder map there.
    spread = 0.1 if dtype == torch.float32 else 0.3
    transform = make(shape, n_context, dtype, spread=spread)
    x = columns(transform.n_features, 60, dtype)
    x[:, 0], x[0, 1], x[-1, 2] = 1e6, -1e6, 1e6
    context = columns(2, 60, dtype, seed=2) if n_context else None
    with torch.no_grad():
        z, ladj = transform.to_noise(x, context)
        back, inverse_ladj = transform.to_data(z, context)
        torch.testing.assert_close(back, x, atol=atol, rtol=atol)
        torch.testing.assert_close(inverse_ladj, -ladj, atol=10 * atol, rtol=0)
        forth, _ = transform.to_noise(transform.to_data(x, context)[0], context)
        torch.testing.assert_close(forth, x, atol=3 * atol, rtol=3 * atol)


@pytest.mark.parametrize("element", [AffineElement(), SplineElement(4, 4.0)])
@pytest.mark.parametrize("shape", [(1,), (4,), (1, 2, 4)])
def test_log_det_is_that_of_autodiff_both_ways(shape, element):
    transform = make(shape, element=element)
    for z in columns(transform.n_features, 3).t():
        jacobian = torch.autograd.functional.jacobian(transform, z)
        expected = torch.linalg.slogdet(jacobian)[1]
        found = transform.log_abs_det_jacobian(z, transform(z))
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-8)
        torch.testing.assert_close(
            transform.to_data(z[:, None])[1][0], expected, atol=1e-8, rtol=1e-8
        )


@pytest.mark.parametrize("reverse", [False, True])
def test_a_token_depends_on_those_before_it_and_on_all_of_them(reverse):
    transform = make((1, 4, 4), reverse=reverse)
    jacobian = torch.autograd.functional.jacobian(transform.inv, columns(16, 1)[:, 0])
    order = transform.tokens.flatten()
    jacobian = jacobian[order][:, order]  # in the order of the tokens, four numbers each
    blocks = jacobian.view(4, 4, 4, 4).transpose(1, 2)
    for i in range(4):
        for j in range(4):
            if i < j:
                assert (blocks[i, j] == 0).all()
            elif i > j:
                assert (blocks[i, j] != 0).all()
            else:
                assert torch.equal(blocks[i, i], blocks[i, i].diagonal().diag())
                assert (blocks[i, i].diagonal() > 0).all()


def test_the_first_token_depends_on_the_context_alone():
    transform, x = make((3,), n_context=1), columns(3, 1)
    by_context = torch.autograd.functional.jacobian(
        lambda c: transform.to_noise(x, c)[0][:, 0], columns(1, 1)
    )
    assert (by_context != 0).all()
    jacobian = torch.autograd.functional.jacobian(
        lambda x: transform.to_noise(x, columns(1, 1))[0][0, 0], x
    )
    assert (jacobian[1:] == 0).all()


def test_gradients_of_both_ways_agree_with_finite_differences():
    transform, x = make((3,)), columns(3, 2).t().requires_grad_()
    assert torch.autograd.gradcheck(transform.inv, (x,))
    assert torch.autograd.gradcheck(transform, (x,))


def test_the_gradient_of_a_sample_reaches_the_weights():
    """dx/dw from solving must be -(dz/dx)^-1 dz/dw from scoring."""
    transform, z = make((3,)), columns(3, 1)[:, 0]
    x, weights = transform(z), list(transform.net.parameters())
    weights = [w for w in weights if w.numel()]
    direct = torch.autograd.grad(x[2], weights)
    inverse = torch.linalg.inv(torch.autograd.functional.jacobian(transform.inv, x.detach()))
    implied = torch.autograd.grad(-(inverse[2] @ transform.inv(x.detach())), weights)
    for a, b in zip(direct, implied, strict=True):
        torch.testing.assert_close(a, b, atol=1e-8, rtol=1e-6)


def test_a_row_scores_alike_in_any_company():
    transform, x = make((1, 4, 6)), columns(24, 3000)  # many enough to be scored in pieces
    context = make((1, 4, 6), n_context=2)
    c = columns(2, 3000)
    with torch.no_grad():
        assert transform.net._batch_rows < 3000
        for t, given in ((transform, None), (context, c)):
            z, ladj = t.to_noise(x, given)
            some = slice(2900, 2910)
            alone = t.to_noise(x[:, some], None if given is None else given[:, some])
            torch.testing.assert_close(alone[0], z[:, some], atol=1e-12, rtol=1e-12)
            torch.testing.assert_close(alone[1], ladj[some], atol=1e-12, rtol=1e-12)


def test_in_two_dimensions_a_stack_integrates_to_one():
    layers = [make((2,), reverse=bool(i % 2), spread=0.2) for i in range(3)]
    flow = FlowDistribution(Stack([*layers, Diagonal(2).double()]))
    edge = torch.linspace(-10, 10, 401, dtype=torch.float64)
    with torch.no_grad():
        grid = torch.cartesian_prod(edge, edge)
        mass = flow.log_prob(grid).exp().sum() * (edge[1] - edge[0]) ** 2
    assert mass.item() == pytest.approx(1, abs=1e-4)


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@hypothesis.given(st.lists(FLOATS, min_size=4, max_size=4), st.booleans())
@hypothesis.settings(deadline=None, max_examples=80)
def test_no_finite_float32_makes_nan(values, forth):
    layers = [make((4,), dtype=torch.float32, reverse=bool(i % 2)) for i in range(3)]
    x = torch.tensor(values, dtype=torch.float32)[:, None]
    with torch.no_grad():
        z, ladj = (Stack(layers).to_noise if forth else Stack(layers).to_data)(x)
    assert not z.isnan().any()
    assert torch.isfinite(ladj).all()
