"""Products that leave out a mask's zeros against products that do not."""

import pytest
import torch

from densekit.nets.triangular import (
    input_gradient,
    masked_product,
    masked_weight,
    stairs,
    weight_gradient,
)


@pytest.fixture
def problem():
    torch.manual_seed(0)
    A, B, K, N = 20, 7, 33, 9
    reads = [min(K, 2 * a + 1) for a in range(A) for _ in range(B)]
    mask = (torch.arange(K) < torch.tensor(reads)[:, None]).double().view(A, B, K)[:, :1]
    weight = torch.randn(B, A, K, dtype=torch.float64).transpose(0, 1)
    x = torch.randn(K, N, dtype=torch.float64)
    bias = torch.randn(A * B, 1, dtype=torch.float64)
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


def test_few_rows_make_no_stairs():
    assert stairs([1] * 64) is None


def test_products_are_those_of_the_dense_matrix(problem):
    x, weight, bias, mask, steps = problem
    assert len(steps) > 1
    dense = (weight * mask).flatten(0, 1)
    w, g = masked_weight(weight, mask), torch.randn(len(dense), x.shape[1], dtype=torch.float64)
    assert torch.equal(w, dense)
    for given in (steps, steps[::-1], None):
        assert torch.allclose(
            masked_product(w, bias, x, given), dense @ x + bias, rtol=0, atol=1e-12
        )
        assert torch.allclose(input_gradient(w, g, given), dense.t() @ g, rtol=0, atol=1e-12)
        seen = mask.expand(weight.shape).flatten(0, 1)
        assert torch.allclose(
            weight_gradient(g, x, given) * seen, g @ x.t() * seen, rtol=0, atol=1e-12
        )
