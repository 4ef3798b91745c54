"""Transforms compared with those of nflows for the same weights: values, log-determinants and gradients.

Weights are copied into the networks of nflows if these can be made equal: a masked or plain
network with one hidden layer (nflows has no activation before the last layer of its deeper ones). Inputs
go in as asinh, which is the input of densekit's networks. ``test_known_values`` has whole flows.
"""

import math

import pytest
import torch
from torch import nn

nflows = pytest.importorskip("nflows.transforms")

from nflows.nn.nets import MLP  # noqa: E402
from nflows.transforms.made import MADE  # noqa: E402
from nflows.transforms.splines import unconstrained_rational_quadratic_spline  # noqa: E402

from densekit.kernels.limits import MIN_SLOPE  # noqa: E402
from densekit.nets.masked import MaskedNet  # noqa: E402
from densekit.transforms.affine import AffineElement  # noqa: E402
from densekit.transforms.autoregressive import AutoregressiveTransform  # noqa: E402
from densekit.transforms.coupling import CouplingTransform, binary_split  # noqa: E402
from densekit.transforms.linear import Diagonal, LULinear, Reverse  # noqa: E402
from densekit.transforms.nflows import FromNflows  # noqa: E402
from densekit.transforms.spline import SplineElement  # noqa: E402

UNIT_SLOPE = math.log(math.expm1(1 - MIN_SLOPE))
"""What nflows' raw slopes have more than ours, which are 1 at 0."""
N_BINS, BOUND = 5, 3.0
ELEMENTS = {"affine": AffineElement(), "spline": SplineElement(N_BINS, BOUND)}
SAME = {"atol": 1e-9, "rtol": 1e-9}


