"""Neighboring transforms as one compiled pass: the numbers of plain torch in float64."""

import copy
import pickle

import pytest
import torch

from densekit.transforms.affine import AffineElement
from densekit.transforms.autoregressive import AutoregressiveTransform
from densekit.transforms.columns import Stack
from densekit.transforms.coupling import CouplingTransform, binary_split
from densekit.transforms.linear import Diagonal, LULinear, Reverse
from densekit.transforms.recorded import RecordedRun, group_recordable
from densekit.transforms.spline import SplineElement

machine = pytest.importorskip("densekit.kernels.machine", reason="numba is not installed")

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
    assert (
        sum(isinstance(part, RecordedRun) for part in group_recordable(flow, flow._parts(), x))
        == 1
    )
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
    assert next(iter(group_recordable(flow, flow._parts(), z)))._tapes
    for ours, theirs in zip((x, ladj), wanted, strict=True):
        scale = theirs.abs().max() + 1e-2
        torch.testing.assert_close(ours.double() / scale, theirs / scale, atol=1e-4, rtol=0)
    torch.testing.assert_close(back, z, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(there, -ladj, atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize("n", [1, 5, 7, 10, 33])
@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("kind", ["autoregressive", "coupling", "both"])
@pytest.mark.parametrize("element", [AffineElement(), SplineElement(4)], ids=["affine", "spline"])
def test_with_gradients_and_without_the_bits_are_the_same(element, kind, context, n):
    flow = stack(kind, element, 5, context)
    given = columns(5, n, context)
    noise, ladj = flow.to_noise(*given)
    assert noise.requires_grad
    with torch.no_grad():
        quiet = flow.to_noise(*given)
    assert torch.equal(quiet[0], noise)
    assert torch.equal(quiet[1], ladj)


def test_operands_lie_alike_with_gradients_and_without(monkeypatch):
    """What some processors' products round by: the places of operands within a line of the cache."""
    products, run = [], machine.run

    def spy(ops, first, stop, at, *rest):
        pushes = ops[first:stop][ops[first:stop, 0] == machine.PUSH]
        products.append(at[pushes[:, [1, 6, 7]]] % 64)  # the matrix, what it multiplies, the sum
        run(ops, first, stop, at, *rest)

    monkeypatch.setattr(machine, "run", spy)
    flow, given = stack("both", SplineElement(4), 5, True), columns(5, 7, True)
    flow.to_noise(*given)
    half = len(products)
    with torch.no_grad():
        flow.to_noise(*given)
    assert sum(map(len, products)) > 20
    for loud, quiet in zip(products[:half], products[half:], strict=True):
        assert (loud == quiet).all()


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
    kinds = [
        isinstance(part, RecordedRun)
        for part in group_recordable(flow, flow._parts(), torch.ones(3, 2))
    ]
    assert kinds == [True, False, True]


def test_dropout_is_not_written_while_it_drops():
    flow = stack("coupling", AffineElement(), 4, False, dropout=0.5)
    x, _ = columns(4, 20, False)
    assert (
        sum(isinstance(part, RecordedRun) for part in group_recordable(flow, flow._parts(), x))
        == 3
    )
    assert not torch.allclose(flow.to_noise(x)[0], flow.to_noise(x)[0])
    flow.eval()
    assert len(list(group_recordable(flow, flow._parts(), x))) == 1


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


def is_written(flow, x):
    return any(isinstance(part, RecordedRun) for part in group_recordable(flow, flow._parts(), x))


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_another_number_of_features_is_an_error(rows):
    flow = stack("autoregressive", AffineElement(), 3, False)
    flow.to_noise(torch.randn(3, 5))
    for way in (flow.to_noise, lambda x: flow.to_data(x.detach())):
        with pytest.raises((ValueError, RuntimeError)), torch.no_grad():
            way(torch.randn(rows, 5))


def test_another_context_is_an_error_and_one_for_all_is_for_all():
    flow = stack("both", AffineElement(), 4, True)
    x = torch.randn(4, 6)
    for shape in ((C - 1, 6), (C + 1, 6), (C, 5)):
        with pytest.raises((ValueError, RuntimeError)):
            flow.to_noise(x, torch.randn(shape))
    one = torch.randn(C, 1)
    whole = flow.to_noise(x, one.expand(C, 6).contiguous())
    for ours, theirs in zip(flow.to_noise(x, one), whole, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_layer_that_is_used_twice_learns_from_both_uses():
    torch.manual_seed(0)
    twice = Diagonal(3)
    flow = Stack([twice, Diagonal(3), twice])
    with torch.no_grad():
        for p in flow.parameters():
            p.normal_()
    x = torch.randn(3, 20)
    assert not is_written(flow, x)
    found = gradients(flow, x.requires_grad_(), None, torch.ones(3, 20), torch.ones(20))
    big = copy.deepcopy(flow).double()
    wide = x.detach().double().requires_grad_()
    truth = gradients(big, wide, None, *(torch.ones(s).double() for s in ((3, 20), 20)))
    for ours, theirs in zip(found, truth, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


def test_a_part_that_is_exchanged_is_seen():
    flow, x = stack("both", AffineElement(), 4, False), torch.randn(4, 20)
    flow.to_noise(x)
    other = stack("both", AffineElement(), 4, False)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(2)
    for change in (
        lambda: setattr(flow.transforms[0], "net", other.transforms[0].net),
        lambda: flow.transforms.__setitem__(2, other.transforms[2]),
    ):
        change()
        wanted = copy.deepcopy(flow).double().to_noise(x.double())[0]
        torch.testing.assert_close(flow.to_noise(x)[0].double(), wanted, atol=1e-4, rtol=1e-4)


def test_parametrized_weights_and_ways_of_ones_own_are_plain():
    class Half(torch.nn.Module):
        def forward(self, w):
            return w / 2

    class Shifted(Diagonal):
        def to_noise(self, x, context=None):
            z, ladj = super().to_noise(x, context)
            return z + 1, ladj

    flow, x = stack("coupling", AffineElement(), 4, False), torch.randn(4, 20)
    flow.to_noise(x)
    layer = flow.transforms[0].net
    torch.nn.utils.parametrize.register_parametrization(layer, "first", Half())
    plain = copy.deepcopy(flow).double().to_noise(x.double())[0]
    torch.testing.assert_close(flow.to_noise(x)[0].double(), plain, atol=1e-5, rtol=1e-5)
    assert torch.equal(Stack([Shifted(2)]).to_noise(torch.zeros(2, 3))[0], torch.ones(2, 3))


@pytest.mark.parametrize("size", [1e19, 1e20, 1e30])
def test_gradients_far_out_are_finite(size):
    flow = stack("both", AffineElement(), 4, False)
    x = (size * torch.tensor([[1.0], [-1.0], [1.0], [1.0]])).requires_grad_()
    _, total = flow.to_noise(x)
    found = torch.autograd.grad(total.sum(), [x, *(p for p in flow.parameters() if p.numel())])
    assert all(torch.isfinite(g).all() for g in found)


@pytest.mark.parametrize("size", [1e30, 3e38])
@pytest.mark.parametrize("element", [AffineElement(), SplineElement(4)], ids=["affine", "spline"])
def test_no_float_gives_nan(element, size):
    flow = Stack([LULinear(4), AutoregressiveTransform(4, element, (8, 8))])
    torch.manual_seed(0)
    with torch.no_grad():
        for p in flow.parameters():
            p.normal_()
        z, total = flow.to_noise(size * torch.tensor([[1.0], [-1.0], [1.0], [1.0]]))
    assert not z.isnan().any()
    assert not total.isnan().any()


def test_a_context_that_comes_later_is_seen():
    flow, x, c = stack("both", AffineElement(), 4, True), torch.randn(4, 6), torch.randn(C, 6)
    big = copy.deepcopy(flow).double()
    with torch.no_grad():
        for context in (None, c):
            wide = None if context is None else context.double()
            for way in ("to_noise", "to_data"):
                ours, truth = getattr(flow, way)(x, context), getattr(big, way)(x.double(), wide)
                torch.testing.assert_close(ours[0].double(), truth[0], atol=1e-4, rtol=1e-4)
