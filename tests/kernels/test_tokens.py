"""The compiled loops over tokens against the formulas in float64: values, gradients, gradients of
gradients, several threads, strides."""

import pytest
import torch

from densekit.kernels.compiled import compiled
from densekit.nets import tokenwise
from densekit.nets.tokenwise import KERNEL, glu, rms_norm, rotary, swiglu

loops = pytest.importorskip("densekit.kernels.loops", reason="numba is not installed")

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
        lambda x, added: (glu(x, added),),
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


@pytest.mark.parametrize("threads", [1, 3])
def test_values_and_gradients_are_the_formulas(case, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(loops, "SHARE", 1)
    assert len(loops.split_work(M, M)) == threads
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

    def curvature(function, given, learned):
        given = [x.clone() for x in given]
        given[learned].requires_grad_()
        total = sum(
            (y * y * w.to(y.dtype)).sum() for y, w in zip(function(*given), weights, strict=True)
        )
        (slope,) = torch.autograd.grad(total, given[learned], create_graph=True)
        return torch.autograd.grad(slope.square().sum(), given[learned])[0]

    for learned in range(len(given)):
        want = curvature(formula, [x.double() for x in given], learned)
        found = curvature(ours, given, learned)
        assert float(want.abs().max()) > 1e-3
        size = float(want.abs().max())
        torch.testing.assert_close(found.double(), want, rtol=1e-4, atol=1e-5 * size)


@pytest.mark.parametrize("name", ["rms_norm", "swiglu", "glu", "glu alone"])
def test_a_row_does_not_depend_on_its_neighbors(name):
    ours, _, given = CASES[name]
    for whole, part in zip(ours(*given), ours(*(x[5:9] for x in given)), strict=True):
        assert torch.equal(whole[5:9], part)


def test_shapes_that_do_not_fit_are_the_formulas_business():
    x = numbers(3, 16, 2, 2)
    assert torch.equal(glu(x, x[:, :, :1, :1]), torch.nn.functional.glu(x + x[:, :, :1, :1], 1))
    cube = numbers(2, 3, 8)
    torch.testing.assert_close(rms_norm(cube), rms_norm(cube.view(6, 8)).view(2, 3, 8))
    torch.testing.assert_close(swiglu(cube), swiglu(cube.view(6, 8)).view(2, 3, 4))
    with pytest.raises(RuntimeError):
        swiglu(numbers(3, 5))
    with pytest.raises(RuntimeError):
        rotary(numbers(7, HEADS, 2 * HALF), tuple(t[:2] for t in turn()), torch.ones(GAINS))
    gains, strided = torch.arange(1.0, 4.0), torch.arange(1.0, 4.0).repeat_interleave(2)[::2]
    heads = numbers(7, HEADS, 2 * HALF)
    for a, b in zip(rotary(heads, turn(7), gains), rotary(heads, turn(7), strided), strict=True):
        assert torch.equal(a, b)


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
