"""Reflections: an orthogonal matrix, any of them, and the way back."""

import torch

from densekit.transforms.linear import Householder


def matrix(rotation):
    return rotation.to_noise(torch.eye(rotation.n_features, dtype=torch.float64))[0].detach()


def test_reflections_make_the_matrix_of_their_formula():
    torch.manual_seed(0)
    rotation, unit = Householder(4, 3).double(), torch.eye(4, dtype=torch.float64)
    truth = unit
    for v in rotation.vectors.detach():
        truth = truth @ (unit - 2 * torch.outer(v, v) / (v @ v))
    torch.testing.assert_close(matrix(rotation), truth)
    torch.testing.assert_close(truth @ truth.T, unit)


def test_the_way_back_undoes_it_and_its_volume_is_one():
    torch.manual_seed(0)
    for n_features, n_reflections in ((1, 1), (2, 2), (5, 3), (5, 9)):
        rotation = Householder(n_features, n_reflections)
        x = 1e3 * torch.randn(n_features, 50)
        z, ladj = rotation.to_noise(x)
        torch.testing.assert_close(rotation.to_data(z)[0], x, rtol=1e-5, atol=1e-2)
        assert ladj.abs().max() == 0
        assert matrix(rotation.double()).det().abs().item() - 1 < 1e-12


def test_a_zero_vector_reflects_nothing_and_size_does_not_matter():
    rotation, x = Householder(3, 2), torch.randn(3, 7)
    with torch.no_grad():
        before = rotation.to_noise(x)[0]
        rotation.vectors.mul_(1e30)
        torch.testing.assert_close(rotation.to_noise(x)[0], before)
        rotation.vectors.zero_()
        assert torch.equal(rotation.to_noise(x)[0], x)
