"""Densities of other libraries as estimators that the contract suite takes, each wrapped as its users
would: standardized rows for networks, a seed for draws where the library goes by a global generator.
"""

import sys
from pathlib import Path

import numpy as np
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "checks"))

from zoo import Law

_STEPS = 150


class StatsmodelsKernels(Law):
    """statsmodels' KDEMultivariate with the normal reference bandwidth. It has no draws: a draw here is
    a row plus a normal of the bandwidth, which is the law that it scores."""

    def _learn(self, Z):
        from statsmodels.nonparametric.kernel_density import KDEMultivariate

        self.rows_ = Z
        self.model_ = KDEMultivariate(Z, "c" * Z.shape[1], bw="normal_reference")

    def _log_density(self, Z):
        return np.log(np.atleast_1d(self.model_.pdf(Z)))

    def _draw(self, n, rng):
        rows = self.rows_[rng.integers(0, len(self.rows_), n)]
        return rows + self.model_.bw * rng.normal(size=rows.shape)


class Network(Law):
    """A flow on torch, trained by Adam on all rows for few steps."""

    def _learn(self, Z):
        import torch

        torch.set_num_threads(1)
        x = torch.as_tensor(Z, dtype=torch.float32)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0 if self.random_state is None else self.random_state)
            self.flow_ = self._flow(Z.shape[1])
            optimizer = torch.optim.Adam(self.flow_.parameters(), lr=1e-3)
            for _ in range(_STEPS):
                optimizer.zero_grad()
                (-self._scores(x).mean()).backward()
                optimizer.step()

    def _log_density(self, Z):
        import torch

        with torch.no_grad():
            parts = torch.as_tensor(Z, dtype=torch.float32).split(8192)
            return torch.cat([self._scores(part) for part in parts]).double().numpy()

    def _draw(self, n, rng):
        import torch

        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**62)))
            return self._draws(n).double().numpy()


class Zuko(Network):
    """A flow of zuko's with its default layers."""

    kind = "NSF"

    def _flow(self, d):
        import zuko

        return getattr(zuko.flows, self.kind)(d, hidden_features=(32,))

    def _scores(self, x):
        return self.flow_().log_prob(x)

    def _draws(self, n):
        return self.flow_().sample((n,))


class ZukoNSF(Zuko):
    """Autoregressive rational-quadratic splines."""


class ZukoMAF(Zuko):
    """Autoregressive affine maps."""

    kind = "MAF"


class ZukoGF(Zuko):
    """Gaussianization: mixtures of normal distribution functions, which bisection inverts."""

    kind = "GF"

    def _flow(self, d):
        import zuko

        return zuko.flows.GF(d)


class NflowsSplines(Network):
    """nflows' autoregressive rational-quadratic splines with linear tails."""

    def _flow(self, d):
        from nflows import distributions, flows, transforms

        layers = []
        for _ in range(2):
            layers.append(transforms.ReversePermutation(d))
            layers.append(
                transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
                    d, 32, num_bins=8, tails="linear", tail_bound=5.0
                )
            )
        base = distributions.StandardNormal([d])
        return flows.Flow(transforms.CompositeTransform(layers), base).eval()

    def _scores(self, x):
        return self.flow_.log_prob(x)

    def _draws(self, n):
        return self.flow_.sample(n)


class NflowsMAF(NflowsSplines):
    """nflows' masked autoregressive flow."""

    def _flow(self, d):
        from nflows import flows

        made = flows.MaskedAutoregressiveFlow(d, 32, num_layers=2, num_blocks_per_layer=1)
        return made.eval()


class CopulasGaussian(Law):
    """SDV's Gaussian copula with normal margins, and ``probability_density`` as its score."""

    def _learn(self, Z):
        import pandas as pd
        from copulas.multivariate import GaussianMultivariate
        from copulas.univariate import GaussianUnivariate

        self.model_ = GaussianMultivariate(distribution=GaussianUnivariate)
        self.model_.fit(pd.DataFrame(Z, columns=self._names(Z)))

    @staticmethod
    def _names(Z):
        return [f"column{j}" for j in range(Z.shape[1])]

    def _log_density(self, Z):
        import pandas as pd

        found = self.model_.probability_density(pd.DataFrame(Z, columns=self._names(Z)))
        return np.log(np.atleast_1d(found))

    def _draw(self, n, rng):
        self.model_.set_random_state(int(rng.integers(2**31)))
        return self.model_.sample(n).to_numpy()


def vine(random_state=None):
    """pyvinecopulib's VineDensity, an estimator of scikit-learn's already."""
    from pyvinecopulib.sklearn import VineDensity

    return VineDensity(random_state=random_state)


WRAPPED = {
    "scikit-learn KernelDensity": lambda: KernelDensity(bandwidth=0.3),
    "scikit-learn GaussianMixture": lambda: GaussianMixture(2),
    "pyvinecopulib VineDensity": vine,
    "statsmodels KDEMultivariate": StatsmodelsKernels,
    "zuko NSF": ZukoNSF,
    "zuko MAF": ZukoMAF,
    "zuko GF": ZukoGF,
    "nflows splines": NflowsSplines,
    "nflows MAF": NflowsMAF,
    "SDV copulas GaussianMultivariate": CopulasGaussian,
}
"""Of each the estimator, with the settings of a user in a hurry."""
