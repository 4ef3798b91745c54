"""Pyro's and torch's transforms through the adapter: their own values, both ways, and no cache."""

import copy
import pickle

import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import transforms as pyros
from pyro.distributions.conditional import (
    ConditionalComposeTransformModule,
    ConditionalTransformedDistribution,
)
from pyro.distributions.torch_transform import ComposeTransformModule
from torch import nn
from torch.distributions import transforms as torchs

from densekit.transforms.pyro import FromPyro, _inside, title

D, C = 4, 2
IMAGE = (4, 1, 1)
BOTH_WAYS = {
    "affine": lambda: torchs.AffineTransform(torch.arange(4.0), torch.arange(1.0, 5.0)),
    "affine of events": lambda: torchs.AffineTransform(1.0, torch.arange(1.0, 5.0), event_dim=1),
    "learned affine": lambda: torchs.AffineTransform(
        nn.Parameter(torch.arange(4.0)), nn.Parameter(torch.ones(4) * 2)
    ),
    "independent": lambda: torchs.IndependentTransform(
        torchs.AffineTransform(0.0, torch.arange(1.0, 5.0)), 1
    ),
    "squashed and back": lambda: torchs.ComposeTransform(
        [
            torchs.SigmoidTransform(),
            torchs.AffineTransform(0.0, 1.0),
            torchs.SigmoidTransform().inv,
        ]
    ),
    "permutation": lambda: pyros.permute(D),
    "autoregressive": lambda: pyros.affine_autoregressive(D, [8]),
    "stable autoregressive": lambda: pyros.affine_autoregressive(D, [8], stable=True),
    "autoregressive inverse": lambda: pyros.affine_autoregressive(D, [8]).inv,
    "coupling": lambda: pyros.affine_coupling(D, hidden_dims=[8]),
    "spline": lambda: pyros.spline(D, count_bins=5),
    "spline autoregressive": lambda: pyros.spline_autoregressive(D, [8], count_bins=5),
    "spline coupling": lambda: pyros.spline_coupling(D, hidden_dims=[8], count_bins=5),
    "householder": lambda: pyros.householder(D, 2),
    "matrix exponential": lambda: pyros.matrix_exponential(D, iterations=20),
    "batch norm": lambda: pyros.batchnorm(D),
    "lower cholesky": lambda: pyros.LowerCholeskyAffine(
        torch.arange(4.0), torch.eye(4) * 2 + torch.ones(4, 4).tril(-1)
    ),
    "cosines": lambda: pyros.DiscreteCosineTransform(),
    "composition": lambda: pyros.ComposeTransformModule(
        [pyros.affine_coupling(D, hidden_dims=[8]), pyros.permute(D), pyros.spline(D)]
    ),
    "composition inverse": lambda: (
        pyros.ComposeTransformModule(
            [pyros.affine_coupling(D, hidden_dims=[8]), pyros.permute(D), pyros.spline(D)]
        ).inv
    ),
    "channels of an image": lambda: torchs.ComposeTransform(
        [
            torchs.ReshapeTransform((D,), IMAGE),
            pyros.GeneralizedChannelPermute(D),
            torchs.ReshapeTransform(IMAGE, (D,)),
        ]
    ),
}
ONE_WAY = {
    "planar": lambda: pyros.planar(D),
    "radial": lambda: pyros.radial(D),
    "sylvester": lambda: pyros.sylvester(D),
    "polynomial": lambda: pyros.polynomial(D, [8]),
    "neural autoregressive": lambda: pyros.neural_autoregressive(D, [8]),
    "block autoregressive": lambda: pyros.block_autoregressive(D),
}
CONDITIONAL = {
    "coupling": lambda: pyros.conditional_affine_coupling(D, C, hidden_dims=[8]),
    "autoregressive": lambda: pyros.conditional_affine_autoregressive(D, C, [8]),
    "autoregressive inverse": lambda: pyros.conditional_affine_autoregressive(D, C, [8]).inv,
    "spline": lambda: pyros.conditional_spline(D, C, [8], count_bins=5),
    "householder": lambda: pyros.conditional_householder(D, C, [8]),
    "composition": lambda: ConditionalComposeTransformModule(
        [pyros.conditional_spline(D, C, [8]), pyros.Permute(torch.tensor([2, 0, 3, 1]))]
    ),
    "composition inverse": lambda: (
        ConditionalComposeTransformModule(
            [pyros.conditional_spline(D, C, [8]), pyros.Permute(torch.tensor([2, 0, 3, 1]))]
        ).inv
    ),
}
FLOAT32_ONLY = ("autoregressive", "stable autoregressive", "autoregressive inverse")
"""Pyro's inverse makes zeros of torch's default dtype."""


