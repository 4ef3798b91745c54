import math

import numpy as np
import pytest
from scipy import stats

from densekit.datasets import (
    ClaytonCopula,
    Funnel,
    GaussianCopula,
    MixtureOfGaussians,
    StudentCopula,
)

R = np.array([[1.0, 0.8, -0.3], [0.8, 1.0, 0.1], [-0.3, 0.1, 1.0]])
MIXED = [stats.gamma(2.5), stats.norm(1, 3), stats.beta(2, 5)]
UNIFORM = [stats.uniform()] * 3
COPULAS = {
    "gaussian": lambda marginals: GaussianCopula(R, marginals),
    "student": lambda marginals: StudentCopula(3.0, R, marginals),
    "clayton": lambda marginals: ClaytonCopula(2.0, marginals),
    "weak clayton": lambda marginals: ClaytonCopula(0.05, marginals),
}
TRUTHS = {
    "funnel": Funnel(),
    "flat funnel": Funnel(3, 0.5),
    "mixture": MixtureOfGaussians(),
    "crowded mixture": MixtureOfGaussians(5, 12, spread=0.3, seed=1),
    **{name: make(MIXED) for name, make in COPULAS.items()},
}
each_truth = pytest.mark.parametrize("truth", TRUTHS.values(), ids=TRUTHS)
each_copula = pytest.mark.parametrize("make", COPULAS.values(), ids=COPULAS)


@each_truth
def test_entropy_is_the_mean_of_minus_log_prob(truth):
    scores = truth.log_prob(truth.sample(50_000, random_state=1))
    error = math.hypot(scores.std() / math.sqrt(len(scores)), truth.entropy_error)
    assert abs(-scores.mean() - truth.entropy) <= 4 * error


@each_truth
def test_seeds(truth):
    state = np.random.get_state()[1].copy()
    assert (truth.sample(5, random_state=1) == truth.sample(5, random_state=1)).all()
    assert (truth.sample(5, random_state=1) != truth.sample(5, random_state=2)).any()
    assert (np.random.get_state()[1] == state).all()


@each_truth
def test_wrong_shapes_are_named(truth):
    with pytest.raises(ValueError, match=rf"scores rows of {truth.n_dims} numbers"):
        truth.log_prob(np.zeros((3, 2)))


# ---------------------------------------------------------------------------------------- funnel


def test_funnel_is_a_normal_and_normals_given_it():
    X = Funnel(4, 2.0).sample(1000, random_state=0)
    v, x = X[:, 0], X[:, 1:]
    given = stats.norm(0, np.exp(v / 2)[:, None]).logpdf(x).sum(1)
    assert Funnel(4, 2.0).log_prob(X) == pytest.approx(stats.norm(0, 2).logpdf(v) + given)


def test_funnel_scores_stay_finite_far_from_all_mass():
    assert np.isfinite(Funnel(3).log_prob([[-1e4, 0.0, 1.0], [1e4, 1.0, 0.0]])).all()


def test_funnel_draws_from_its_density():
    X = Funnel(6).sample(5000, random_state=0)
    assert stats.kstest(X[:, 0], stats.norm(0, 3).cdf).pvalue > 1e-3
    z = X[:, 1:] * np.exp(-X[:, :1] / 2)
    assert stats.kstest(z.ravel(), stats.norm.cdf).pvalue > 1e-3
    assert abs(np.corrcoef(np.c_[X[:, :1], z].T) - np.eye(6)).max() < 5 / math.sqrt(5000)


# --------------------------------------------------------------------------------------- mixture


def _components(truth):
    return [
        stats.multivariate_normal(mean, factor @ factor.T)
        for mean, factor in zip(truth.means, truth.factors, strict=True)
    ]


def test_mixture_is_the_weighted_sum_of_its_components():
    truth = MixtureOfGaussians(3, 4, seed=2)
    X = truth.sample(300, random_state=0)
    p = np.stack([c.pdf(X) for c in _components(truth)], 1) @ truth.weights
    assert truth.log_prob(X) == pytest.approx(np.log(p))
    assert truth.weights.sum() == pytest.approx(1)


