"""Neighbouring transforms as one compiled pass: the numbers of plain torch in float64."""

import copy
import pickle

import pytest
import torch

from densekit.transforms.affine import AffineElement
from densekit.transforms.autoregressive import AutoregressiveTransform
from densekit.transforms.columns import Stack
from densekit.transforms.coupling import CouplingTransform, binary_split
from densekit.transforms.linear import Diagonal, LULinear, Reverse
from densekit.transforms.spline import SplineElement
from densekit.transforms.written import Written, together

pytest.importorskip("numba", reason="numba is not installed")

C = 3


def stack(kind, element, D, context, activation="silu", dropout=0.0):
    torch.manual_seed(0)
    parts = []
    for i in range(3):
        more = (C if context else 0,)
        if kind == "autoregressive" or (kind == "both" and i != 1):
            net = (element, (70, 70), *more, i % 2 == 1, activation, dropout)
            parts.append(AutoregressiveTransform(D, *net))
        else:
            net = (element, (32, 48), *more, activation, dropout)
            parts.append(CouplingTransform(binary_split(D, i), *net))
        parts.append(Diagonal(D) if i else LULinear(D))
    whole = Stack(parts)
    with torch.no_grad():
        for p in whole.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return whole


def columns(D, n, context):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(D, n, generator=g, requires_grad=True)
    return x, torch.randn(C, n, generator=g, requires_grad=True) if context else None


def gradients(flow, x, context, gz, gt):
    z, total = flow.to_noise(x, context)
    inputs = [x] if context is None else [x, context]
    tensors = [*inputs, *(p for p in flow.parameters() if p.numel())]
    return z, total, *torch.autograd.grad([z, total], tensors, [gz, gt])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("kind", ["autoregressive", "coupling", "both"])
@pytest.mark.parametrize(
    ("element", "allowed"),
    [(AffineElement(), 3e-5), (SplineElement(4), 3e-3)],
    ids=["affine", "spline"],
)
@pytest.mark.parametrize(("D", "n"), [(2, 1), (5, 300), (40, 64)])
def test_values_and_gradients_are_those_of_float64(D, n, element, allowed, kind, context, threads):
    # A number near a knot may fall on its other side in float32, where the slope's slope jumps.
    flow = stack(kind, element, D, context)
    x, c = columns(D, n, context)
    assert sum(isinstance(part, Written) for part in together(flow, flow._parts(), x)) == 1
    gz, gt = torch.randn(D, n), torch.randn(n)
    doubles = [None if t is None else t.detach().double().requires_grad_() for t in (x, c)]
    truth = gradients(copy.deepcopy(flow).double(), *doubles, gz.double(), gt.double())
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = gradients(flow, x, c, gz, gt)
        with torch.no_grad():
            quiet = flow.to_noise(x, c)
    finally:
        torch.set_num_threads(before)
    for i, (ours, theirs) in enumerate(zip(found, truth, strict=True)):
        scale = theirs.abs().max() + 1e-2
        limit = 3e-5 if i < 2 else allowed
        torch.testing.assert_close(ours.double() / scale, theirs / scale, atol=limit, rtol=0)
    for ours, theirs in zip(quiet, found, strict=False):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("kind", ["autoregressive", "coupling", "both"])
