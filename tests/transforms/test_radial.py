import pyro.distributions.transforms as theirs
import pytest
import torch

from densekit.transforms.bracket import invert
from densekit.transforms.radial import RadialTransform


def moved(n_features, seed=0):
    """A radial layer with weights a trained one might have, in float64."""
    torch.manual_seed(seed)
    layer = RadialTransform(n_features).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(torch.randn_like(p))
    return layer


@pytest.mark.parametrize("n_features", [1, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_radial_is_pyros_from_data_to_noise(n_features, seed):
    layer = moved(n_features, seed)
    x0, alpha, beta = layer.weights()
    made = theirs.Radial(n_features).double()
    with torch.no_grad():
        made.x0.copy_(x0[:, 0])
        made.alpha_prime.copy_(torch.log(torch.expm1(alpha)))
        made.beta_prime.copy_(torch.log(torch.expm1(alpha + beta)))
    x = 2 * torch.randn(20, n_features, dtype=torch.float64)
    z = made(x)
    torch.testing.assert_close(layer.inv(x), z, atol=1e-10, rtol=1e-10)
    # Pyro sums its determinant over a last axis of one.
    expected = torch.stack([made.log_abs_det_jacobian(row, made(row)) for row in x])
    torch.testing.assert_close(layer.to_noise(x.T)[1], expected, atol=1e-10, rtol=1e-10)
    # Pyro has no way back; ours undoes its way there.
    torch.testing.assert_close(layer(z), x, atol=1e-10, rtol=1e-10)
    with pytest.raises(KeyError):
        made.inv(z.clone())


@pytest.mark.parametrize("seed", range(6))
def test_the_radius_is_that_found_by_bracketing(seed):
    layer = moved(1, seed)
    x0, alpha, beta = layer.weights()
    rho = torch.logspace(-12, 12, 97, dtype=torch.float64)
    with torch.no_grad():
        r = invert(lambda r: r * (alpha + beta + r.abs()) / (alpha + r.abs()), rho)
        ours = layer(x0.T + rho[:, None])[:, 0] - x0[0]
    # x0 is added and taken off again: its rounding is in what is left.
    torch.testing.assert_close(ours, r, atol=1e-13, rtol=1e-13)


def test_radial_keeps_its_center_and_every_ray():
    layer = moved(3)
    x0 = layer.weights()[0][:, 0]
    torch.testing.assert_close(layer.inv(x0), x0)
    torch.testing.assert_close(layer(x0), x0)
    way = torch.randn(3, dtype=torch.float64)
    steps = torch.linspace(0, 50, 2001, dtype=torch.float64)[:, None]
    z = layer.inv(x0 + steps * way) - x0
    along = z @ way / way.norm()
    torch.testing.assert_close(along, z.norm(dim=1), atol=1e-10, rtol=0)
    assert (along.diff() > 0).all()


@pytest.mark.parametrize("n_features", [1, 3])
def test_radial_gradients_at_its_center_are_finite(n_features):
    layer = moved(n_features)
    x = layer.weights()[0].detach().expand(n_features, 2).clone().requires_grad_()
    for way in (layer.to_noise, layer.to_data):
        y, ladj = way(x)
        (y.sum() + ladj.sum()).backward()
        assert torch.isfinite(x.grad).all()
        assert all(torch.isfinite(p.grad).all() for p in layer.parameters())


def test_radial_strength_stays_above_minus_its_width():
    for seed in range(20):
        layer = moved(2, seed)
        with torch.no_grad():
            layer.raw.values.mul_(30)
        _, alpha, beta = layer.weights()
        assert alpha > 0
        assert beta > -0.95 * alpha * (1 + 1e-12)
