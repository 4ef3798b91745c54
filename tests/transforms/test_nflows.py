"""nflows' layers through the adapter: its own values, both ways, in the shapes of columns."""

import copy
import pickle
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

theirs = pytest.importorskip("nflows.transforms")

from nflows.nn.nets import ResidualNet  # noqa: E402

from densekit.transforms.columns import Stack  # noqa: E402
from densekit.transforms.linear import LULinear  # noqa: E402
from densekit.transforms.nflows import FromNflows, NaiveLinear  # noqa: E402

MASK = [1, 0, 1, 0]
TAILS = {"tails": "linear", "tail_bound": 3.0}


def net(n_context=None):
    return lambda n_in, n_out: ResidualNet(
        n_in, n_out, 8, context_features=n_context, num_blocks=1
    )


class Kernel(nn.Module):
    """A conditioner of images."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, 1)

    def forward(self, x, context=None):
        return self.conv(torch.tanh(x))


def multiscale():
    """Squeeze, convolve, split; then a second level, as in Glow."""
    made = theirs.MultiscaleCompositeTransform(2)
    first = theirs.CompositeTransform([theirs.SqueezeTransform(), theirs.OneByOneConvolution(4)])
    rest = made.add_transform(first, (4, 2, 2))
    made.add_transform(theirs.CompositeTransform([theirs.ActNorm(2)]), rest)
    return made


VECTORS = {
    "lu": lambda: theirs.LULinear(4, identity_init=False),
    "qr": lambda: theirs.QRLinear(4, 3),
    "svd": lambda: theirs.SVDLinear(4, 4, identity_init=False),
    "naive": lambda: theirs.NaiveLinear(4, orthogonal_initialization=False),
    "naive, rotated": lambda: NaiveLinear(4),
    "householder": lambda: theirs.HouseholderSequence(4, 3),
    "actnorm": lambda: theirs.ActNorm(4),
    "batchnorm": lambda: theirs.BatchNorm(4),
    "permutation": lambda: theirs.RandomPermutation(4),
    "affine autoregressive": lambda: theirs.MaskedAffineAutoregressiveTransform(4, 8),
    "spline autoregressive": lambda: (
        theirs.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(4, 8, num_bins=5, **TAILS)
    ),
    "quadratic autoregressive": lambda: theirs.MaskedPiecewiseQuadraticAutoregressiveTransform(
        4, 8, num_bins=5, **TAILS
    ),
    "affine coupling": lambda: theirs.AffineCouplingTransform(MASK, net()),
    "spline coupling": lambda: theirs.PiecewiseRationalQuadraticCouplingTransform(
        MASK, net(), num_bins=5, **TAILS
    ),
    "element-wise spline": lambda: theirs.PiecewiseRationalQuadraticCDF(4, num_bins=5, **TAILS),
    "leaky": lambda: theirs.LeakyReLU(0.5),
    "inverse": lambda: theirs.InverseTransform(theirs.LULinear(4, identity_init=False)),
    "composite": lambda: theirs.CompositeTransform(
        [theirs.LULinear(4), theirs.ReversePermutation(4), theirs.QRLinear(4, 2)]
    ),
}
IMAGES = {
    "squeeze": (lambda: theirs.SqueezeTransform(), (1, 4, 4)),
    "convolution": (lambda: theirs.OneByOneConvolution(4, identity_init=False), (4, 2, 2)),
    "actnorm of channels": (lambda: theirs.ActNorm(4), (4, 2, 2)),
    "coupling of channels": (
        lambda: theirs.AffineCouplingTransform([1, 0, 1, 0], Kernel),
        (4, 2, 2),
    ),
    "multi-scale": (multiscale, (1, 4, 4)),
}
EVERY = {**{k: (make, (4,)) for k, make in VECTORS.items()}, **IMAGES}


def made(name, dtype=torch.float64):
    """A layer of nflows with weights that a trained one might have, in the state that it scores in."""
    make, shape = EVERY[name]
    torch.manual_seed(0)
    layer = make().to(dtype).eval()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.3 * torch.randn_like(p))
        if name == "batchnorm":
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return layer, shape


def own_inverse(layer, z):
    """nflows' own way back, from a layer that the adapter has not had."""
    if type(layer) is theirs.NaiveLinear:
        # torch.solve is gone, so this is what it would be.
        return (z - layer.bias) @ layer.weight_inverse().T, -layer.logabsdet().expand(len(z))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return layer.inverse(z)