def spread(module, seed=0):
    """Weights that were drawn, so that no part of the map is the identity."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.double().parameters():
            p.copy_(0.6 * torch.randn(p.shape, generator=g, dtype=p.dtype))
    return module


def rows(n, n_features, seed=1):
    g = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(n, n_features, generator=g, dtype=torch.float64)


# The spline alone.


def spline_values(which, x, raw, n_bins, bound, way):
    if which == "ours":
        return getattr(SplineElement(n_bins, bound), way)(x, raw)
    widths, heights, slopes = (
        t.movedim(0, -1) for t in raw.split([n_bins, n_bins, n_bins - 1], 0)
    )
    return unconstrained_rational_quadratic_spline(
        x,
        widths,
        heights,
        slopes + UNIT_SLOPE,
        inverse=way == "inverse",
        tails="linear",
        tail_bound=bound,
    )


@pytest.mark.parametrize("way", ["forward", "inverse"])
@pytest.mark.parametrize("n_bins", [2, 3, 8, 40])
def test_gradients_of_the_spline_are_those_of_nflows(n_bins, way):
    """Ours are written out by hand, nflows' are autodiff's."""
    g = torch.Generator().manual_seed(n_bins)
    x = 2 * torch.randn(2, 200, generator=g, dtype=torch.float64)
    raw = torch.randn(3 * n_bins - 1, 2, 200, generator=g, dtype=torch.float64)
    weight = torch.randn(2, *x.shape, generator=g, dtype=torch.float64)
    found = []
    for which in ("ours", "nflows"):
        a, b = x.clone().requires_grad_(), raw.clone().requires_grad_()
        y, log_slope = spline_values(which, a, b, n_bins, 3.0, way)
        (weight[0] * y + weight[1] * log_slope).sum().backward()
        found.append((y, log_slope, a.grad, b.grad))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-7)
    assert found[0][3].abs().flatten(1).sum(1).min() > 0


@pytest.mark.parametrize("way", ["forward", "inverse"])
@pytest.mark.parametrize("bound", [0.5, 3.0, 20.0])
def test_the_spline_is_that_of_nflows_at_its_ends_and_beyond(bound, way):
    at = bound * torch.tensor([-1e6, -1.0, -1 + 1e-9, -0.3, 0.0, 0.7, 1 - 1e-9, 1.0, 1.5, 1e6])
    x = at.double()[None]
    g = torch.Generator().manual_seed(0)
    raw = 2 * torch.randn(3 * 8 - 1, 1, 1, generator=g, dtype=torch.float64).expand(-1, *x.shape)
    ours, theirs = (spline_values(w, x, raw, 8, bound, way) for w in ("ours", "nflows"))
    torch.testing.assert_close(ours[0], theirs[0], atol=1e-8, rtol=1e-8)
    # At the very end nflows is inside the box, where the slope is only nearly 1.
    inside = at.abs() != bound
    torch.testing.assert_close(ours[1][:, inside], theirs[1][:, inside], atol=1e-8, rtol=1e-8)


# Networks: ours, with the weights of ours in nflows'.


class Reads(nn.Module):
    """A network of nflows that reads asinh of its input, and whose output is put as nflows wants it."""

    hidden_features = 1  # nflows divides widths and heights by its root

    def __init__(self, net, after=lambda out: out):
        super().__init__()
        self.net, self.after = net, after

    def forward(self, x, context=None):
        return self.after(self.net(torch.asinh(x)))


def made_of(net, n_features):
    """nflows' MADE with its own masks and the weights of densekit's masked network of one layer.

    Both give a hidden unit a degree; densekit sorts units by degree, and nflows cycles through degrees.
    """
    (width,) = (len(b) for b in net.bias)
    made = MADE(
        n_features,
        width,
        num_blocks=0,
        output_multiplier=net.n_params,
        use_residual_blocks=False,
        activation=nn.functional.silu,
    ).double()
    unit = made.initial_layer.degrees.argsort(stable=True)
    with torch.no_grad():
        made.initial_layer.weight[unit] = net.weights[0]
        made.initial_layer.bias[unit] = net.bias[0][:, 0]
        last = net.last.transpose(0, 1).reshape(-1, width)
        made.final_layer.weight[:, unit] = last
        made.final_layer.bias.copy_(net.last_bias.transpose(0, 1).reshape(-1))
    return made


def mlp_of(net, n_in):
    """nflows' perceptron with the weights of our residual network of one layer."""
    n_out, width = net.last.shape
    mlp = MLP([n_in], [n_out], [width], activation=nn.functional.silu).double()
    with torch.no_grad():
        mlp._input_layer.weight.copy_(net.first)
        mlp._input_layer.bias.copy_(net.bias[0][:, 0])
        mlp._output_layer.weight.copy_(net.last)
        mlp._output_layer.bias.copy_(net.last_bias[:, 0])
    return mlp


@pytest.mark.parametrize(("n_features", "width"), [(2, 5), (3, 8), (5, 12), (8, 7)])
def test_the_masked_network_is_the_made_of_nflows(n_features, width):
    """Widths are multiples of D - 1: then both have as many units of each degree."""
    net = spread(MaskedNet(n_features, 3, (width,)))
    x = rows(20, n_features)
    theirs = made_of(net, n_features)(torch.asinh(x)).view(20, n_features, 3)
    torch.testing.assert_close(net(x.T), theirs.permute(2, 1, 0), **SAME)


