"""An estimator of any list of transforms: of every library, and in both ways."""

import copy
import functools
import pickle

import numpy as np
import pytest
import torch
from nflows import transforms as nflows
from pyro.distributions import transforms as pyros
from scipy import stats
from sklearn.base import clone
from torch import nn
from torch.distributions import transforms as torchs

import densekit
from densekit.flows.transform_flow import TransformFlow, spline_transforms
from densekit.transforms.affine import AffineElement
from densekit.transforms.autoregressive import AutoregressiveTransform
from densekit.transforms.linear import LULinear
from densekit.transforms.nflows import FromNflows, NaiveLinear

SMALL = {"max_steps": 300, "random_state": 0, "device": "cpu"}


def rng(seed=0):
    return np.random.default_rng(seed)


def mixing(d):
    return np.triu(np.ones((d, d))) * 0.8


def gaussian(n, d, seed=0):
    """Correlated columns, and their true mean log-density at other rows."""
    return rng(seed).normal(size=(n, d)) @ mixing(d)


def truth(X):
    d = X.shape[1]
    return stats.multivariate_normal(np.zeros(d), mixing(d).T @ mixing(d)).logpdf(X).mean()


def mixed(d, n_context):
    """At least one transform of each library, conditional if there is a context."""
    return [
        pyros.affine_autoregressive(d, [16]).inv,
        pyros.permute(d),
        torchs.AffineTransform(nn.Parameter(torch.zeros(d)), 1.0),
        AutoregressiveTransform(d, AffineElement(), (16,), n_context),
        nflows.LULinear(d),
        nflows.MaskedAffineAutoregressiveTransform(d, 16, context_features=n_context or None),
    ]


def squeezed(d):
    """Image layers of nflows on flattened images of 4 x 4."""
    whole = nflows.MultiscaleCompositeTransform(2)
    rest = whole.add_transform(
        nflows.CompositeTransform(
            [nflows.SqueezeTransform(), nflows.ActNorm(4), nflows.OneByOneConvolution(4)]
        ),
        (4, 2, 2),
    )
    whole.add_transform(nflows.OneByOneConvolution(2), rest)
    return [FromNflows(whole, (1, 4, 4))]


NFLOWS = {
    "lu": nflows.LULinear,
    "qr": lambda d: nflows.QRLinear(d, 4),
    "svd": lambda d: nflows.SVDLinear(d, 4),
    "naive": NaiveLinear,
    "householder": lambda d: nflows.CompositeTransform(
        [nflows.HouseholderSequence(d, 4), nflows.ActNorm(d), nflows.HouseholderSequence(d, 4)]
    ),
    "autoregressive": lambda d: nflows.MaskedAffineAutoregressiveTransform(d, 16),
    "batchnorm": lambda d: nflows.CompositeTransform([nflows.LULinear(d), nflows.BatchNorm(d)]),
}


@pytest.mark.parametrize("name", NFLOWS)
def test_a_gaussian_is_learned_by_each_linear_layer_of_nflows(name):
    X, new = gaussian(1500, 3), gaussian(2000, 3, seed=1)
    # Householder's are rotations, about scales: of three columns not every matrix.
    near = 0.5 if name == "householder" else 0.05
    flow = TransformFlow(
        transforms=lambda d: [NFLOWS[name](d)], learning_rate=0.03, **SMALL, patience=None
    ).fit(X)
    assert flow.density_kind_ == "exact"
    assert truth(new) - near < flow.score(new) < truth(new) + 0.01
    assert flow.score(new) > stats.norm(X.mean(0), X.std(0)).logpdf(new).sum(1).mean() + 0.3
    # And draws are of that density, which is normal: three columns lose 3/2 of the score at the mode on
    # average (a spread of draws off by 3.3 % moves this by 0.1), and the normal with the moments of the
    # draws scores new rows as the flow does.
    drawn = flow.sample(4000, random_state=0)
    mode = flow.score_samples(drawn.mean(0, keepdims=True))[0]
    assert mode - flow.score(drawn) == pytest.approx(1.5, abs=0.1)
    law = stats.multivariate_normal(drawn.mean(0), np.cov(drawn.T))
    # Conditionals of a masked network are not quite linear.
    near = 0.06 if name == "autoregressive" else 0.01
    assert law.logpdf(new).mean() == pytest.approx(flow.score(new), abs=near)


