"""The written-out backward pass against autograd's own of the formula."""

import copy
import itertools

import pytest
import torch

from densekit.nets.chain import Plan, _plain, chain
from densekit.nets.masked import MaskedNet
from densekit.nets.mlp import ACTIVATIONS, activation_layer
from densekit.nets.residual import ResidualNet
from densekit.nets.triangular import stairs

N = 7
SHAPES = {"as wide": (5, 140, 140, 3), "of all widths": (5, 140, 6, 9, 3), "one layer": (5, 3)}


def problem(sizes, masked=True, wide_bias=False, activation="silu"):
    torch.manual_seed(0)
    weights, biases, masks, steps = [], [], [], []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        reads = [1 + r * (a - 1) // max(1, b - 1) for r in range(b)]
        mask = (torch.arange(a) < torch.tensor(reads)[:, None]).double()
        masks.append(mask if masked else None)
        steps.append(stairs(reads) if masked else None)
        weights.append(torch.randn(b, a, dtype=torch.float64, requires_grad=True))
        shape = (b, N if wide_bias and i == 0 else 1)
        biases.append(torch.randn(shape, dtype=torch.float64, requires_grad=True))
    x = torch.randn(sizes[0], N, dtype=torch.float64, requires_grad=True)
    return x, weights, biases, Plan(activation, activation_layer(activation), False, masks, steps)


def both(x, weights, biases, plan):
    parameters = [p for layer in zip(weights, biases, strict=True) for p in layer]
    return chain(x, weights, biases, plan), _plain(x, parameters, plan), [x, *parameters]


@pytest.mark.parametrize("wide_bias", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES)
def test_values_and_gradients_are_those_of_the_formula(sizes, masked, wide_bias):
    ours, theirs, tensors = both(*problem(sizes, masked, wide_bias))
    assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    g = torch.randn_like(ours).t().contiguous().t()  # as it comes from rows
    for a, b in zip(
        torch.autograd.grad(ours, tensors, g), torch.autograd.grad(theirs, tensors, g), strict=True
    ):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_by_differences(activation):
    x, weights, biases, plan = problem((3, 4, 4, 2), activation=activation)
    parameters = [p for layer in zip(weights, biases, strict=True) for p in layer]

    def f(x, *parameters):
        return chain(x, parameters[::2], parameters[1::2], plan)

    assert torch.autograd.gradcheck(f, (x, *parameters))


def test_second_derivatives_are_right():
    ours, theirs, (x, w, *_) = both(*problem(SHAPES["as wide"]))
    found = []
    for y in (ours, theirs):
        first = torch.autograd.grad(y.sin().sum(), (x, w), create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), (x, w)))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-9)


def test_only_what_is_wanted_is_differentiated():
    x, weights, biases, plan = problem(SHAPES["as wide"])
    y = chain(x.detach(), weights, [b.detach() for b in biases], plan)
    y.sum().backward()
    assert x.grad is None
    assert all(b.grad is None for b in biases)
    assert all(w.grad is not None for w in weights)


def test_without_gradients_the_values_are_the_same():
    given = problem(SHAPES["of all widths"])
    with torch.no_grad():
        quiet = chain(*given)
    assert torch.equal(quiet, chain(*given))
    assert not quiet.requires_grad


@pytest.mark.parametrize("net", [MaskedNet(5, 2, (130, 130)), ResidualNet(5, 2, (16, 16))])
def test_function_transforms_see_the_same_jacobian(net):
    x = torch.randn(5, 1)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    ours = torch.autograd.functional.jacobian(lambda v: net(v).flatten(), x)[..., 0]
    theirs = torch.func.jacrev(lambda v: net(v).flatten())(x)[..., 0]
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_dropout_drops_and_is_refused_a_second_time():
    torch.manual_seed(0)
    net = ResidualNet(3, 2, (64, 64), dropout=0.5)
    torch.nn.init.normal_(net.last)
    x = torch.randn(3, 8, requires_grad=True)
    y, other = net(x), net(x)
    assert not torch.allclose(y, other)
    (slope,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    near = torch.autograd.grad(other.sum(), x)[0]
    assert not torch.allclose(slope, near)
    with pytest.raises(RuntimeError, match="dropout has no second"):
        torch.autograd.grad(y.sum(), x, create_graph=True)
    net.eval()
    assert torch.equal(net(x), net(x))
    assert torch.autograd.grad(net(x).sum(), x, create_graph=True)[0].requires_grad


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("n", [1, 7, 3000])
@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("wide_bias", [False, True])
@pytest.mark.parametrize("sizes", SHAPES.values(), ids=SHAPES)
def test_compiled_passes_are_those_of_the_formula(sizes, wide_bias, activation, n, threads):
    pytest.importorskip("numba", reason="numba is not installed")
    x, weights, biases, plan = problem(sizes, True, False, activation)
    x = torch.randn(sizes[0], n, dtype=torch.float64, requires_grad=True)
    if wide_bias:
        biases[0] = torch.randn(sizes[1], n, dtype=torch.float64, requires_grad=True)
    parameters = [p for layer in zip(weights, biases, strict=True) for p in layer]
    truth, tensors = _plain(x, parameters, plan), [x, *parameters]
    g = torch.randn_like(truth)
    want = torch.autograd.grad(truth, tensors, g)
    single = [t.detach().float().requires_grad_() for t in tensors]
    masks = [m.float() for m in plan.masks]
    plan = Plan(plan.name, plan.activation, False, masks, plan.steps)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        y = chain(single[0], single[1::2], single[2::2], plan)
        found = torch.autograd.grad(y, single, g.float())
    finally:
        torch.set_num_threads(before)
    for ours, theirs in zip((y, *found), (truth, *want), strict=True):
        scale = theirs.abs().max() + 1e-3
        torch.testing.assert_close(ours.double() / scale, theirs / scale, atol=3e-5, rtol=0)


def test_weights_with_gaps_and_repeated_ones_get_their_gradients():
    net, x = ResidualNet(3, 4, (8, 8)), torch.randn(3, 20)
    torch.nn.init.normal_(net.last)
    for base, of in (
        (torch.randn(8, 4), lambda b: b[:, :3]),
        (torch.randn(1, 3), lambda b: b.expand(8, 3)),
    ):
        found = []
        for dtype in (torch.float32, torch.float64):
            leaf = base.to(dtype).requires_grad_()
            others = {k: p.detach().to(dtype) for k, p in net.named_parameters()}
            y = torch.func.functional_call(net, others | {"first": of(leaf)}, (x.to(dtype),))
            found.append(torch.autograd.grad(y.sum(), leaf)[0])
        torch.testing.assert_close(found[0].double(), found[1], atol=1e-4, rtol=1e-4)


def test_a_weight_that_is_used_twice_learns_from_both_uses():
    net, x = ResidualNet(3, 4, (8, 8, 8)), torch.randn(3, 20)
    torch.nn.init.normal_(net.last)
    net.hidden[1] = net.hidden[0]
    big = copy.deepcopy(net).double()
    found = [
        torch.autograd.grad(way(rows).sum(), way.hidden[0])[0]
        for way, rows in ((net, x), (big, x.double()))
    ]
    torch.testing.assert_close(found[0].double(), found[1], atol=1e-4, rtol=1e-4)
