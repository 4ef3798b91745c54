import pyro.distributions.transforms as theirs
import pytest
import torch

from densekit.transforms.linear import Householder, LULinear


def test_householder_is_pyros():
    ours, made = Householder(4, 3).double(), theirs.Householder(4, count_transforms=3).double()
    with torch.no_grad():
        made.u_unnormed.copy_(ours.vectors)
    z = torch.randn(10, 4, dtype=torch.float64)
    torch.testing.assert_close(ours(z), made(z), atol=1e-12, rtol=0)
    x = ours(z).detach().clone()
    torch.testing.assert_close(ours.inv(x), made.inv(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize("n_reflections", [1, 2, 5])
def test_householder_is_orthogonal_and_turned_over_by_each_reflection(n_reflections):
    matrix = torch.autograd.functional.jacobian(
        Householder(3, n_reflections).double(), torch.zeros(3, dtype=torch.float64)
    )
    torch.testing.assert_close(matrix @ matrix.t(), torch.eye(3).double(), atol=1e-12, rtol=0)
    assert torch.linalg.det(matrix) == pytest.approx((-1) ** n_reflections)


@pytest.mark.parametrize("size", [1e-10, 1.0, 1e20, 3e38])
def test_householder_sees_only_the_direction_of_its_vectors(size):
    rotation = Householder(2, 1)
    with torch.no_grad():
        rotation.vectors.copy_(torch.tensor([[1.0, 1.0]]) * size)
    y = rotation(torch.tensor([[2.0, 5.0]]))
    torch.testing.assert_close(y, torch.tensor([[-5.0, -2.0]]))
    y.sum().backward()
    assert torch.isfinite(rotation.vectors.grad).all()


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-20])
def test_householder_of_next_to_no_vector_reflects_nothing(size):
    rotation = Householder(2, 1)
    with torch.no_grad():
        rotation.vectors.fill_(size)
    x = torch.tensor([[2.0, 5.0]])
    assert torch.equal(rotation(x), x)
    rotation(x).sum().backward()
    assert torch.isfinite(rotation.vectors.grad).all()


def test_reflections_make_the_matrix_of_their_formula():
    torch.manual_seed(0)
    rotation, unit = Householder(4, 3).double(), torch.eye(4, dtype=torch.float64)
    truth = unit
    for v in rotation.vectors.detach():
        truth = truth @ (unit - 2 * torch.outer(v, v) / (v @ v))
    made = rotation.to_noise(unit)[0].detach()
    torch.testing.assert_close(made, truth)
    torch.testing.assert_close(truth @ truth.T, unit)


def test_fixed_features_stay_out_of_the_matrix():
    torch.manual_seed(0)
    mix = LULinear(4, fixed=(1, 3)).double()
    with torch.no_grad():
        for p in mix.parameters():
            p.normal_()
    x = torch.randn(4, 6, dtype=torch.float64)
    z, ladj = mix.to_noise(x)
    assert torch.equal(z[[1, 3]], x[[1, 3]])
    slope = torch.autograd.functional.jacobian(
        lambda v: mix.to_noise(v[:, None])[0][:, 0], x[:, 0]
    )
    torch.testing.assert_close(ladj[0], slope.slogdet()[1])
    assert (slope[[1, 3]][:, [0, 2]] == 0).all()
    assert (slope[[0, 2]][:, [1, 3]] == 0).all()
    back, turned = mix.to_data(z)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(turned, -ladj)