@pytest.mark.parametrize("name", EVERY)
def test_both_ways_have_the_values_of_nflows(name):
    layer, shape = made(name)
    untouched = copy.deepcopy(layer)
    ours = FromNflows(layer, shape)
    n_features = ours.n_features
    x = torch.randn(50, n_features, dtype=torch.float64)
    with torch.no_grad():
        z, ladj = untouched(x.reshape(50, *shape))
        back, back_ladj = own_inverse(untouched, z)
        found, found_ladj = ours.to_noise(x.T)
        data, data_ladj = ours.to_data(z.reshape(50, -1).T)
    same = {"atol": 1e-9, "rtol": 1e-9}
    torch.testing.assert_close(found.T, z.reshape(50, -1), **same)
    torch.testing.assert_close(found_ladj, ladj.double(), **same)
    torch.testing.assert_close(data.T, back.reshape(50, -1), **same)
    torch.testing.assert_close(data_ladj, back_ladj.double(), **same)
    torch.testing.assert_close(data.T, x, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("way", ["to_noise", "to_data"])
@pytest.mark.parametrize("name", EVERY)
def test_log_det_is_that_of_autodiff(name, way):
    layer, shape = made(name)
    transform = FromNflows(layer, shape)

    def run(row):
        return getattr(transform, way)(row[:, None])

    for row in torch.randn(3, transform.n_features, dtype=torch.float64):
        jacobian = torch.autograd.functional.jacobian(lambda v: run(v)[0][:, 0], row)
        expected = torch.linalg.slogdet(jacobian)[1]
        # nflows' leaky rectifier adds up in float32.
        near = 1e-6 if name == "leaky" else 1e-8
        torch.testing.assert_close(run(row)[1][0], expected, atol=near, rtol=near)


@pytest.mark.parametrize("name", EVERY)
def test_nothing_that_torch_has_deprecated_is_called(name, monkeypatch):
    """torch warns of it once in a process, so a warning that is an error would not tell."""

    def gone(*_, **__):
        raise AssertionError("a deprecated call")

    layer, shape = made(name)
    transform = FromNflows(layer, shape)
    for call in ("triangular_solve", "solve", "qr", "symeig", "lstsq", "cholesky", "svd"):
        monkeypatch.setattr(torch, call, gone, raising=False)
    z = torch.randn(transform.n_features, 5, dtype=torch.float64)
    transform.to_noise(z)
    transform.to_data(z)
    NaiveLinear(3)


def test_nflows_itself_stays_as_it_is():
    untouched = theirs.LULinear.__dict__.get("inverse_no_cache")
    FromNflows(theirs.LULinear(3), 3).to_data(torch.zeros(3, 1))
    assert theirs.LULinear.__dict__["inverse_no_cache"] is untouched
    assert type(theirs.LULinear(3)) is theirs.LULinear


def test_weights_that_change_change_the_values_though_nflows_would_cache_them():
    layer = theirs.LULinear(3, using_cache=True).eval()
    transform = FromNflows(layer, 3)
    z = torch.ones(3, 1)
    before = transform.to_noise(z)[0], transform.to_data(z)[0]
    with torch.no_grad():
        layer.upper_entries.add_(1.0)
    assert not torch.allclose(transform.to_noise(z)[0], before[0])
    assert not torch.allclose(transform.to_data(z)[0], before[1])


@pytest.mark.parametrize("image", [False, True])
def test_actnorm_sets_its_weights_in_place_and_from_the_first_rows_it_learns_from(image):
    layer = theirs.ActNorm(4)
    transform = FromNflows(layer, (4, 2, 2) if image else 4)
    assert not layer.initialized  # by finding out the shape of the noise
    kept = layer.log_scale.detach()  # as the running average of the weights holds them
    x = 5 + 3 * torch.randn(transform.n_features, 200)
    reference = theirs.ActNorm(4)
    z, _ = transform.train().to_noise(x)
    expected, _ = reference(x.T.reshape(200, *transform.shape))
    torch.testing.assert_close(z.T, expected.reshape(200, -1), atol=1e-5, rtol=1e-5)
    assert torch.equal(kept, layer.log_scale)
    assert kept.abs().min() > 0.5
    assert bool(layer.initialized)
    again, _ = transform.to_noise(x + 1)
    torch.testing.assert_close(
        again.mean(1) * 0 + 1 / 3, again.mean(1) - z.mean(1), atol=0.1, rtol=0
    )


@pytest.mark.parametrize("n", [1, 5])
def test_actnorm_of_rows_that_do_not_vary_stays_finite(n):
    transform = FromNflows(theirs.ActNorm(3), 3).train()
    z, ladj = transform.to_noise(torch.full((3, n), 7.0))
    assert torch.equal(z, torch.zeros(3, n))
    assert torch.equal(ladj, torch.zeros(n))


def test_context_reaches_nflows_by_row():
    torch.manual_seed(0)
    layer = theirs.AffineCouplingTransform(MASK, net(2)).double().eval()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.3 * torch.randn_like(p))
    transform = FromNflows(layer, 4, n_context=2)
    x, c = torch.randn(7, 4).double(), torch.randn(7, 2).double()
    expected, ladj = layer(x, c)
    given = transform.condition(c)
    torch.testing.assert_close(given.inv(x), expected)
    torch.testing.assert_close(given(expected), x)
    torch.testing.assert_close(given.log_abs_det_jacobian(expected, x), -ladj)
    assert not torch.allclose(transform.condition(c + 1).inv(x), expected)