def test_mixture_draws_from_its_marginals():
    truth = MixtureOfGaussians(3, 4, seed=2)
    X = truth.sample(5000, random_state=0)
    for direction in [*np.eye(3), np.array([1.0, -1.0, 0.5])]:
        loc = truth.means @ direction
        scale = np.linalg.norm(truth.factors.transpose(0, 2, 1) @ direction, axis=1)

        def cdf(x, loc=loc, scale=scale):
            return stats.norm(loc, scale).cdf(np.asarray(x)[:, None]) @ truth.weights

        assert stats.kstest(X @ direction, cdf).pvalue > 1e-3


def test_entropy_of_a_plane_mixture_is_its_integral_within_the_stated_error():
    truth = MixtureOfGaussians(2, 6, seed=3)
    x = np.arange(-10, 10, 0.05)
    logp = truth.log_prob(np.stack(np.meshgrid(x, x), -1).reshape(-1, 2))
    p = np.exp(logp)
    assert p.sum() * 0.05**2 == pytest.approx(1, abs=1e-9)
    entropy = -(p * logp).sum() * 0.05**2
    assert 0 < truth.entropy_error <= math.log(6) / 512
    assert abs(truth.entropy - entropy) < 4 * truth.entropy_error


def test_one_component_has_the_entropy_of_its_gaussian():
    truth = MixtureOfGaussians(4, 1)
    assert truth.entropy == pytest.approx(_components(truth)[0].entropy())
    assert truth.entropy_error == 0


def test_components_far_apart_add_the_entropy_of_their_weights():
    truth = MixtureOfGaussians(4, 3, spread=1e4)
    each = [c.entropy() for c in _components(truth)]
    assert truth.entropy == pytest.approx(truth.weights @ each + stats.entropy(truth.weights))


# --------------------------------------------------------------------------------------- copulas


@each_copula
def test_copulas_keep_their_marginals(make):
    X = make(MIXED).sample(5000, random_state=0)
    for marginal, x in zip(MIXED, X.T, strict=True):
        assert stats.kstest(x, marginal.cdf).pvalue > 1e-3


@each_copula
def test_marginals_change_the_density_by_their_own(make):
    X = make(MIXED).sample(500, random_state=0)
    u = np.stack([m.cdf(x) for m, x in zip(MIXED, X.T, strict=True)], 1)
    own = sum(m.logpdf(x) for m, x in zip(MIXED, X.T, strict=True))
    expected = make(UNIFORM).log_prob(u) + own
    assert make(MIXED).log_prob(X) == pytest.approx(expected, abs=1e-8)


@each_copula
def test_outside_a_support_is_minus_infinity(make):
    assert make(MIXED).log_prob([[-1.0, 0.0, 0.5], [1.0, 0.0, 1.5]]).tolist() == [-math.inf] * 2


def test_gaussian_copula_of_normals_is_a_gaussian_far_into_the_tails():
    truth, known = GaussianCopula(R, [stats.norm()] * 3), stats.multivariate_normal(cov=R)
    X = np.array([[0.1, -0.5, 2.0], [20.0, 20.0, -20.0], [-30.0, -25.0, 30.0], [9.0, 0.0, 0.0]])
    assert truth.log_prob(X) == pytest.approx(known.logpdf(X), rel=1e-9)
    assert truth.entropy == pytest.approx(known.entropy())


def test_student_copula_of_students_is_a_student_far_into_the_tails():
    truth, known = StudentCopula(3, R, [stats.t(3)] * 3), stats.multivariate_t(shape=R, df=3)
    X = np.array([[0.1, -0.5, 2.0], [1e4, 1e4, -1e4], [-1e3, -1e5, 0.0]])
    assert truth.log_prob(X) == pytest.approx(known.logpdf(X), rel=1e-7)
    assert truth.entropy == pytest.approx(known.entropy())


