"""Products that leave out a mask's zeros against products that do not."""

import pytest
import torch

from densekit.nets.triangular import masked_product, stairs


@pytest.fixture
def problem():
    torch.manual_seed(0)
    A, B, K, N = 20, 7, 33, 9
    reads = [min(K, 2 * a + 1) for a in range(A) for _ in range(B)]
    mask = (torch.arange(K) < torch.tensor(reads)[:, None]).double().view(A, B, K)[:, :1]
    weight = torch.randn(B, A, K, dtype=torch.float64).transpose(0, 1).requires_grad_()
    x = torch.randn(K, N, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(A * B, 1, dtype=torch.float64, requires_grad=True)
    return x, weight, bias, mask, stairs(reads)


def test_stairs_cover_what_every_row_reads():
    reads = torch.randint(0, 50, (500,)).sort().values.tolist()
    for rows in (reads, reads[::-1]):
        steps = stairs(rows)
        assert len(steps) > 1
        assert [a for a, _, _ in steps] == [0, *[b for _, b, _ in steps[:-1]]]
        assert steps[-1][1] == len(rows)
        assert all(k >= max(rows[a:b]) for a, b, k in steps)
    assert sum((b - a) * k for a, b, k in stairs(reads)) < 0.75 * 500 * 50


def test_the_product_and_its_gradients_are_those_of_the_dense_one(problem):
    x, weight, bias, mask, steps = problem
    assert len(steps) > 1
    product = masked_product(*problem)
    dense = torch.addmm(bias, (weight * mask).flatten(0, 1), x)
    assert torch.allclose(product, dense, rtol=0, atol=1e-12)
    pull = torch.randn_like(dense)
    for ours, theirs in zip(
        torch.autograd.grad((product * pull).sum(), (x, weight, bias)),
        torch.autograd.grad((dense * pull).sum(), (x, weight, bias)),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)


def test_second_derivatives_are_right(problem):
    x, weight, bias, mask, steps = problem
    small = (x[:, :2], weight, bias)

    def curved(x, weight, bias):
        return masked_product(x.sin(), weight, bias, mask, steps).sin().sum()

    first = torch.autograd.grad(curved(*small), (x, weight), create_graph=True)
    plain = torch.addmm(bias, (weight * mask).flatten(0, 1), x[:, :2].sin()).sin().sum()
    other = torch.autograd.grad(plain, (x, weight), create_graph=True)
    for ours, theirs in zip(
        torch.autograd.grad(sum(g.square().sum() for g in first), (x, weight)),
        torch.autograd.grad(sum(g.square().sum() for g in other), (x, weight)),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=1e-10)