def test_image_layers_of_nflows_learn_images_in_columns():
    common = rng().normal(size=(600, 1, 1))
    images = 3 + common + 0.3 * rng(1).normal(size=(600, 4, 4))
    X = images.reshape(600, 16)
    flow = TransformFlow(transforms=squeezed, learning_rate=0.02, **SMALL).fit(X)
    independent = stats.norm(X.mean(0), X.std(0)).logpdf(X).sum(1).mean()
    assert flow.score(X) > independent + 3
    drawn = flow.sample(2000, random_state=0)
    np.testing.assert_allclose(drawn.mean(0), X.mean(0), atol=0.2)
    np.testing.assert_allclose(drawn.std(0), X.std(0), atol=0.2)
    again = pickle.loads(pickle.dumps(flow.set_params(transforms=None)))
    with pytest.warns(UserWarning, match="transforms=None was set after fit"):
        np.testing.assert_array_equal(again.score_samples(X), flow.score_samples(X))


def test_libraries_mix_and_the_order_is_noise_to_data():
    """An affine transform at the end of the list is the last on the way to the data."""
    X = gaussian(1500, 3)
    flow = TransformFlow(transforms=mixed, **SMALL).fit(X)
    new = gaussian(2000, 3, seed=1)
    assert truth(new) - 0.15 < flow.score(new) < truth(new) + 0.01
    fixed = TransformFlow(
        transforms=lambda d: [
            torchs.AffineTransform(nn.Parameter(torch.full((d,), 1.0)), 1.0),
            torchs.AffineTransform(0.0, 4.0),
        ],
        max_steps=1,
        learning_rate=1e-9,
        device="cpu",
    ).fit(X)
    fixed.module_.frame = None  # the Gaussian that it begins as
    scale, loc = X.std(0), X.mean(0)
    expected = stats.norm(loc + 4 * scale, 4 * scale).logpdf(X).sum(1)
    np.testing.assert_allclose(fixed.score_samples(X), expected, rtol=1e-4)


@pytest.mark.parametrize(
    "factory",
    [
        mixed,
        lambda d, c: [LULinear(d), pyros.conditional_affine_autoregressive(d, c, [32]).inv],
        lambda d, n_context=0: spline_transforms(d, n_context),
        None,
    ],
    ids=["mixed", "pyro", "own", "default"],
)
def test_a_context_is_followed(factory):
    c = rng().uniform(-2, 2, size=(1500, 1))
    X = np.tile(c, 2) + 0.2 * rng(1).normal(size=(1500, 2))
    flow = TransformFlow(transforms=factory, **SMALL | {"learning_rate": 1e-2}).fit(X, context=c)
    assert flow.score(X, context=c) > flow.score(X, context=c[::-1]) + 1
    drawn = flow.sample(500, context=np.array([[0.5]]), random_state=0)
    assert np.allclose(drawn.mean(0), 0.5, atol=0.2)


@pytest.mark.parametrize("n_columns", [1, 3])
def test_the_default_needs_no_factory(n_columns):
    X = rng().exponential(size=(2000, n_columns))
    flow = TransformFlow(**SMALL).fit(X)
    new = rng(1).exponential(size=(1000, n_columns))
    normal = stats.norm(X.mean(0), X.std(0)).logpdf(new).sum(1).mean()
    assert flow.score(new) > normal + 0.2 * n_columns


def test_a_factory_is_asked_as_its_signature_says():
    seen = []

    def note(*arguments):
        seen.append(arguments)
        return [LULinear(arguments[0])]

    X = gaussian(50, 2)
    few = {"max_steps": 2, "device": "cpu"}
    one_argument = [
        lambda d: note(d),
        lambda d, hidden=(8,): note(d),
        functools.partial(lambda hidden, d: note(d), 8),
    ]
    for factory in one_argument:
        TransformFlow(transforms=factory, **few).fit(X)
    assert set(seen) == {(2,)}
    seen.clear()
    for factory in (lambda d, c: note(d, c), lambda d, n_context=None: note(d, n_context), note):
        TransformFlow(transforms=factory, **few).fit(X)
    assert set(seen) == {(2, 0)}


