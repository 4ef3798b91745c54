"""Every model's score compared with an independent value: a closed form, SciPy, scikit-learn, nflows,
Pyro, a calculation by hand, or a sum over all possible values.

The models are fitted only to learn locations and scales of columns. Then means, weights and
networks are set to known values, which determine the score in the units of X. Bounds are compared
with the likelihood.
"""

import importlib
import itertools
import math
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from pyro import distributions as dist
from pyro.distributions import transforms
from scipy import stats
from sklearn import mixture, neighbors
from torch import nn

from densekit import (
    VAE,
    Gaussian,
    GaussianMixture,
    KernelDensity,
    NeuralSplineFlow,
    NGram,
    NoiseConditionalScore,
    PlanarFlow,
    RadialFlow,
    RealNVP,
    SylvesterFlow,
    TransformerLanguageModel,
)
from densekit.kernels.limits import MIN_SLOPE
from densekit.transforms.linear import Diagonal, LULinear

MEAN = np.array([0.3, -0.5])
COVARIANCE = np.array([[1.3, -0.4], [-0.4, 0.6]])
"""Of standardized columns: set, not learned."""


def rows(n=60, n_columns=2, seed=0):
    """Columns of very different location and scale."""
    scale = 10.0 ** np.arange(n_columns)
    return np.random.default_rng(seed).normal(size=(n, n_columns)) * scale + 3 * scale


def units(X):
    """Scale and offset of standardized columns."""
    return X.std(0), X.mean(0)


# Classical models.


def test_gaussian_with_set_parameters_is_scipys():
    X = rows()
    scale, loc = units(X)
    est = Gaussian().fit(X)
    est.event_mean_, est.event_covariance_ = MEAN, COVARIANCE
    truth = stats.multivariate_normal(loc + scale * MEAN, COVARIANCE * np.outer(scale, scale))
    np.testing.assert_allclose(est.score_samples(X), truth.logpdf(X), rtol=1e-10)


def test_gaussian_of_a_positive_column_is_scipys_lognormal():
    X = np.exp(rows(n_columns=1) / 2)
    est = Gaussian(support={"x0": "positive"}, shrinkage=0.0).fit(X)
    scale, loc = units(np.log(X[:, 0]))
    truth = stats.lognorm(scale, scale=np.exp(loc)).logpdf(X[:, 0])
    np.testing.assert_allclose(est.score_samples(X), truth, rtol=1e-8)


def test_gaussian_of_an_interval_is_the_probit_normal():
    X = np.random.default_rng(0).beta(2, 3, size=(80, 1)) * 10 - 4
    est = Gaussian(support={"x0": ("interval", -4.0, 6.0)}, shrinkage=0.0).fit(X)
    place = (X[:, 0] + 4) / 10
    v = stats.norm.ppf(place)
    # With v the normal quantile of the place, dv/dx = 1 / (10 phi(v)).
    truth = stats.norm(v.mean(), v.std()).logpdf(v) - stats.norm.logpdf(v) - math.log(10)
    np.testing.assert_allclose(est.score_samples(X), truth, rtol=1e-8)


@pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
def test_mixture_with_set_parameters_is_scikit_learns(kind):
    X = rows()
    scale, loc = units(X)
    est = GaussianMixture(n_components=2, covariance_type=kind).fit(X)
    theirs = mixture.GaussianMixture(2, covariance_type=kind).fit((X - loc) / scale)
    est.weights_ = theirs.weights_ = np.array([0.3, 0.7])
    est.event_means_ = theirs.means_ = np.array([[-1.0, 0.2], [0.5, 0.1]])
    covariances = np.stack([COVARIANCE, np.eye(2) / 2])
    est.event_covariances_ = theirs.covariances_ = {
        "full": covariances,
        "tied": covariances[0],
        "diag": np.array([[1.0, 0.5], [0.2, 2.0]]),
        "spherical": np.array([0.5, 2.0]),
    }[kind]
    precisions = {"full": np.linalg.inv, "tied": np.linalg.inv}.get(kind, np.reciprocal)
    theirs.precisions_cholesky_ = {
        "full": lambda p: np.linalg.cholesky(p),
        "tied": lambda p: np.linalg.cholesky(p),
    }.get(kind, np.sqrt)(precisions(est.event_covariances_))
    truth = theirs.score_samples((X - loc) / scale) - np.log(scale).sum()
    np.testing.assert_allclose(est.score_samples(X), truth, rtol=1e-10)