def autoregressive_pair(kind, n_features, reverse=False):
    """Our transform, and nflows' with a MADE of the same weights."""
    element, n_params = ELEMENTS[kind], ELEMENTS[kind].n_params
    ours = AutoregressiveTransform(n_features, element, (4 * (n_features - 1),), reverse=reverse)
    spread(ours)
    net = ours.net
    if reverse:
        # The same network with its features the other way round.
        net = MaskedNet(n_features, n_params, (4 * (n_features - 1),)).double()
        state = ours.net.state_dict()
        state["weights.0"] = state["weights.0"].flip(1)
        state["last"], state["last_bias"] = state["last"].flip(1), state["last_bias"].flip(1)
        net.load_state_dict(state)
    made = made_of(net, n_features)

    def after(out):
        out = out.view(len(out), n_features, n_params)
        if kind == "spline":
            shift = torch.zeros(n_params).double()
            shift[2 * N_BINS :] = UNIT_SLOPE
            return (out + shift).flatten(1)
        # Theirs has the scale softplus(u) + 0.001, ours exp(tanh(r)).
        scale = (out[..., 0].tanh().exp() - 1e-3).expm1().log()
        return torch.stack([scale, out[..., 1]], -1).flatten(1)

    if kind == "spline":
        theirs = nflows.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
            n_features, 4, num_bins=N_BINS, tails="linear", tail_bound=BOUND
        )
    else:
        theirs = nflows.MaskedAffineAutoregressiveTransform(n_features, 4)
    theirs.autoregressive_net = Reads(made, after)
    if reverse:
        turn = nflows.ReversePermutation(n_features)
        theirs = nflows.CompositeTransform([turn, theirs, turn])
    return ours, FromNflows(theirs.double(), n_features)


def coupling_pair(kind, n_features, layer):
    """Our transform, and nflows' with a perceptron of the same weights."""
    element, n_params = ELEMENTS[kind], ELEMENTS[kind].n_params
    kept = binary_split(n_features, layer)
    ours = spread(CouplingTransform(kept, element, (16,)))
    n_moved = len(ours.moved)
    if kind == "affine":
        # Theirs has the scale sigmoid(u + 2) + 0.001, so ours must be less than that can be.
        with torch.no_grad():
            ours.net.last[:n_moved] *= 0.03
            ours.net.last_bias[:n_moved] = -0.8
    mlp = mlp_of(ours.net, len(ours.kept))

    def after(out):
        out = out.view(len(out), n_params, n_moved)
        if kind == "spline":
            shift = torch.zeros(n_params, 1).double()
            shift[2 * N_BINS :] = UNIT_SLOPE
            return (out + shift).transpose(1, 2).flatten(1)
        scale = (out[:, 0].tanh().exp() - 1e-3).logit() - 2
        return torch.cat([out[:, 1], scale], 1)

    mask = (~kept).int()
    if kind == "spline":
        theirs = nflows.PiecewiseRationalQuadraticCouplingTransform(
            mask, lambda *_: Reads(mlp, after), num_bins=N_BINS, tails="linear", tail_bound=BOUND
        )
    else:
        theirs = nflows.AffineCouplingTransform(mask, lambda *_: Reads(mlp, after))
    return ours, FromNflows(theirs.double(), n_features)


def lu_pair(n_features):
    ours = spread(LULinear(n_features))
    theirs = nflows.LULinear(n_features).double()
    with torch.no_grad():
        theirs.lower_entries.copy_(ours.lower[theirs.lower_indices])
        theirs.upper_entries.copy_(ours.upper[theirs.upper_indices])
        # Their diagonal is softplus(u) + 0.001, ours exp(s).
        theirs.unconstrained_upper_diag.copy_((ours.log_diagonal.exp() - 1e-3).expm1().log())
        theirs.bias.copy_(ours.shift[:, 0])
    return ours, FromNflows(theirs, n_features)


def diagonal_pair(n_features):
    ours = spread(Diagonal(n_features))
    theirs = nflows.ActNorm(n_features).double()
    with torch.no_grad():
        theirs.log_scale.copy_(ours.log_scale[:, 0])
        theirs.shift.copy_(ours.shift[:, 0])
    return ours, FromNflows(theirs.eval(), n_features)


PAIRS = {
    "affine autoregressive": lambda d: autoregressive_pair("affine", d),
    "affine autoregressive, reversed": lambda d: autoregressive_pair("affine", d, reverse=True),
    "spline autoregressive": lambda d: autoregressive_pair("spline", d),
    "spline autoregressive, reversed": lambda d: autoregressive_pair("spline", d, reverse=True),
    "affine coupling": lambda d: coupling_pair("affine", d, 0),
    "affine coupling of the others": lambda d: coupling_pair("affine", d, 3),
    "spline coupling": lambda d: coupling_pair("spline", d, 0),
    "spline coupling of the others": lambda d: coupling_pair("spline", d, 3),
    "lu": lu_pair,
    "diagonal": diagonal_pair,
    "reverse": lambda d: (Reverse(d), FromNflows(nflows.ReversePermutation(d), d)),
}