@pytest.mark.parametrize("way", ["to_noise", "to_data"])
def test_a_way_that_nflows_lacks_is_named(way):
    class OneWay(theirs.Transform):
        def forward(self, inputs, context=None):
            return 2 * inputs, inputs.new_zeros(len(inputs))

    layer = OneWay() if way == "to_data" else theirs.InverseTransform(OneWay())
    name, lack = {"to_data": ("OneWay", "inverse"), "to_noise": ("InverseTransform", "forward")}[
        way
    ]
    with pytest.raises(NotImplementedError, match=f"{name} of nflows has no {lack}"):
        getattr(FromNflows(layer, 2), way)(torch.zeros(2, 1))


@pytest.mark.parametrize("name", ["lu", "naive", "convolution", "multi-scale"])
def test_copies_and_pickles_hold_what_was_changed(name):
    layer, shape = made(name)
    transform = FromNflows(layer, shape)
    z = torch.randn(transform.n_features, 5, dtype=torch.float64)
    transform.to_data(z)[0].sum().backward()
    for twin in (copy.deepcopy(transform), pickle.loads(pickle.dumps(transform))):
        assert torch.equal(twin.to_data(z)[0], transform.to_data(z)[0])
    fresh = FromNflows(EVERY[name][0]().double(), shape)
    fresh.load_state_dict(transform.state_dict())
    assert torch.equal(fresh.eval().to_data(z)[0], transform.to_data(z)[0])


def test_a_stack_of_both_libraries_goes_back_and_forth():
    stack = Stack(
        [FromNflows(made("qr")[0], 4), LULinear(4).double(), FromNflows(made("svd")[0], 4)]
    )
    x = torch.randn(4, 9).double()
    z, ladj = stack.to_noise(x)
    back, back_ladj = stack.to_data(z)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(back_ladj, -ladj)


def test_without_nflows_the_error_says_what_to_install():
    code = (
        "import sys; sys.modules['nflows'] = None\n"
        "import densekit; densekit.TransformFlow\n"
        "try: import densekit.transforms.nflows\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'densekit[nflows]'" in done.stdout