@pytest.mark.parametrize("kernel", ["gaussian", "epanechnikov", "tophat"])
def test_kernel_density_with_set_points_is_scikit_learns(kernel):
    X = rows()
    scale, loc = units(X)
    est = KernelDensity(kernel=kernel, bandwidth=1.0).fit(X)
    est.points_, est.bandwidth_ = np.array([[0.0, 0.0], [1.0, -1.0], [0.5, 2.0]]), 1.7
    theirs = neighbors.KernelDensity(kernel=kernel, bandwidth=1.7).fit(est.points_)
    with np.errstate(divide="ignore"):
        truth = theirs.score_samples((X - loc) / scale) - np.log(scale).sum()
    assert np.isfinite(truth).any()
    np.testing.assert_allclose(est.score_samples(X), truth, atol=1e-9)


# Flows: our conditioner's numbers through the transforms of nflows and Pyro.


class Numbers(nn.Module):
    """Our network where nflows and Pyro have theirs: rows in, (n, features, parameters) out."""

    hidden_features = 1  # nflows divides by its root

    def __init__(self, layer):
        super().__init__()
        self.net, self.n_params = layer.net, layer.element.n_params

    def forward(self, x, context=None):
        return self.net(x.T, None).view(self.n_params, -1, len(x)).permute(2, 1, 0)


class OfNflows(Numbers):
    """In the parametrization of nflows, whose inner slopes are the softplus without a shift."""

    def forward(self, x, context=None):
        raw = super().forward(x).clone()
        if self.n_params > 2:
            n_bins = (self.n_params + 1) // 3
            raw[..., 2 * n_bins :] += unit_slope()
            return raw.flatten(1)
        # The scale is sigmoid(u + 2) + 0.001; ours is exp(tanh(r)).
        u = (raw[..., 0].tanh().exp() - 1e-3).logit() - 2
        return torch.cat([raw[..., 1], u], 1)


class OfPyro(Numbers):
    """As Pyro takes it: a tuple."""

    def forward(self, x):
        raw = super().forward(x)
        if self.n_params == 2:
            return raw[..., 1], raw[..., 0].tanh()
        n_bins = (self.n_params + 1) // 3
        w, h, d = raw.split([n_bins, n_bins, n_bins - 1], -1)
        slope = MIN_SLOPE + nn.functional.softplus(d + unit_slope())
        return w.flatten(1), h.flatten(1), slope.expm1().log().flatten(1)


def unit_slope():
    return math.log(math.expm1(1 - MIN_SLOPE))


def nflows_layer(layer):
    """A layer of densekit, data to noise, as a transform of nflows."""
    from nflows.transforms import autoregressive, coupling, standard

    if isinstance(layer, Diagonal):
        shift, scale = layer.shift[:, 0], layer.log_scale[:, 0].exp()
        return standard.PointwiseAffineTransform(shift, scale)
    spline = {"tails": "linear", "tail_bound": 5.0}
    if not hasattr(layer, "kept"):
        n_bins = layer.element.n_bins
        made = autoregressive.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
            layer.n_features, 4, num_bins=n_bins, **spline
        )
        made.autoregressive_net = OfNflows(layer)
        return made
    moved = torch.zeros(layer.n_features)
    moved[layer.moved] = 1
    if layer.element.n_params == 2:
        return coupling.AffineCouplingTransform(moved, lambda *_: OfNflows(layer))
    return coupling.PiecewiseRationalQuadraticCouplingTransform(
        moved, lambda *_: OfNflows(layer), num_bins=layer.element.n_bins, **spline
    )


