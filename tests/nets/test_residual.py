"""What a conditioner reads: asinh, by its parts."""

import torch

from densekit.nets.chain import squash


def test_squash_is_asinh_over_the_whole_range_of_floats():
    for dtype, digits in ((torch.float32, 3e-7), (torch.float64, 1e-15)):
        size = torch.logspace(-30, 15, 400, dtype=torch.float64)
        x = torch.cat([size, -size, torch.zeros(1, dtype=torch.float64)]).to(dtype)
        want = torch.asinh(x.double())
        assert ((squash(x).double() - want).abs() <= digits * want.abs()).all()


def test_squash_is_finite_and_does_not_fall_where_squares_have_no_float():
    x = torch.logspace(15, 38, 50)
    y = squash(x)
    assert torch.isfinite(y).all()
    assert (y.diff() >= 0).all()
    assert squash(torch.tensor([torch.nan])).isnan().all()


def test_squash_has_the_derivatives_of_asinh():
    x = torch.randn(20, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(squash, x)
    assert torch.autograd.gradgradcheck(squash, x)
    rows = torch.func.vmap(torch.func.grad(lambda row: squash(row).sum()))(x.detach().view(4, 5))
    torch.testing.assert_close(rows, (x.detach().view(4, 5) ** 2 + 1).rsqrt())