@pytest.mark.parametrize("n_features", [2, 5])
@pytest.mark.parametrize("name", PAIRS)
def test_both_ways_are_those_of_nflows_with_the_same_weights(name, n_features):
    ours, theirs = PAIRS[name](n_features)
    x = rows(100, n_features)
    x[0], x[1, 0] = 30.0, -4.0  # beyond a spline's bound
    with torch.no_grad():
        z, ladj = ours.to_noise(x.T)
        expected, expected_ladj = theirs.to_noise(x.T)
        torch.testing.assert_close(z, expected, **SAME)
        torch.testing.assert_close(ladj, expected_ladj, **SAME)
        assert (z - x.T).abs().mean() > 0.1
        back, back_ladj = ours.to_data(x.T)
        expected, expected_ladj = theirs.to_data(x.T)
        torch.testing.assert_close(back, expected, atol=1e-7, rtol=1e-7)
        torch.testing.assert_close(back_ladj, expected_ladj, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("way", ["to_noise", "to_data"])
@pytest.mark.parametrize("name", [name for name in PAIRS if name != "reverse"])
def test_gradients_in_the_value_are_those_of_nflows_with_the_same_weights(name, way):
    ours, theirs = PAIRS[name](4)
    x, weight = rows(30, 4), rows(30, 5, seed=2)
    found = []
    for transform in (ours, theirs):
        leaf = x.clone().requires_grad_()
        y, ladj = getattr(transform, way)(leaf.T)
        ((weight[:, :4] * y.T).sum() + (weight[:, 4] * ladj).sum()).backward()
        found.append(leaf.grad)
    torch.testing.assert_close(*found, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("kind", ELEMENTS)
def test_gradients_in_the_weights_are_those_of_nflows(kind):
    """What training follows, by the networks of either library."""
    ours, theirs = autoregressive_pair(kind, 4)
    for transform in (ours, theirs):
        z, ladj = transform.to_noise(rows(50, 4).T)
        (0.5 * (z * z).sum(0) - ladj).mean().backward()
    made, net = theirs.transform.autoregressive_net.net, ours.net
    unit = made.initial_layer.degrees.argsort(stable=True)
    first = made.initial_layer.weight.grad[unit]
    torch.testing.assert_close(net.weights[0].grad, first, atol=1e-9, rtol=1e-7)
    last = made.final_layer.weight.grad[:, unit].view(4, net.n_params, -1).transpose(0, 1)
    torch.testing.assert_close(net.last.grad, last, atol=1e-9, rtol=1e-7)
    assert net.last.grad.abs().sum() > 0


class Ours(nn.Module):
    """Our masked network, with its context, where nflows has its own."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, context=None):
        raw = self.net(x.T, context.T).permute(2, 1, 0).clone()
        raw[..., 2 * N_BINS :] += UNIT_SLOPE
        return raw.flatten(1)


def test_the_context_has_the_place_that_nflows_gives_it():
    ours = spread(AutoregressiveTransform(3, ELEMENTS["spline"], (16, 16), n_context=2))
    made = nflows.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
        3, 4, num_bins=N_BINS, tails="linear", tail_bound=BOUND
    )
    made.autoregressive_net = Ours(ours.net)
    theirs = FromNflows(made.double(), 3, n_context=2)
    x, c = rows(40, 3), rows(40, 2, seed=3)
    for way in ("to_noise", "to_data"):
        found, expected = (getattr(t, way)(x.T, c.T) for t in (ours, theirs))
        torch.testing.assert_close(found[0], expected[0], atol=1e-7, rtol=1e-7)
        torch.testing.assert_close(found[1], expected[1], atol=1e-7, rtol=1e-7)