@pytest.mark.parametrize("element", [AffineElement(), SplineElement(4)], ids=["affine", "spline"])
@pytest.mark.parametrize(("D", "n"), [(2, 1), (5, 1300), (40, 64)])
def test_the_way_to_data_is_that_of_float64(D, n, element, kind, context, threads):
    flow = stack(kind, element, D, context)
    z, c = (None if t is None else t.detach() for t in columns(D, n, context))
    doubles = [None if t is None else t.double() for t in (z, c)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.no_grad():
            x, ladj = flow.to_data(z, c)
            wanted = copy.deepcopy(flow).double().to_data(*doubles)
            back, there = flow.to_noise(x, c)
    finally:
        torch.set_num_threads(before)
    assert "data" in next(iter(together(flow, flow._parts(), z)))._tapes
    for ours, theirs in zip((x, ladj), wanted, strict=True):
        scale = theirs.abs().max() + 1e-2
        torch.testing.assert_close(ours.double() / scale, theirs / scale, atol=1e-4, rtol=0)
    torch.testing.assert_close(back, z, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(there, -ladj, atol=1e-2, rtol=1e-3)


def test_draws_with_gradients_are_the_same_draws():
    flow = stack("both", SplineElement(4), 5, True)
    z, c = columns(5, 30, True)
    x, ladj = flow.to_data(z, c)
    assert x.requires_grad
    with torch.no_grad():
        quiet = flow.to_data(z, c)
    torch.testing.assert_close(quiet[0], x, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(quiet[1], ladj, atol=1e-3, rtol=1e-4)


def test_new_weights_are_seen_and_old_values_stay():
    flow = stack("both", AffineElement(), 4, False)
    x, _ = columns(4, 20, False)
    with torch.no_grad():
        first = flow.to_noise(x)[0]
        kept = first.clone()
        for p in flow.parameters():
            p.mul_(1.5)
        second = flow.to_noise(x)[0]
    assert torch.equal(first, kept)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(
        second.double(), flow.double().to_noise(x.double())[0], atol=1e-5, rtol=1e-5
    )


def test_two_passes_may_be_open_and_one_be_taken_back_twice():
    flow = stack("both", AffineElement(), 4, False)
    x, _ = columns(4, 200, False)
    one, other = flow.to_noise(x)[1].sum(), flow.to_noise(2 * x)[1].sum()
    first = torch.autograd.grad(one, x, retain_graph=True)[0]
    torch.autograd.grad(other, x)
    for _ in range(3):
        flow.to_noise(3 * x)[1].sum().backward()
    assert torch.equal(first, torch.autograd.grad(one, x)[0])


def test_second_derivatives_are_those_of_plain_torch():
    flow = stack("both", AffineElement(), 4, True)
    x, c = columns(4, 20, True)
    found = []
    for way in (flow, copy.deepcopy(flow).double()):
        a, b = (t.detach().to(next(way.parameters()).dtype).requires_grad_() for t in (x, c))
        z, total = way.to_noise(a, b)
        first = torch.autograd.grad(z.sin().sum() + total.sum(), (a, b), create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), (a, b)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-3, rtol=1e-3)


def test_weights_may_be_exchanged_for_others():
    flow = stack("both", AffineElement(), 4, False)
    x, _ = columns(4, 20, False)
    others = {name: (0.5 * p.detach()).requires_grad_() for name, p in flow.named_parameters()}

    class Call(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.flow = flow

        def forward(self, x):
            return self.flow.to_noise(x)

    z, _ = torch.func.functional_call(Call(), {f"flow.{k}": p for k, p in others.items()}, (x,))
    found = torch.autograd.grad(z.sum(), [p for p in others.values() if p.numel()])
    assert any(g.abs().max() > 0 for g in found)
    half = copy.deepcopy(flow)
    with torch.no_grad():
        for p in half.parameters():
            p.mul_(0.5)
    torch.testing.assert_close(z, half.to_noise(x)[0])


def test_what_cannot_be_written_stands_between():
    flow = Stack([Diagonal(3), Diagonal(3), Reverse(3), Diagonal(3)])
    kinds = [isinstance(part, Written) for part in together(flow, flow._parts(), torch.ones(3, 2))]
    assert kinds == [True, False, True]


def test_dropout_is_not_written_while_it_drops():
    flow = stack("coupling", AffineElement(), 4, False, dropout=0.5)
    x, _ = columns(4, 20, False)
    assert sum(isinstance(part, Written) for part in together(flow, flow._parts(), x)) == 3
    assert not torch.allclose(flow.to_noise(x)[0], flow.to_noise(x)[0])
    flow.eval()
    assert len(list(together(flow, flow._parts(), x))) == 1


def test_a_used_stack_is_copied_and_pickled():
    flow = stack("both", SplineElement(4), 4, False)
    x, _ = columns(4, 20, False)
    z = flow.to_noise(x)[0].detach()
    for other in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert torch.equal(other.to_noise(x)[0], z)
        with torch.no_grad():
            for p in other.parameters():
                p.mul_(0.5)
        assert torch.equal(flow.to_noise(x)[0], z)