def test_kendalls_tau_is_that_of_the_copula():
    for make in (COPULAS["gaussian"], COPULAS["student"]):
        X = make(MIXED).sample(5000, random_state=0)
        for i, j in ((0, 1), (0, 2), (1, 2)):
            tau = stats.kendalltau(X[:, i], X[:, j]).statistic
            assert tau == pytest.approx(2 / math.pi * math.asin(R[i, j]), abs=0.04)
    X = ClaytonCopula(2.0, UNIFORM).sample(5000, random_state=0)
    assert stats.kendalltau(X[:, 0], X[:, 2]).statistic == pytest.approx(2 / 4, abs=0.04)


@pytest.mark.parametrize("theta", [0.05, 2.0])
def test_clayton_density_is_the_derivative_of_its_distribution_function(theta):
    def cdf(*u):
        return (sum(v**-theta for v in u) - len(u) + 1) ** (-1 / theta)

    box = [(0.1, 0.4), (0.5, 0.8), (0.2, 0.9)]
    corners = np.array(np.meshgrid([0, 1], [0, 1], [0, 1])).reshape(3, -1).T
    mass = sum(
        (-1) ** (3 - c.sum()) * cdf(*(b[i] for b, i in zip(box, c, strict=True))) for c in corners
    )
    t, w = np.polynomial.legendre.leggauss(24)
    axes = [(a + b) / 2 + (b - a) / 2 * t for a, b in box]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    p = np.exp(ClaytonCopula(theta, UNIFORM).log_prob(grid)).reshape(24, 24, 24)
    size = np.prod([(b - a) / 2 for a, b in box])
    assert np.einsum("abc,a,b,c->", p, w, w, w) * size == pytest.approx(mass, rel=1e-9)


@pytest.mark.parametrize(
    "make",
    [lambda m: ClaytonCopula(5.0, m), lambda m: StudentCopula(1.0, R, m), COPULAS["gaussian"]],
    ids=["clayton", "student", "gaussian"],
)
def test_scores_stay_finite_in_every_corner(make):
    truth = make([stats.norm()] * 3)
    assert np.isfinite(truth.log_prob([[-30.0] * 3, [30.0] * 3, [-30.0, 30.0, 0.0]])).all()


def test_the_entropy_of_uniforms_is_the_copulas():
    # Two dimensions, by quadrature in u = t^4, which tames the corner at zero.
    t, w = np.polynomial.legendre.leggauss(300)
    t, w = (t + 1) / 2, w / 2
    u, v = np.meshgrid(t**4, t**4)
    slope = np.outer(4 * t**3 * w, 4 * t**3 * w)
    truth = ClaytonCopula(0.7, UNIFORM[:2])
    logp = truth.log_prob(np.stack([u, v], -1).reshape(-1, 2)).reshape(300, 300)
    assert (slope * np.exp(logp)).sum() == pytest.approx(1, abs=1e-6)
    assert truth.entropy == pytest.approx(-(slope * np.exp(logp) * logp).sum(), abs=1e-5)


# ----------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Funnel(1), ValueError, "n_dims=1: a funnel has at least 2"),
        (lambda: Funnel(3, 0), ValueError, "width=0: must be positive"),
        (lambda: MixtureOfGaussians(2, 0), ValueError, "n_dims=2, n_components=0: both"),
        (lambda: ClaytonCopula(0.0, UNIFORM), ValueError, "theta=0.0: must be positive"),
        (lambda: ClaytonCopula(1.0, UNIFORM[:1]), ValueError, "marginals has 1 entries"),
        (lambda: ClaytonCopula(1.0, [stats.norm(), "norm"]), TypeError, r"marginals\[1\]='norm'"),
        (lambda: StudentCopula(0.5, R, UNIFORM), ValueError, "df=0.5: must be at least 1"),
        (lambda: GaussianCopula(R, MIXED[:2]), ValueError, r"shape \(3, 3\): 2 marginals need"),
        (lambda: GaussianCopula(2 * R, MIXED), ValueError, "symmetric with ones on the diagonal"),
        (
            lambda: GaussianCopula([[1.0, 1.0], [1.0, 1.0]], MIXED[:2]),
            ValueError,
            "smallest eigenvalue .*: it must be positive definite",
        ),
    ],
)
def test_parameters_out_of_range_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