WRONG = {
    "a list": ([LULinear(2)], TypeError, "transforms must be Callable or None, got list"),
    "a module": (pyros.spline(2), TypeError, "transforms is a Spline, whose weights every clone"),
    "no list": (lambda d: LULinear(d), TypeError, r"returned LULinear\(\), of type LULinear"),
    "an empty list": (lambda d: [], TypeError, r"returned \[\].*non-empty list"),
    "something else": (
        lambda d: [LULinear(d), "LU"],
        TypeError,
        r"transforms\[1\], str, cannot be",
    ),
    "another dimension": (
        lambda d: [pyros.spline(5)],
        ValueError,
        r"transforms\[0\], Spline does not",
    ),
    "own of another": (
        lambda d: [LULinear(5)],
        ValueError,
        r"transforms\[0\], LULinear, cannot be",
    ),
    "many to one": (
        lambda d: [LULinear(d), torchs.AbsTransform()],
        ValueError,
        r"transforms\[1\], AbsTransform, .* not bijective",
    ),
    "half the line": (
        lambda d: [LULinear(d), torchs.ExpTransform()],
        ValueError,
        r"transforms\[1\], ExpTransform returns values that are not finite.*support=",
    ),
    "nothing to learn": (
        lambda d: [torchs.AffineTransform(0.0, 2.0)],
        ValueError,
        r"transforms\[0\], AffineTransform have no parameters",
    ),
    "no context": (
        lambda d: [pyros.conditional_affine_coupling(d, 1)],
        ValueError,
        r"transforms\[0\], ConditionalAffineCoupling, .* there is no context",
    ),
    "no way to noise": (
        lambda d: [LULinear(d), pyros.planar(d)],
        NotImplementedError,
        r"transforms\[1\], Planar: Planar maps noise to data and not",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_factory_of_a_flow_is_refused_by_name(what):
    factory, kind, pattern = WRONG[what]
    flow = TransformFlow(transforms=factory, max_steps=1)
    with pytest.raises(kind, match=pattern):
        flow.fit(gaussian(50, 2))
    assert not hasattr(flow, "density_kind_")


def test_a_factory_that_hands_out_trained_transforms_again_is_refused():
    made = [LULinear(2)]
    with pytest.raises(ValueError, match="returns the same transforms at every call"):
        TransformFlow(transforms=lambda d: made, max_steps=1).fit(gaussian(50, 2))


def test_a_context_that_no_transform_reads_is_refused():
    flow = TransformFlow(transforms=lambda d: [LULinear(d)], max_steps=1)
    with pytest.raises(ValueError, match=r"none of transforms\[0\], LULinear"):
        flow.fit(gaussian(50, 2), context=rng().normal(size=(50, 1)))


def test_a_flow_with_one_way_scores_and_says_that_it_cannot_sample(tmp_path):
    X = gaussian(500, 2)
    flow = TransformFlow(
        transforms=lambda d: [pyros.planar(d).inv, pyros.radial(d).inv, LULinear(d)], **SMALL
    ).fit(X)
    assert flow.score(X) > stats.norm(X.mean(0), X.std(0)).logpdf(X).sum(1).mean() + 0.2
    with pytest.raises(NotImplementedError, match=r"Planar.* needed to sample"):
        flow.sample(3)
    with pytest.warns(UserWarning, match="saved without probe rows"):
        flow.save(tmp_path / "planar")
    again = densekit.load(tmp_path / "planar", parameters={"transforms": flow.transforms})
    np.testing.assert_array_equal(again.score_samples(X), flow.score_samples(X))


# Copies, and files.


@pytest.fixture
def fitted():
    X = gaussian(200, 3)
    return TransformFlow(transforms=mixed, **SMALL | {"max_steps": 20}).fit(X), X


def test_copies_hold_weights_and_what_was_drawn(fitted):
    """Pyro's permutation is random and no buffer there: a copy must have the same."""
    flow, X = fitted
    scores, drawn = flow.score_samples(X), flow.sample(5, random_state=0)
    size = len(pickle.dumps(flow))
    for twin in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        np.testing.assert_array_equal(twin.score_samples(X), scores)
        np.testing.assert_array_equal(twin.sample(5, random_state=0), drawn)
    flow.score_samples(np.tile(X, (50, 1)))
    assert len(pickle.dumps(flow)) == size


def test_a_clone_begins_anew_and_a_warm_start_goes_on(fitted):
    flow, X = fitted
    assert clone(flow).transforms is mixed
    other = clone(flow).fit(X)
    np.testing.assert_array_equal(other.score_samples(X), flow.score_samples(X))
    before = {k: v.clone() for k, v in flow.module_.state_dict().items()}
    flow.set_params(warm_start=True, max_steps=1, learning_rate=1e-7).fit(X)
    after = flow.module_.state_dict()
    permutations = [k for k in before if "permutation" in k]
    assert permutations
    for name in before:
        torch.testing.assert_close(after[name], before[name], atol=1e-4, rtol=1e-4)


def test_a_file_is_given_the_factory_again(tmp_path, fitted):
    flow, X = fitted
    path = tmp_path / "flow.densekit"
    flow.save(path)
    assert b"mixed" in path.read_bytes()
    for parameters in ({"transforms": mixed}, {"transforms": functools.partial(mixed)}):
        again = densekit.load(path, parameters=parameters)
        np.testing.assert_array_equal(again.score_samples(X), flow.score_samples(X))
        np.testing.assert_array_equal(
            again.sample(5, random_state=0), flow.sample(5, random_state=0)
        )
        assert again.transforms is parameters["transforms"]
        assert pickle.loads(pickle.dumps(again)).score(X) == flow.score(X)
        again.save(tmp_path / "again")


def test_a_file_without_its_factory_or_with_another_is_refused(tmp_path, fitted):
    flow, _ = fitted
    path = tmp_path / "flow.densekit"
    flow.save(path)
    with pytest.raises(
        ValueError, match=r"transforms was .*\.mixed'\).*parameters=\{'transforms'"
    ):
        densekit.load(path)
    with pytest.raises(ValueError, match="parameters= gives n_bins, which the file does not ask"):
        densekit.load(path, parameters={"transforms": mixed, "n_bins": len})
    with pytest.raises(ValueError, match="parameters= is not what the model was built with"):
        densekit.load(path, parameters={"transforms": lambda d, c: mixed(d, c)[1:]})

    def turned(d, n_context):
        # As many weights of the same names and shapes, in another map: the probe rows tell.
        first, *rest = mixed(d, n_context)
        return [first.inv, *rest]

    with pytest.raises(
        ValueError, match=r"not what the model was built with: its probe rows score"
    ):
        densekit.load(path, parameters={"transforms": turned})


def test_a_file_of_a_model_without_functions_asks_for_none(tmp_path):
    flow = TransformFlow(max_steps=2, device="cpu").fit(gaussian(50, 2))
    flow.save(tmp_path / "flow")
    densekit.load(tmp_path / "flow")
    with pytest.raises(ValueError, match="gives transforms, which the file does not ask for"):
        densekit.load(tmp_path / "flow", parameters={"transforms": mixed})
    # A function that came after the fit is no part of the model, and is left out.
    flow.set_params(transforms=mixed).save(tmp_path / "flow")
    assert densekit.load(tmp_path / "flow").transforms is None


@pytest.mark.slow
def test_two_processes_train_one_model():
    """Each draws a permutation when it builds, and all must go by that of the first."""

    def factory(d):
        return [LULinear(d), pyros.permute(d), pyros.affine_coupling(d, hidden_dims=[8])]

    X = gaussian(300, 6)
    one, two = (
        TransformFlow(transforms=factory, devices=n, **SMALL | {"max_steps": 30}).fit(X)
        for n in (None, 2)
    )
    np.testing.assert_allclose(two.score_samples(X), one.score_samples(X), atol=1e-3)
