"""The compiled loops over tokens against the formulas in float64: values, gradients, gradients of
gradients, several threads, strides."""

import pytest
import torch

from densekit.kernels.compiled import compiled
from densekit.nets import tokenwise
from densekit.nets.tokenwise import KERNEL, glu, rms_norm, rotary, swiglu

pytest.importorskip("densekit.kernels.tokens", reason="numba is not installed")

M, HEADS, GAINS, HALF = 700, 5, 3, 4


def turn(positions=M):
    angles = torch.arange(positions).unsqueeze(1) * 1e4 ** (-torch.arange(HALF) / HALF)
    return angles.cos(), angles.sin()


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


CASES = {
    "rms_norm": (lambda x: (rms_norm(x),), lambda x: (tokenwise._norm(x),), [numbers(M, 24)]),
    "swiglu": (lambda x: (swiglu(x),), lambda x: (tokenwise._gate(x),), [3 * numbers(M, 96)]),
    "glu": (
        lambda *x: (glu(*x),),
        lambda *x: (torch.nn.functional.glu(sum(x), 1),),
        [
            numbers(40, 16, 7, 5).to(memory_format=torch.channels_last),
            numbers(40, 16, 7, 5, seed=1),
        ],
    ),
    "glu alone": (
        lambda x: (glu(x),),
        lambda x: (torch.nn.functional.glu(x, 1),),
        [numbers(40, 16, 7, 5)],
    ),
    "rotary": (
        lambda x, gain: rotary(x, tuple(t.to(x.dtype) for t in turn(len(x))), gain),
        lambda x, gain: tokenwise._turn(x, *(t.to(x.dtype) for t in turn(len(x))), gain),
        [numbers(M, HEADS, 2 * HALF), 1 + 0.3 * numbers(GAINS, seed=1)],
    ),
}


@pytest.fixture(params=list(CASES))
def case(request):
    return CASES[request.param]


def slopes(function, given, weights):
    given = [x.clone().requires_grad_() for x in given]
    out = function(*given)
    total = sum((y * w.to(y.dtype)).sum() for y, w in zip(out, weights, strict=True))
    return out, torch.autograd.grad(total, given)


@pytest.mark.parametrize("threads", [1, 2])
def test_values_and_gradients_are_the_formulas(case, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    ours, formula, given = case
    assert compiled(KERNEL, *given) is not None
    weights = [numbers(*y.shape, seed=7) for y in formula(*given)]
    want, want_slopes = slopes(formula, [x.double() for x in given], weights)
    found, found_slopes = slopes(ours, given, weights)
    for a, b in zip((*found, *found_slopes), (*want, *want_slopes), strict=True):
        torch.testing.assert_close(
            a.double(), b, rtol=2e-5, atol=2e-5 * float(b.detach().abs().max())
        )


def test_they_can_be_differentiated_twice(case):
    ours, formula, given = case
    given = [x[:6] if x.ndim > 1 else x for x in given]
    weights = [numbers(*y.shape, seed=7) for y in formula(*given)]

    def curvature(function, given):
        given = [x.clone().requires_grad_() for x in given]
        total = sum(
            (y * w.to(y.dtype)).sum() for y, w in zip(function(*given), weights, strict=True)
        )
        (slope,) = torch.autograd.grad(total, given[0], create_graph=True)
        return torch.autograd.grad(slope.square().sum(), given[0])[0]

    want = curvature(formula, [x.double() for x in given])
    found = curvature(ours, given)
    assert float(want.abs().max()) > 1e-3
    torch.testing.assert_close(found.double(), want, rtol=1e-4, atol=1e-4)


def test_a_row_does_not_depend_on_its_neighbours(case):
    ours, _, given = case
    if given[-1].ndim == 1:
        return  # its angles are those of the first rows
    some = [x[5:9] for x in given]
    for whole, part in zip(ours(*given), ours(*some), strict=True):
        assert torch.equal(whole[5:9], part)


def test_strides_do_not_matter():
    x = numbers(24, M).t()
    assert not x.is_contiguous()
    assert torch.equal(rms_norm(x), rms_norm(x.contiguous()))
    assert torch.equal(swiglu(x), swiglu(x.contiguous()))


def test_what_is_not_a_number_stays_so():
    x = numbers(4, 24)
    x[1, 3], x[2, 0] = torch.nan, torch.inf
    for y in (rms_norm(x), swiglu(x)):
        assert y[[0, 3]].isfinite().all()
        assert y[1].isnan().any()
