import pyro.distributions.transforms as theirs
import pytest
import torch

from densekit.transforms.planar import PlanarTransform


def moved(n_features, n_context=0, seed=0):
    """A planar layer with weights a trained one might have, in float64."""
    torch.manual_seed(seed)
    layer = PlanarTransform(n_features, (8,), n_context).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.7 * torch.randn_like(p))
    return layer


def pyros(w, u_hat, b, c):
    """Pyro's transform of these weights, each a vector; it finds u_hat from a u of its own."""
    made = theirs.Planar(len(w)).double()
    u = u_hat + (torch.log(torch.expm1(1 + c)) - c) * w / w.square().sum()
    with torch.no_grad():
        for p, value in ((made.w, w), (made.u, u), (made.bias, b)):
            p.copy_(value)
    return made


@pytest.mark.parametrize("n_features", [1, 2, 5])
@pytest.mark.parametrize("seed", range(4))
def test_planar_is_pyros_from_data_to_noise(n_features, seed):
    layer = moved(n_features, seed=seed)
    w, u_hat, b, c = (t[..., 0] for t in layer.weights())
    made = pyros(w, u_hat, b, c)
    x = 2 * torch.randn(20, n_features, dtype=torch.float64)
    z = made(x)
    torch.testing.assert_close(layer.inv(x), z, atol=1e-10, rtol=1e-10)
    expected = made.log_abs_det_jacobian(x, z)
    torch.testing.assert_close(layer.to_noise(x.T)[1], expected, atol=1e-10, rtol=1e-10)
    # Pyro has no way back; ours undoes its way there.
    torch.testing.assert_close(layer(z), x, atol=1e-10, rtol=1e-10)
    with pytest.raises(KeyError):
        made.inv(z.clone())


def test_planar_worked_out_by_hand():
    """w = (1, 0) and b = 0: a step of height u in the second column, as the first goes by."""
    layer = PlanarTransform(2).double()
    with torch.no_grad():
        layer.raw.values.copy_(torch.tensor([[1.0], [0], [0], [3], [0]]))
    height = 20 * torch.tanh(torch.tensor(3 / 20, dtype=torch.float64))
    slope = 20 * torch.tanh(torch.tensor(1 / 20, dtype=torch.float64))
    x = torch.tensor([[0.0, 7.0], [0.5, 0.0], [100.0, -1.0]], dtype=torch.float64)
    step = height * torch.tanh(slope * x[:, 0])
    torch.testing.assert_close(layer.inv(x)[:, 1], x[:, 1] + step)
    assert torch.equal(layer.inv(x)[:, 0], x[:, 0])
    assert (layer.to_noise(x.T)[1] == 0).all()


def test_planar_moves_along_one_direction_only():
    layer = moved(4)
    x = torch.randn(30, 4, dtype=torch.float64)
    assert torch.linalg.matrix_rank(layer.inv(x) - x, rtol=1e-9) == 1


@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-9, 1e-6, 1e-5, 1e-3])
def test_planar_without_a_plane_is_a_shift(length):
    layer = PlanarTransform(3)
    with torch.no_grad():
        layer.raw.values.copy_(torch.tensor([[length], [length], [0], [1], [2], [3], [9]]))
    x = torch.randn(5, 3)
    shift = layer.inv(x) - x
    assert shift.abs().max() < 4
    torch.testing.assert_close(shift, shift[:1].expand(5, 3), atol=20 * length + 1e-6, rtol=0)
    torch.testing.assert_close(layer(layer.inv(x)), x)
    z, ladj = layer.to_noise(x.T)
    assert ladj.abs().max() <= 4 * length
    (z.sum() + ladj.sum()).backward()
    assert torch.isfinite(layer.raw.values.grad).all()


@pytest.mark.parametrize("length", [1e-2, 1e-6, 3e-7, 1e-7])
def test_planar_determinant_is_that_of_the_map_also_where_w_vanishes(length):
    layer = PlanarTransform(2).double()
    with torch.no_grad():
        layer.raw.values.copy_(torch.tensor([[length], [0], [-15.0], [1], [0.3]]))
    jacobian = torch.autograd.functional.jacobian(layer.inv, torch.zeros(2).double())
    expected = torch.linalg.slogdet(jacobian)[1]
    found = layer.to_noise(torch.zeros(2, 1).double())[1][0]
    torch.testing.assert_close(found, expected, atol=1e-14, rtol=1e-9)
    assert expected < -length


def test_planar_condition_of_invertibility_holds_for_the_weights_that_are_used():
    for seed in range(20):
        layer = moved(3, seed=seed)
        with torch.no_grad():
            layer.raw.values.mul_(20)
        w, u_hat, _, c = layer.weights()
        torch.testing.assert_close((w * u_hat).sum(0), c, atol=1e-9, rtol=1e-9)
        assert c > -0.95 - 1e-12


def test_planar_needs_its_context():
    with pytest.raises(ValueError, match="context"):
        moved(2, n_context=1)(torch.zeros(1, 2, dtype=torch.float64))
