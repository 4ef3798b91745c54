"""Diffusions whose scores are known in closed form: Gaussians and their mixtures."""

import math

import pyro
import pytest
import torch
from torch.distributions import MultivariateNormal

from densekit.distributions.diffusion import Diffusion, Plan
from densekit.distributions.paths import Rectified, VarianceExploding
from densekit.distributions.samplers import SAMPLERS, Langevin
from densekit.transforms.whitening import Whitening

PATH = VarianceExploding(0.01, 20.0)
# At the top of this one any density of our tests is white noise, centered or not.
FAR = VarianceExploding(0.01, 1000.0)
EXACT = Plan(rtol=1e-6, max_doublings=7)
PLANS = {
    "langevin": Plan(Langevin(2, 0.3), 96),
    "ode": Plan(SAMPLERS["heun"], 24),
    "dpm": Plan(SAMPLERS["dpm"], 100),
}


def diffusion(score, probes, path=PATH, plan=Plan(), **options):
    """The diffusion with a score s(u, sigma, context) of u = x + sigma noise."""

    def flow(y, w, context):
        angle = path.angle(w)
        cos, sin, sigma = angle.cos(), angle.sin(), angle.tan()
        u = y / cos
        noise = -sigma * score(u, sigma.reshape(1), context)
        return cos * noise - sin * (u - sigma * noise)

    return Diffusion(flow, path, probes, torch.Size([probes.shape[1]]), plan, **options)