def pyro_layers(layer):
    """A layer of densekit, data to noise, as transforms of Pyro."""
    if isinstance(layer, Diagonal):
        return [
            transforms.AffineTransform(layer.shift[:, 0], layer.log_scale[:, 0].exp(), event_dim=1)
        ]
    spline = {"bound": 5.0, "order": "quadratic"}
    if not hasattr(layer, "kept"):
        n_bins = layer.element.n_bins
        return [
            transforms.SplineAutoregressive(
                layer.n_features, OfPyro(layer), count_bins=n_bins, **spline
            )
        ]
    # Pyro's couplings keep the first features.
    order = torch.cat([layer.kept, layer.moved])
    n_kept = len(layer.kept)
    if layer.element.n_params == 2:
        made = transforms.AffineCoupling(n_kept, OfPyro(layer))
    else:
        made = transforms.SplineCoupling(
            layer.n_features, n_kept, OfPyro(layer), layer.element.n_bins, **spline, identity=True
        )
    return [transforms.Permute(order), made, transforms.Permute(order.argsort())]


FLOWS = {
    "spline coupling": NeuralSplineFlow(coupling=True, n_bins=4, linear=False),
    "spline autoregressive": NeuralSplineFlow(n_bins=4, linear=False),
    "affine coupling": RealNVP(),
}


