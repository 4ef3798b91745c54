"""Inverses by bracketing against formulas, over the whole range of floats."""

import pytest
import torch

from densekit.transforms.bracket import invert

EVERYWHERE = [0.0, 1e-30, 1e-3, 0.7, 1.0, 17.0, 1e6, 1e30]


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float32, 3e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize(
    ("there", "back"),
    [
        (torch.asinh, torch.sinh),
        (lambda x: 3 * x - 5, lambda y: (y + 5) / 3),
        (lambda x: x + x.clamp_min(0), lambda y: y - y.clamp_min(0) / 2),
        (lambda x: x.sign() * x.abs().sqrt(), lambda y: y * y.abs()),
    ],
)  # fmt: skip
def test_roots_are_those_of_a_formula(there, back, dtype, digits):
    y = torch.tensor(EVERYWHERE, dtype=dtype)
    y = torch.cat([y, -y])
    y = y[torch.isfinite(back(y)) & (back(y).abs() < torch.finfo(dtype).max / 8)]
    assert torch.allclose(invert(there, y), back(y), rtol=digits, atol=1e-35)


def test_beyond_all_values_is_infinite_and_nan_stays_nan():
    x = invert(torch.tanh, torch.tensor([2.0, -2.0, 0.5, torch.nan]))
    assert x[:2].tolist() == [torch.inf, -torch.inf]
    assert x[2] == pytest.approx(0.5493061)
    assert x[3].isnan()


def test_an_entry_does_not_depend_on_its_company():
    y = torch.randn(500) * torch.logspace(-3, 6, 500)

    def function(x):
        return x + 0.9 * torch.sin(x) + torch.tanh(50 * (x - 1))

    together = invert(function, y)
    alone = torch.cat([invert(function, one) for one in y.split(1)])
    assert torch.equal(together, alone)


def test_gradients_are_those_of_the_implicit_function():
    weight = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0.3, -2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda w, y: invert(lambda x: x + torch.tanh(w * x), y), (weight, y)
    )


def test_few_evaluations_find_a_smooth_root():
    calls = 0

    def function(x):
        nonlocal calls
        calls += 1
        return x + torch.tanh(x)

    with torch.no_grad():
        invert(function, torch.randn(1000, dtype=torch.float64))
    assert calls < 25, "bisection alone would take more than fifty"