def frame(k, d, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    full = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(full)[0][:k].to(dtype)


def gaussian_score(loc, covariance):
    values, vectors = torch.linalg.eigh(covariance)

    def score(x, sigma, context):
        mean = loc if context is None else loc + context
        return ((mean - x) @ vectors / (values + sigma**2)) @ vectors.T

    return score


def smoothed(loc, covariance):
    eye = torch.eye(len(loc), dtype=loc.dtype)
    return MultivariateNormal(loc, covariance + PATH.sigma_min**2 * eye)


def random_gaussian(d, seed=1):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(d, d, generator=generator, dtype=torch.float64) / d**0.5
    loc = 0.3 * torch.randn(d, generator=generator, dtype=torch.float64)
    return loc, a @ a.T + 0.2 * torch.eye(d, dtype=torch.float64)


def mixture_density(x, sigma):
    """log of half N(-0.96, v) and half N(0.96, v), v = 0.0784 + sigma^2: variance one without noise."""
    v = 0.0784 + sigma**2
    parts = torch.stack([-((x - 0.96) ** 2), -((x + 0.96) ** 2)]) / (2 * v)
    return torch.logsumexp(parts, 0) - math.log(2) - 0.5 * torch.log(2 * math.pi * v)


def mixture_score(x, sigma, context):
    sigma = sigma.reshape(1, 1)
    return torch.func.grad(lambda x: mixture_density(x, sigma).sum())(x)


def ring_score(x, sigma, context):
    """A mixture of twelve normals on a circle."""
    at = torch.arange(12, dtype=x.dtype) * (2 * math.pi / 12)
    centers = 1.3 * torch.stack([at.cos(), at.sin()], 1)
    variance = 0.04 + sigma.reshape(1, 1) ** 2
    away = centers - x[:, None]
    weight = (-away.square().sum(-1) / (2 * variance)).softmax(1)
    return (weight[..., None] * away).sum(1) / variance


def test_gaussian_density_is_the_closed_form_within_its_error():
    loc, covariance = random_gaussian(4)
    d = diffusion(gaussian_score(loc, covariance), frame(4, 4), FAR)
    truth = smoothed(loc, covariance)
    torch.manual_seed(0)
    x = truth.sample((200,))
    logp, error = d.log_prob_and_error(x)
    assert ((logp - truth.log_prob(x)).abs() <= 3 * error + 2e-3).all()
    assert error.max() < 0.01


def test_the_density_is_that_of_data_with_the_least_noise():
    path = VarianceExploding(0.5, 20.0)
    d = diffusion(lambda x, s, _: -x / (1 + s**2), torch.eye(2), path)
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    truth = torch.distributions.Normal(0, 1.25**0.5).log_prob(x).sum(1)
    assert torch.allclose(d.log_prob(x), truth, atol=1e-5)


def test_the_error_of_the_solver_falls_with_the_tolerance_and_is_honest():
    x = torch.linspace(-3, 3, 41, dtype=torch.float64)[:, None]
    exact = diffusion(mixture_score, frame(1, 1), plan=EXACT).log_prob(x)
    wrong = []
    for rtol in (1e-2, 1e-3, 1e-4):
        plan = Plan(rtol=rtol, max_doublings=7)
        logp, error = diffusion(mixture_score, frame(1, 1), plan=plan).log_prob_and_error(x)
        wrong.append((logp - exact).abs())
        assert (wrong[-1] <= 2 * error + 1e-9).double().mean() > 0.9
        assert (error <= rtol * logp.abs().clamp_min(1)).all()
    assert wrong[0].max() > wrong[1].max() > wrong[2].max()
    truth = mixture_density(x[:, 0], torch.tensor(PATH.sigma_min, dtype=torch.float64))
    # The prior at the greatest level is off by up to 2e-3 out here.
    assert (exact - truth).abs().max() < 3e-3


def test_rows_that_do_not_converge_say_so():
    x = torch.linspace(-3, 3, 41, dtype=torch.float64)[:, None]
    exact = diffusion(mixture_score, frame(1, 1), plan=EXACT).log_prob(x)
    plan = Plan(rtol=1e-9, max_doublings=2)
    logp, error = diffusion(mixture_score, frame(1, 1), plan=plan).log_prob_and_error(x)
    assert (error > 1e-9 * logp.abs()).any()
    assert ((logp - exact).abs() <= 2 * error).double().mean() > 0.9


def test_a_density_from_the_ode_integrates_to_one():
    x = torch.linspace(-6, 6, 2401, dtype=torch.float64)[:, None]
    d = diffusion(mixture_score, frame(1, 1))
    mass = torch.trapezoid(d.log_prob(x).exp(), x[:, 0])
    assert abs(mass - 1) < 2e-3


@pytest.mark.parametrize(("d", "kind"), [(1, "mixture"), (2, "ring"), (5, "gaussian"), (20, "gaussian")])
def test_two_standard_errors_hold_the_density_of_the_ode(d, kind):
    """200 rows each: coverage of at least 90 %, and stated errors of the size of true ones."""
    if kind == "mixture":
        score = mixture_score
    elif kind == "ring":
        score = ring_score
    else:
        score = gaussian_score(*random_gaussian(d, seed=3))
    torch.manual_seed(0)
    x = 1.3 * torch.randn(200, d, dtype=torch.float64)
    exact = diffusion(score, frame(d, d), plan=Plan(rtol=1e-8, max_doublings=8)).log_prob(x)
    logp, error = diffusion(score, frame(d, d)).log_prob_and_error(x)
    wrong = (logp - exact).abs()
    assert (wrong <= 2 * error).double().mean() >= 0.9
    assert error.median() <= 5 * wrong.median()


def test_the_rectified_path_has_the_density_without_noise():
    loc, covariance = random_gaussian(2)
    path = Rectified()

    def flow(y, w, context):
        angle = path.angle(w)
        cos, sin = angle.cos(), angle.sin()
        total = torch.linalg.inv(cos**2 * covariance + sin**2 * torch.eye(2, dtype=y.dtype))
        noise = sin * (y - cos * loc) @ total
        x = loc + cos * (y - cos * loc) @ total @ covariance
        return cos * noise - sin * x

    d = Diffusion(flow, path, frame(2, 2), torch.Size([2]))
    truth = MultivariateNormal(loc, covariance)
    torch.manual_seed(0)
    x = truth.sample((50,))
    logp, error = d.log_prob_and_error(x)
    assert ((logp - truth.log_prob(x)).abs() <= 2 * error + 1e-6).double().mean() > 0.9
    draws = d.sample((20_000,))
    assert torch.allclose(torch.cov(draws.T), covariance, atol=0.05)


def test_an_ode_that_diverges_is_refused_with_its_time():
    d = Diffusion(lambda y, w, _: torch.full_like(y, torch.inf), PATH, frame(1, 1), torch.Size([1]))
    with pytest.raises(ValueError, match=r"diverges between times 0 and 1 .*rtol=0.001"):
        d.log_prob(torch.zeros(1, dtype=torch.float64))


def test_a_score_under_guidance_is_refused():
    d = diffusion(mixture_score, frame(1, 1), plan=Plan(guidance=2.0))
    with pytest.raises(ValueError, match="guidance=2 .* no known density"):
        d.log_prob(torch.zeros(1, dtype=torch.float64))


def test_probes_are_unbiased_and_their_standard_error_honest():
    loc, covariance = random_gaussian(12)
    x = loc + 0.5
    score = gaussian_score(loc, covariance)
    exact = diffusion(score, frame(12, 12)).log_prob(x)
    runs = [
        diffusion(score, frame(9, 12, seed=s)).log_prob_and_error(x)
        for s in range(100)
    ]
    logp, error = (torch.stack(r) for r in zip(*runs, strict=True))
    off = logp - exact
    assert abs(off.mean()) < 4 * off.std() / len(off) ** 0.5
    # The mean square of the standard errors is the variance that they estimate.
    assert error.square().mean().sqrt() == pytest.approx(off.std().item(), rel=0.25)


@pytest.mark.parametrize("sampler", sorted(PLANS))
def test_samples_have_the_moments_of_the_density(sampler):
    loc, covariance = random_gaussian(3)
    d = diffusion(gaussian_score(loc, covariance), frame(3, 3), FAR, PLANS[sampler])
    torch.manual_seed(0)
    x = d.sample((40_000,))
    assert torch.allclose(x.mean(0), loc, atol=0.03)
    assert torch.allclose(torch.cov(x.T), covariance, atol=0.05)
    assert x.var(0).sum() == pytest.approx(covariance.trace().item(), rel=0.03)


def test_plain_langevin_dynamics_with_enough_steps_has_the_right_spread():
    plan = Plan(Langevin(20, 0.5, predictor=False), 47)
    d = diffusion(lambda x, s, _: -x / (1 + s**2), frame(1, 1), plan=plan)
    torch.manual_seed(0)
    assert d.sample((20_000,)).std() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("sampler", sorted(PLANS))
def test_both_modes_are_found(sampler):
    d = diffusion(mixture_score, frame(1, 1), plan=PLANS[sampler])
    torch.manual_seed(0)
    x = d.sample((8000,))
    assert (x > 0).double().mean() == pytest.approx(0.5, abs=0.03)
    assert (x.abs() - 0.96).std() == pytest.approx(0.28, abs=0.02)


def test_a_row_scores_the_same_alone_and_in_company():
    loc, covariance = random_gaussian(5)
    d = diffusion(gaussian_score(loc, covariance), frame(2, 5))
    torch.manual_seed(0)
    x = torch.randn(7000, 5, dtype=torch.float64)
    together = d.log_prob(x)
    assert torch.allclose(together[:3], torch.stack([d.log_prob(row) for row in x[:3]]))
    assert torch.allclose(together.flip(0), d.log_prob(x.flip(0)))


def test_shapes_context_and_expansion():
    loc, covariance = random_gaussian(2)
    context = torch.tensor([[0.0, 0.0], [3.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    d = diffusion(gaussian_score(loc, covariance), frame(2, 2), FAR, context=context)
    assert d.batch_shape == (3,)
    x = torch.zeros(4, 1, 2, dtype=torch.float64)
    assert d.log_prob(x).shape == (4, 3)
    expected = torch.stack([smoothed(loc + c, covariance).log_prob(x[0, 0]) for c in context])
    assert torch.allclose(d.log_prob(x)[0], expected, atol=0.02)
    torch.manual_seed(0)
    draws = d.expand([1000, 3]).sample()
    assert draws.shape == (1000, 3, 2)
    assert torch.allclose(draws.mean(0), loc + context, atol=0.15)
    assert d.log_prob(torch.zeros(0, 1, 2, dtype=torch.float64)).shape == (0, 3)


def test_a_frame_moves_the_density():
    loc, covariance = random_gaussian(2)
    torch.manual_seed(0)
    white = Whitening(2).double()
    white.fit(MultivariateNormal(loc, 100 * covariance).sample((5000,)))
    d = diffusion(lambda x, s, _: -x / (1 + s**2), frame(2, 2), frame=white)
    x = torch.randn(50, 2, dtype=torch.float64) * 10
    near = MultivariateNormal(white.loc, white.color @ white.color.T)
    assert torch.allclose(d.log_prob(x), near.log_prob(x), atol=0.01)
    assert torch.allclose(torch.cov(d.sample((5000,)).T), 100 * covariance, rtol=0.1, atol=5)


def test_values_that_no_density_has_score_minus_infinity():
    d = diffusion(lambda x, s, _: -x / (1 + s**2), frame(2, 2))
    x = torch.tensor([[0.0, 0.0], [torch.inf, 0.0], [torch.nan, 1.0]], dtype=torch.float64)
    logp, error = d.log_prob_and_error(x)
    assert logp.isfinite().tolist() == [True, False, False]
    assert (logp[1:] == -torch.inf).all()
    assert not error.isnan().any()


def test_the_density_has_a_gradient():
    loc, covariance = random_gaussian(3)
    d = diffusion(gaussian_score(loc, covariance), frame(3, 3), FAR)
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(d.log_prob(x), x)
    (expected,) = torch.autograd.grad(smoothed(loc, covariance).log_prob(x), x)
    assert torch.allclose(slope, expected, atol=0.02)


def test_it_is_a_pyro_site():
    d = diffusion(lambda x, s, _: -x / (1 + s**2), torch.eye(2))
    trace = pyro.poutine.trace(lambda: pyro.sample("x", d)).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["x"]["log_prob_sum"].isfinite()