def set_flow(name, *, shrinking=False):
    """A flow of three columns whose weights were drawn and not learned, and rows to score."""
    X = rows(n_columns=3)
    small = {"n_transforms": 2, "hidden_sizes": (8,), "max_steps": 1, "device": "cpu"}
    flow = FLOWS[name].set_params(**small, dtype="float64", random_state=0).fit(X)
    flow.module_.frame = None  # The formula is of the transform alone.
    generator = torch.Generator().manual_seed(1)
    for p in flow.module_.parameters():
        p.copy_(0.7 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    for layer in flow.module_.transform.transforms:
        if shrinking and not isinstance(layer, Diagonal):
            # nflows' scales are less than 1.001.
            layer.net.last.mul_(0.01)
            layer.net.last_bias[: len(layer.moved)] = -0.9
    return flow, X


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_with_set_weights_is_that_of_nflows_both_ways(name):
    flows = pytest.importorskip("nflows.flows")
    from nflows import distributions
    from nflows.transforms import CompositeTransform

    flow, X = set_flow(name, shrinking=name == "affine coupling")
    layers = list(flow.module_.transform.transforms)
    to_noise = CompositeTransform([nflows_layer(layer) for layer in layers])
    theirs = flows.Flow(to_noise, distributions.StandardNormal([3])).double()
    scale, loc = units(X)
    with torch.no_grad():
        truth = theirs.log_prob(torch.tensor((X - loc) / scale)).numpy() - np.log(scale).sum()
        noise = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double()
        data, ladj = to_noise.inverse(noise)
    np.testing.assert_allclose(flow.score_samples(X), truth, rtol=1e-8)
    ours, our_ladj = flow.module_.transform.to_data(noise.T)
    torch.testing.assert_close(ours.T, data, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(our_ladj, ladj, atol=1e-8, rtol=1e-8)
    assert (ours.T - noise).abs().mean() > 0.1  # The flow moves what it is given.


@pytest.mark.parametrize("name", FLOWS)
def test_a_flow_with_set_weights_is_that_of_pyro_both_ways(name, monkeypatch):
    # Pyro takes its least slope off the 1 at the ends, which ours (and the paper's) keep.
    home = importlib.import_module("pyro.distributions.transforms.spline")
    spline = partial(home._monotonic_rational_spline, min_derivative=0.0)
    monkeypatch.setattr(home, "_monotonic_rational_spline", spline)
    flow, X = set_flow(name)
    to_noise = [t for layer in flow.module_.transform.transforms for t in pyro_layers(layer)]
    to_data = [t.inv for t in reversed(to_noise)]
    base = dist.Normal(torch.zeros(3).double(), 1.0).to_event(1)
    scale, loc = units(X)
    with torch.no_grad():
        z = torch.tensor((X - loc) / scale)
        truth = dist.TransformedDistribution(base, to_data).log_prob(z).numpy()
        noise = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double()
        data = noise
        for t in to_data:
            data = t(data)
    np.testing.assert_allclose(flow.score_samples(X), truth - np.log(scale).sum(), rtol=1e-6)
    torch.testing.assert_close(flow.module_.transform(noise), data, atol=1e-6, rtol=1e-6)


def one_way(layer, x):
    """A planar or radial layer's noise and log-determinant at rows x, by Pyro, which has no way back;
    an affine layer's by its matrix."""
    if isinstance(layer, Diagonal | LULinear):
        zero = torch.zeros(3, 1, dtype=x.dtype)
        shift = layer.to_noise(zero)[0]
        matrix = layer.to_noise(torch.eye(3, dtype=x.dtype))[0] - shift
        return x @ matrix.T + shift[:, 0], torch.linalg.slogdet(matrix)[1].expand(len(x))
    numbers = [t[..., 0] for t in layer.weights()]
    if len(numbers) == 4:
        w, u_hat, b, c = numbers
        made = transforms.Planar(3).double()
        # Pyro's u, of which it makes u_hat.
        u = u_hat + ((1 + c).expm1().log() - c) * w / (w @ w)
        values = {"w": w, "u": u, "bias": b[None]}
    else:
        x0, alpha, beta = numbers
        made = transforms.Radial(3).double()
        values = {
            "x0": x0,
            "alpha_prime": alpha.expm1().log()[None],
            "beta_prime": (alpha + beta).expm1().log()[None],
        }
    made.load_state_dict(values)
    z = [made(row) for row in x]
    ladj = [made.log_abs_det_jacobian(row, made(row)) for row in x]
    return torch.stack(z), torch.stack(ladj).reshape(-1)


@pytest.mark.parametrize("kind", [PlanarFlow, RadialFlow])
def test_a_flow_that_pyro_has_one_way_is_pyros_there_and_undoes_it(kind):
    X = rows(n_columns=3)
    flow = kind(n_transforms=3, max_steps=1, device="cpu", dtype="float64", random_state=0).fit(X)
    flow.module_.frame = None
    generator = torch.Generator().manual_seed(1)
    for p in flow.module_.parameters():
        p.copy_(0.7 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    scale, loc = units(X)
    with torch.no_grad():
        z, truth = torch.tensor((X - loc) / scale), -np.log(scale).sum()
        for layer in flow.module_.transform.transforms:
            z, ladj = one_way(layer, z)
            truth = truth + ladj.numpy()
        back = flow.module_.transform(z).numpy() * scale + loc
    truth = truth + stats.norm.logpdf(z).sum(1)
    np.testing.assert_allclose(flow.score_samples(X), truth, rtol=1e-9)
    np.testing.assert_allclose(back, X, rtol=1e-7)


def test_a_sylvester_flow_is_the_paper_with_matrices_and_autodiff():
    """Pyro's log-determinant of Sylvester layers is not that of its map (1.9.2) unless Q is 1."""
    X = rows(n_columns=3)
    flow = SylvesterFlow(
        n_transforms=2, n_units=2, max_steps=1, device="cpu", dtype="float64", random_state=0
    ).fit(X)
    flow.module_.frame = None
    generator = torch.Generator().manual_seed(1)
    for p in flow.module_.parameters():
        p.copy_(0.7 * torch.randn(p.shape, generator=generator, dtype=p.dtype))

    def to_noise(x):
        for layer in flow.module_.transform.transforms:
            if isinstance(layer, Diagonal | LULinear):
                x = layer.to_noise(x[:, None])[0][:, 0]
                continue
            Q = torch.eye(3, dtype=x.dtype)
            for v in layer.reflections.vectors:
                Q = (torch.eye(3) - 2 * torch.outer(v, v) / (v @ v)) @ Q
            R, inner, b, _ = (t[..., 0] for t in layer.weights())
            x = x + Q[:, :2] @ R @ torch.tanh(inner @ Q[:, :2].T @ x + b)
        return x

    scale, loc = units(X)
    z = torch.tensor((X - loc) / scale)
    truth = np.array(
        [
            stats.norm.logpdf(to_noise(row)).sum()
            + torch.linalg.slogdet(torch.autograd.functional.jacobian(to_noise, row))[1]
            for row in z
        ]
    )
    np.testing.assert_allclose(flow.score_samples(X), truth - np.log(scale).sum(), rtol=1e-9)


# Text.


def test_kneser_ney_of_five_words_worked_out_by_hand():
    model = NGram(order=2, dtype="float64").fit(["a", "a", "a", "ab", "b"])
    # Pairs, with ^ before and $ behind each word: ^a 4, a$ 3, b$ 2, ^b 1, ab 1. So n1 = 2, n2 = n3 =
    # n4 = 1 and n1 / (n1 + 2 n2) = 1/2: D(1) = 1 - 2/2 * 1/2, D(2) = 2 - 3/2, D(3+) = 3 - 4/2.
    d1, d2, d3 = Fraction(1, 2), Fraction(1, 2), Fraction(1)
    np.testing.assert_allclose(model.discounts_[1], [float(d) for d in (d1, d2, d3)])
    # Different symbols before a: 1 (^), before b: 2 (^, a), before $: 2 (a, b). None has three, so
    # half of each is discounted: 1/2 + 1 + 1 of 5 is shared by a, b, $ and the unknown symbol.
    shared = Fraction(5, 2) / 5 / 4
    one = {"a": Fraction(1, 10) + shared, "b": Fraction(1, 5) + shared, "?": shared}
    one["$"] = one["b"]
    assert sum(one.values()) == 1
    # After ^: (4 - D3) / 5 and (1 - D1) / 5, and (D3 + D1) / 5 handed down; alike after a and b.
    after = {
        "^": ({"a": (4 - d3) / 5, "b": (1 - d1) / 5}, (d3 + d1) / 5),
        "a": ({"$": (3 - d3) / 4, "b": (1 - d1) / 4}, (d3 + d1) / 4),
        "b": ({"$": (2 - d2) / 2}, d2 / 2),
        "?": ({}, Fraction(1)),
    }
    p = {h: {w: own.get(w, 0) + left * one[w] for w in one} for h, (own, left) in after.items()}
    assert p["^"]["a"] == Fraction(267, 400)
    assert p["a"]["$"] == Fraction(199, 320)
    assert p["b"]["$"] == Fraction(133, 160)
    assert all(sum(row.values()) == 1 for row in p.values())
    words = ["", "a", "b", "ab", "ba", "aab", "abb"]
    by_hand = [math.prod(p[h][w] for h, w in itertools.pairwise(f"^{word}$")) for word in words]
    np.testing.assert_allclose(np.exp(model.score_samples(words)), np.array(by_hand, float))
    # An unknown character is one of all that Unicode has, but for a and b.
    unknown = p["^"]["?"] * p["?"]["$"] / (0x110000 - 0x800 - 2)
    np.testing.assert_allclose(np.exp(model.score_samples(["!"])), float(unknown))


def untrained(kind):
    """A language model of the letters a and b, strings of three at most."""
    words = ["ab", "ba", "bab", "a", "abb"]
    if kind == "NGram":
        return NGram(order=3, max_length=3, dtype="float64").fit(words)
    model = TransformerLanguageModel(
        width=8, n_layers=2, n_heads=2, max_length=3, max_steps=2, random_state=0, dtype="float64"
    ).fit(words)
    generator = torch.Generator().manual_seed(0)
    for p in model.module_.parameters():
        p.copy_(0.5 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


def every_mass(model):
    """The mass of each string, by brute force; "?" stands for any character but a and b."""
    words = ["".join(w) for n in range(4) for w in itertools.product("ab?", repeat=n)]
    others = math.log(0x110000 - 0x800 - 2)
    more = np.array([word.count("?") * others for word in words])
    return dict(zip(words, np.exp(model.score_samples(words) + more), strict=True))


@pytest.mark.parametrize("kind", ["NGram", "TransformerLanguageModel"])
def test_the_chain_rule_closes_over_every_string_there_is(kind):
    model = untrained(kind)
    mass = every_mass(model)
    assert sum(mass.values()) == pytest.approx(1, rel=1e-9)
    begins = {w: sum(m for v, m in mass.items() if v.startswith(w)) for w in mass}
    # What the model says of the next symbol is a ratio of such sums.
    law = model._distribution(None).model
    for prefix in ("", "a", "b", "ab", "?b"):
        ids = model.codec_.encode([prefix])[0][:, : len(prefix)]
        p = law.start(torch.cat([torch.ones(1, 1, dtype=ids.dtype), ids], 1))[0].softmax(1)[0]
        end, unknown, a, b = (float(v) for v in p[1:])
        for symbol, expected in (("a", a), ("b", b), ("?", unknown)):
            assert expected == pytest.approx(begins[prefix + symbol] / begins[prefix], rel=1e-9)
        assert end == pytest.approx(mass[prefix] / begins[prefix], rel=1e-9)
    # So is what a string scores after a prompt.
    for prompt, tail in (("a", "b"), ("b", ""), ("ab", "a"), ("", "ba")):
        given = math.exp(model.score_samples([tail], context=[prompt])[0])
        assert given == pytest.approx(mass[prompt + tail] / begins[prompt], rel=1e-9)


# Bounds and estimates, where the likelihood is known.


def test_byte_pairs_bound_the_sum_over_all_ways_to_spell_a_string():
    pytest.importorskip("tokenizers")
    model = NGram(order=2, tokens="bpe", vocab_size=262, max_length=6, dtype="float64").fit(
        ["abab", "ab", "ba"] * 5
    )
    assert model.density_kind_ == "lower_bound"
    symbols = {model.codec_.decode(torch.tensor([[i, 1]]))[0]: i for i in range(3, 262)}
    assert {"a", "b", "ab"} <= set(symbols)
    for word in ("a", "ab", "abab", "bab"):
        spelled = [
            [*(symbols[part] for part in parts), 1]
            for parts in splits(word)
            if all(part in symbols for part in parts)
        ]
        law = model._distribution(None)
        truth = sum(float(law.log_prob(torch.tensor([ids])).exp()) for ids in spelled)
        bound = math.exp(model.score_samples([word])[0])
        assert bound <= truth * (1 + 1e-9)
        assert (bound < truth * (1 - 1e-9)) == (len(spelled) > 1)


def splits(word):
    """Every way to cut a word into pieces."""
    for cuts in itertools.product([False, True], repeat=len(word) - 1):
        at = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(word)]
        yield [word[a:b] for a, b in itertools.pairwise(at)]


LOADINGS = torch.tensor([[0.9, 0.2], [0.5, -0.6], [-0.3, 0.8]], dtype=torch.float64)
NOISE = 0.5


@pytest.fixture(scope="module")
def principal():
    """A VAE with linear networks, that is probabilistic PCA, and the log-density of its rows."""
    X = rows(40, n_columns=3)
    est = VAE(latent_dim=2, hidden_sizes=(), max_steps=1, dtype="float64", random_state=0).fit(X)
    decoder, encoder = (net.layers[0] for net in (est.module_.decoder, est.module_.encoder))
    for layer in (decoder, encoder):
        layer.weight.zero_()
        layer.bias.zero_()
    # Scales are min_scale + softplus(raw + log(e^0.1 - 1)); Student's law with so many degrees of
    # freedom is a normal to six digits.
    est.module_.head.raw_df.fill_(math.log(1e7))
    decoder.weight[:3] = LOADINGS
    decoder.bias[3:] = math.log(math.expm1(NOISE - 0.01)) - math.log(math.expm1(0.1))
    # The right mean, and a guide that knows of no correlation and is a tenth too narrow.
    precision = torch.eye(2, dtype=torch.float64) + LOADINGS.T @ LOADINGS / NOISE**2
    encoder.weight[:2] = torch.linalg.solve(precision, LOADINGS.T) / NOISE**2
    encoder.bias[2:] = math.log(math.expm1(0.9 * precision.diagonal().rsqrt().mean() - 1e-4))
    scale, loc = units(X)
    covariance = (LOADINGS @ LOADINGS.T + NOISE**2 * torch.eye(3)).numpy()
    truth = stats.multivariate_normal(loc, covariance * np.outer(scale, scale)).logpdf(X)
    return est, X, truth, precision


def test_a_linear_vae_bounds_the_likelihood_of_probabilistic_pca(principal):
    est, X, truth, _ = principal
    generator = torch.Generator().manual_seed(0)
    gaps = []
    for n_draws in (2, 32, 20_000):
        est.module_.noise = torch.randn(n_draws, 2, generator=generator, dtype=torch.float64)
        est.set_params(n_importance=n_draws)
        score, error = est.score_samples(X, return_std=True)
        assert (score < truth + 4 * error + 1e-4).all()
        gaps.append((truth - score).mean())
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[0] > 0.02
    np.testing.assert_allclose(score, truth, atol=0.02)


def test_one_draw_of_a_linear_vae_loses_the_divergence_of_its_guide(principal):
    """E log w = log p(x) - KL(q, p(z given x)), both normals of the same mean."""
    est, X, truth, precision = principal
    typed, ladj = est.codec_.encode(X)
    _, spread = est.module_.encode(typed.double(), None)
    guide = dist.MultivariateNormal(torch.zeros(2).double(), spread[0].square().diag())
    exact = dist.MultivariateNormal(torch.zeros(2).double(), precision_matrix=precision)
    lost = torch.distributions.kl_divergence(guide, exact).item()
    assert lost > 0.03
    noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(1)).double()
    noise = torch.cat([noise, -noise])
    one = est.module_(None).log_weights(typed.double(), noise).mean(0) + ladj
    assert (truth - one.numpy()).mean() == pytest.approx(lost, abs=0.01)


def test_a_dequantized_gaussian_bounds_the_mass_of_its_cells():
    """The mass of an integer row is the integral of the density over its unit cell."""
    X = np.random.default_rng(0).poisson([2.0, 7.0], size=(200, 2))
    est = Gaussian(dequantization_draws=2).fit(X)
    assert est.density_kind_ == "lower_bound"
    est.event_mean_, est.event_covariance_ = MEAN, COVARIANCE
    scale = np.array([c.scale for c in est.schema_.columns])
    loc = np.array([c.loc + c.origin for c in est.schema_.columns])
    law = stats.multivariate_normal(loc + scale * MEAN, COVARIANCE * np.outer(scale, scale))
    cells = np.unique(X, axis=0).astype(float)
    mass = np.log([law.cdf(cell + 1, lower_limit=cell) for cell in cells])
    few, error = est.score_samples(cells.astype(int), return_std=True)
    assert (few < mass + 4 * error + 1e-6).all()
    est.dequantization_draws = 4096
    many, error = est.score_samples(cells.astype(int), return_std=True)
    assert few.mean() < mass.mean() - 0.01
    assert (np.abs(many - mass) < 4 * error + 1e-6).all()
    np.testing.assert_allclose(many, mass, atol=0.02)


def test_a_dequantized_category_has_the_mass_between_two_quantiles():
    X = np.random.default_rng(0).choice(["a", "b", "c"], p=[0.2, 0.5, 0.3], size=(300, 1))
    est = Gaussian(dequantization_draws=4096).fit(X)
    est.event_mean_, est.event_covariance_ = np.array([0.4]), np.array([[0.49]])
    counts = np.array([(level == X).sum() for level in "abc"]) + 1
    edges = stats.norm.ppf(np.r_[0, counts.cumsum() / counts.sum()])
    mass = np.diff(stats.norm(0.4, 0.7).cdf(edges))
    score = est.score_samples(np.array([["a"], ["b"], ["c"]]))
    np.testing.assert_allclose(np.exp(score), mass, rtol=5e-3)


def test_the_ode_of_a_gaussians_exact_score_is_that_gaussian():
    X = rows() @ np.array([[1.0, 0.3], [0.0, 1.0]])
    est = NoiseConditionalScore(
        hidden_sizes=(8,), max_steps=1, sigma_min=0.1, sigma_max=1e5, n_ode_steps=400,
        dtype="float64", random_state=0,
    ).fit(X)  # fmt: skip
    mean, covariance = torch.tensor(MEAN), torch.tensor(COVARIANCE)

    def score(x, sigma, context):
        noisy = covariance + sigma[0] ** 2 * torch.eye(2, dtype=x.dtype)
        return torch.linalg.solve(noisy, (mean - x).T).T

    est.module_.score = score
    # Whitened rows have this Gaussian, with the least noise in it; the frame and the scales of the
    # columns take it to the rows of X.
    frame, (scale, loc) = est.module_.frame, units(X)
    assert not torch.equal(frame.color, torch.eye(2).double())
    back = frame.color.numpy() * scale
    law = stats.multivariate_normal(
        loc + scale * frame.inverse(mean).numpy(), back.T @ (COVARIANCE + 0.01 * np.eye(2)) @ back
    )
    found, error = est.score_samples(X, return_std=True)
    # The greatest level leaves the mean over it of the data, and the grid its own error.
    np.testing.assert_allclose(found, law.logpdf(X), atol=2e-4)
    assert (np.abs(found - law.logpdf(X)) < 3 * error + 1e-4).all()