LEARNED = [name for name, make in BOTH_WAYS.items() if list(FromPyro(make(), D).parameters())]


def seeded(make):
    torch.manual_seed(0)
    return make()


def rows(n, width=D, seed=1):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_scores_and_draws_are_those_of_a_transformed_distribution(name):
    transform = seeded(BOTH_WAYS[name])
    law = dist.TransformedDistribution(
        dist.Normal(torch.zeros(D), 1.0).to_event(1), [seeded(BOTH_WAYS[name])]
    )
    for part in law.transforms[0].modules() if isinstance(law.transforms[0], nn.Module) else ():
        part.eval()
    ours = FromPyro(transform, D).eval()
    x = rows(20)
    with torch.no_grad():
        z, ladj = ours.to_noise(x.T)
        score = dist.Normal(0.0, 1.0).log_prob(z).sum(0) + ladj
        truth = law.log_prob(x.clone())
        data, data_ladj = ours.to_data(x.T)
        expected = x.clone()
        for t in law.transforms:
            expected = t(expected)
    torch.testing.assert_close(score, truth, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(data.T, expected, atol=1e-5, rtol=1e-5)
    # The round trip is the identity.
    again, again_ladj = ours.to_noise(data)
    torch.testing.assert_close(again.T, x, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(again_ladj, -data_ladj, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("way", ["to_noise", "to_data"])
@pytest.mark.parametrize("name", BOTH_WAYS)
def test_log_det_is_that_of_autodiff(name, way):
    ours = FromPyro(seeded(BOTH_WAYS[name]), D).eval()
    dtype = torch.float32 if name in FLOAT32_ONLY else torch.float64
    ours = ours.to(dtype)
    near = 1e-4 if dtype == torch.float32 else 1e-8

    def run(row):
        return getattr(ours, way)(row[:, None])

    for row in rows(3).to(dtype):
        jacobian = torch.autograd.functional.jacobian(lambda v: run(v)[0][:, 0], row)
        expected = torch.linalg.slogdet(jacobian)[1]
        torch.testing.assert_close(run(row)[1][0], expected, atol=near, rtol=near)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_a_conditional_transform_is_conditioned_row_by_row(name):
    base = dist.Normal(torch.zeros(D), 1.0).to_event(1)
    ours = FromPyro(seeded(CONDITIONAL[name]), D, C)
    law = ConditionalTransformedDistribution(base, [seeded(CONDITIONAL[name])])
    x, context = rows(20), rows(20, C, seed=2)
    z, ladj = ours.to_noise(x.T, context.T)
    score = dist.Normal(0.0, 1.0).log_prob(z).sum(0) + ladj
    truth = torch.stack([law.condition(c).log_prob(v) for v, c in zip(x, context, strict=True)])
    torch.testing.assert_close(score, truth.reshape(20), atol=1e-4, rtol=1e-4)
    back, back_ladj = ours.to_data(z, context.T)
    torch.testing.assert_close(back.T, x, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(back_ladj, -ladj, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(ours.to_noise(x.T, context.T + 1)[0], z)


@pytest.mark.parametrize("name", ONE_WAY)
def test_a_transform_with_one_way_has_that_one_and_names_the_other(name):
    theirs = seeded(ONE_WAY[name])
    samples, scores = FromPyro(theirs, D), FromPyro(seeded(ONE_WAY[name]).inv, D)
    z = rows(5)
    x, ladj = samples.to_data(z.T)
    jacobians = [torch.autograd.functional.jacobian(theirs, v[None])[0, :, 0] for v in z]
    expected = torch.stack([torch.linalg.slogdet(j)[1] for j in jacobians])
    torch.testing.assert_close(x.T, theirs(z.clone()))
    torch.testing.assert_close(ladj, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scores.to_noise(z.T)[1], ladj)
    kind = type(theirs).__name__
    with pytest.raises(NotImplementedError, match=f"{kind} maps noise to data and not"):
        samples.to_noise(x)
    with pytest.raises(NotImplementedError, match=f"{kind}.* needed to sample"):
        scores.to_data(x)


@pytest.mark.parametrize("name", [*LEARNED, "planar inverse"])
def test_no_value_is_one_of_older_weights(name):
    make = BOTH_WAYS.get(name, lambda: pyros.planar(D).inv)
    ours = FromPyro(seeded(make), D).eval()
    x = rows(9).T
    before = ours.to_noise(x)
    fresh = FromPyro(seeded(make), D).eval()
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p, q in zip(ours.parameters(), fresh.parameters(), strict=True):
            step = 0.2 * torch.randn(p.shape, generator=g)
            p.add_(step)
            q.add_(step)
    after, expected = ours.to_noise(x), fresh.to_noise(x.clone())
    torch.testing.assert_close(after, expected)
    assert not torch.allclose(after[0], before[0])


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_no_cache_outlives_a_run(name):
    transform = seeded(BOTH_WAYS[name])
    ours = FromPyro(transform, D)
    x = rows(9)
    for _ in range(2):
        ours.to_noise(x.T)
        ours.to_data(x.T)
    for part in _inside([part for part, _ in ours._parts]):
        assert getattr(part, "_cached_x_y", (None, None)) == (None, None)


def test_a_transform_that_has_run_before_is_taken_as_it_is():
    transform = pyros.affine_coupling(D, hidden_dims=[8])
    transform(rows(7))
    assert set(FromPyro(transform, D).state_dict()) == {
        f"held.0.{k}" for k in transform.state_dict()
    }


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_the_state_dict_holds_everything_that_was_drawn_or_given(name):
    torch.manual_seed(0)
    ours = FromPyro(BOTH_WAYS[name](), D).eval()
    fresh = FromPyro(BOTH_WAYS[name](), D).eval()  # of other random numbers
    x = rows(9).T
    fresh.load_state_dict(ours.state_dict())
    torch.testing.assert_close(fresh.to_noise(x), ours.to_noise(x), atol=0, rtol=0)


@pytest.mark.parametrize("name", BOTH_WAYS)
def test_it_copies_and_pickles_after_it_has_learned(name):
    ours = FromPyro(seeded(BOTH_WAYS[name]), D).eval()
    x = rows(9).T
    z, ladj = ours.to_noise(x)
    if z.requires_grad:
        (z.sum() + ladj.sum()).backward()
    with torch.no_grad():  # what a part keeps of its last run has no graph then
        z = ours.to_noise(x)[0]
        for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
            assert torch.equal(twin.to_noise(x)[0], z)


def test_bare_tensors_follow_the_dtype():
    for name in ("affine", "lower cholesky"):
        z, ladj = FromPyro(BOTH_WAYS[name](), D).double().to_noise(rows(3).double().T)
        assert (z.dtype, ladj.dtype) == (torch.float64, torch.float64)


def test_a_learned_tensor_gets_its_gradient():
    ours = FromPyro(BOTH_WAYS["learned affine"](), D)
    assert [p.shape for p in ours.parameters()] == [(4,), (4,)]
    z, ladj = ours.to_noise(rows(9).T)
    (0.5 * (z * z).sum() - ladj.sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in ours.parameters())


def test_what_cannot_be_a_flow_is_refused():
    with pytest.raises(ValueError, match="AbsTransform is not bijective"):
        FromPyro(torchs.AbsTransform(), D)
    with pytest.raises(
        ValueError, match="ConditionalPlanar is conditional, but there is no context"
    ):
        FromPyro(pyros.conditional_planar(D, C), D)
    scale = nn.Parameter(torch.zeros(4))
    with pytest.raises(ValueError, match="scale of AffineTransform is computed from a parameter"):
        FromPyro(torchs.AffineTransform(0.0, scale.exp()), D)


def test_titles_say_which_way():
    assert title(pyros.planar(2)) == "Planar"
    assert title(pyros.planar(2).inv) == "Planar.inv"
    assert title(pyros.conditional_planar(2, 1).inv) == "ConditionalPlanar.inv"
    assert title(ComposeTransformModule([])) == "ComposeTransformModule"
