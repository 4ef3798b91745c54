"""Whitening: estimates and their shrinkage."""

import torch

from densekit.transforms.whitening import Whitening


def correlated(n, d, seed=0):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ a + 3


def fitted(x):
    white = Whitening(x.shape[1]).to(x.dtype)
    white.fit(x)
    return white


def test_many_rows_become_white():
    x = correlated(5000, 4)
    z = fitted(x)(x)
    assert torch.allclose(z.mean(0), torch.zeros(4, dtype=z.dtype), atol=1e-6)
    assert torch.allclose(torch.cov(z.T), torch.eye(4, dtype=z.dtype), atol=0.1)


def test_inverse_and_log_determinant():
    white, x = fitted(correlated(300, 3)), correlated(5, 3, seed=1)
    assert torch.allclose(white.inverse(white(x)), x)
    jacobian = torch.autograd.functional.jacobian(white, x[0])
    assert torch.allclose(white.log_det, torch.linalg.slogdet(jacobian)[1])


def test_fewer_rows_than_dimensions_change_little():
    x = torch.randn(20, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    new = torch.randn(500, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    # Without a ridge, the twenty-one directions that never vary here would be blown up without end.
    assert torch.linalg.eigvalsh(torch.cov(fitted(x)(new).T)).max() < 3


def test_collinear_and_constant_columns_stay_finite():
    x = torch.randn(100, 1, generator=torch.Generator().manual_seed(0)).double()
    white = fitted(torch.cat([x, 2 * x, torch.ones_like(x)], 1))
    assert white(torch.zeros(1, 3).double()).isfinite().all()
    assert white.log_det.isfinite()


def test_before_fit_it_changes_nothing():
    white, x = Whitening(2), torch.ones(3, 2)
    assert torch.equal(white(x), x)
    assert white.log_det == 0


def test_two_rows_give_only_their_mean():
    white = fitted(torch.tensor([[0.0, 0.0], [2.0, 4.0]], dtype=torch.float64))
    assert white(torch.tensor([[1.0, 2.0]], dtype=torch.float64)).abs().max() == 0
