import pyro.distributions.transforms as theirs
import pytest
import torch

from densekit.transforms.planar import PlanarTransform
from densekit.transforms.sylvester import SylvesterTransform


def moved(n_features, n_units, seed=0, n_context=0):
    """A Sylvester layer with weights a trained one might have, in float64."""
    torch.manual_seed(seed)
    layer = SylvesterTransform(n_features, n_units, (8,), n_context).double()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.7 * torch.randn_like(p))
    return layer


@pytest.mark.parametrize("seed", range(4))
def test_sylvester_is_pyros_from_data_to_noise(seed):
    """Pyro multiplies rows from the right, and its determinant is right where Q is the identity: its
    triangles are then lower ones, which ours are in reversed order."""
    layer = moved(3, 3, seed)
    with torch.no_grad():
        # One reflection exchanges the first feature and the last, two do nothing.
        layer.reflections.vectors.zero_()
        layer.reflections.vectors[0] = torch.tensor([1.0, 0, -1])
        # Pyro's diagonals are below one in size.
        layer.raw.values[3:9] = torch.tensor([[-0.2], [0.1], [0.2], [-0.5], [-0.9], [-0.4]])
    outer, inner, b, _ = layer.weights()
    made = theirs.Sylvester(3, 2).double()
    with torch.no_grad():
        made.u_unnormed.fill_(1.0)
        for triangle, dense, diagonal in (
            (outer, made.R_dense, made.R_diag),
            (inner, made.S_dense, made.S_diag),
        ):
            turned = triangle[..., 0].t().flip(0, 1)
            dense.copy_(turned)
            diagonal.copy_(turned.diagonal().atanh())
        made.b.copy_(b[:, 0].flip(0))
    # Pyro makes an identity matrix of the default dtype.
    torch.testing.assert_close(layer.frame(), torch.eye(3).double().flip(0))
    made.Q = lambda x: torch.eye(3, dtype=x.dtype)
    x = 2 * torch.randn(20, 3, dtype=torch.float64)
    z = made(x)
    torch.testing.assert_close(layer.inv(x), z, atol=1e-10, rtol=1e-10)
    expected = made.log_abs_det_jacobian(x, z)
    torch.testing.assert_close(layer.to_noise(x.T)[1], expected, atol=1e-6, rtol=0)
    # Pyro has no way back; ours undoes its way there.
    torch.testing.assert_close(layer(z), x, atol=1e-10, rtol=1e-10)
    with pytest.raises(KeyError):
        made.inv(z.clone())


@pytest.mark.parametrize("n_features", [1, 4])
def test_sylvester_of_one_unit_is_planar(n_features):
    layer, planar = moved(n_features, 1), PlanarTransform(n_features).double()
    Q, (outer, inner, b, _) = layer.frame()[:, 0], layer.weights()
    with torch.no_grad():
        # u_hat is along w, so that u is the number whose constrained product with w is theirs.
        w, c = Q * inner.item(), (outer * inner).item()
        along = torch.log(torch.expm1(torch.tensor(c + 0.95))) - torch.log(
            torch.expm1(torch.tensor(0.95))
        )
        raw = torch.cat([w, along * w / w.square().sum(), b[0]])
        planar.raw.values.copy_(20 * torch.atanh(raw / 20)[:, None])
    x = 2 * torch.randn(20, n_features, dtype=torch.float64)
    torch.testing.assert_close(layer.inv(x), planar.inv(x), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(
        layer.to_noise(x.T)[1], planar.to_noise(x.T)[1], atol=1e-6, rtol=1e-6
    )
    assert (layer.inv(x) - x).abs().max() > 0.1


@pytest.mark.parametrize(("n_features", "n_units"), [(1, 1), (5, 2), (5, 5)])
def test_sylvester_frame_is_orthonormal_and_triangles_are_upper(n_features, n_units):
    layer = moved(n_features, n_units, n_context=2)
    Q = layer.frame()
    torch.testing.assert_close(Q.t() @ Q, torch.eye(n_units).double(), atol=1e-12, rtol=0)
    outer, inner, b, c = layer.weights(torch.randn(2, 7, dtype=torch.float64))
    assert outer.shape == inner.shape == (n_units, n_units, 7)
    assert b.shape == (n_units, 7)
    for triangle in (outer, inner):
        assert (triangle.permute(2, 0, 1).tril(-1) == 0).all()
        assert triangle.permute(2, 0, 1).triu().count_nonzero() == 7 * n_units * (n_units + 1) / 2
    torch.testing.assert_close((outer * inner).diagonal().t(), c, atol=1e-12, rtol=0)
    assert (c > -0.95).all()


def test_sylvester_moves_in_its_subspace_only():
    layer = moved(5, 2)
    x = torch.randn(40, 5, dtype=torch.float64)
    assert torch.linalg.matrix_rank(layer.inv(x) - x, rtol=1e-9) == 2


@pytest.mark.parametrize("n_units", [0, 4])
def test_sylvester_names_a_number_of_units_that_cannot_be(n_units):
    with pytest.raises(ValueError, match=f"n_units={n_units} must be between 1"):
        SylvesterTransform(3, n_units)
