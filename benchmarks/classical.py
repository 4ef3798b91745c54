"""Speed of the classical models compared with scikit-learn, with the same data, settings and results.

    python benchmarks/classical.py

Both libraries run alternately in one process with the same number of threads. Ratios are medians
over rounds of scikit-learn's time divided by densekit's time: densekit is faster above 1. Writes
results/classical.json.
"""

import os
import statistics
import warnings

import numpy as np
import torch
from _record import environment, interleaved, ratio, write
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnMixture
from sklearn.neighbors import KernelDensity as SklearnKernelDensity
from threadpoolctl import threadpool_limits

from densekit import GaussianMixture, KernelDensity
from densekit.distributions import em

N, D, K = 100_000, 8, 20
ROUNDS = 5


def rows(n=N, seed=0):
    """Twenty overlapping normals, standardized; the seed changes the draws only."""
    fixed, rng = np.random.default_rng(0), np.random.default_rng(seed)
    loc, spread = 2 * fixed.normal(size=(K, D)), 0.4 * fixed.normal(size=(K, D, D))
    which = rng.integers(K, size=n)
    X = loc[which] + np.einsum("nij,nj->ni", spread[which], rng.normal(size=(n, D)))
    return (X - X.mean(0)) / X.std(0)


def brute_force(points, bandwidth, x):
    """Gaussian kernel log-densities by their definition."""
    squares = np.stack([np.square(row - points).sum(1) for row in x]) / bandwidth**2
    volume = np.log(len(points)) + D * np.log(bandwidth * np.sqrt(2 * np.pi))
    return logsumexp(-0.5 * squares, axis=1) - volume


def kernel_density(X):
    """Rows scored per second. Both are exact: scikit-learn's rtol and atol are 0, their default."""
    few, many = rows(100, seed=1), rows(4000, seed=1)
    record = {}
    for kernel in ("gaussian", "epanechnikov", "tophat"):
        ours = KernelDensity(kernel=kernel, bandwidth="scott", device="cpu").fit(X)
        theirs = SklearnKernelDensity(kernel=kernel, bandwidth=ours.bandwidth_).fit(X)
        a, b = ours.score_samples(few), theirs.score_samples(few)
        both = np.isfinite(a) & np.isfinite(b)
        seconds = interleaved(
            {
                "scikit-learn": lambda: theirs.score_samples(few),  # noqa: B023
                "densekit": lambda: ours.score_samples(many),  # noqa: B023
            },
            ROUNDS if kernel == "gaussian" else 2,
        )
        record[kernel] = {
            "rows_per_second": {
                "scikit-learn": len(few) / statistics.median(seconds["scikit-learn"]),
                "densekit": len(many) / statistics.median(seconds["densekit"]),
            },
            "ratio": ratio(seconds, "scikit-learn", "densekit") * len(many) / len(few),
            "largest_difference_nats": float(np.abs(a[both] - b[both]).max()),
            "rows_out_of_reach": {
                "scikit-learn": int((~np.isfinite(b)).sum()),
                "densekit": int((~np.isfinite(a)).sum()),
            },
            "seconds": seconds,
        }
        if kernel == "gaussian":
            tail = 3 * few
            exact = brute_force(X, ours.bandwidth_, tail)
            record["tail_rows_largest_error_nats"] = {
                "scikit-learn": float(np.abs(theirs.score_samples(tail) - exact).max()),
                "densekit": float(np.abs(ours.score_samples(tail) - exact).max()),
            }
    return record


def same_start(X):
    """EM with the same initial parameters and the same number of iterations."""
    x, n_iter, penalty = torch.tensor(X), 20, em.Penalty(1e-6)
    torch.manual_seed(0)
    start = em.start(x, None, K, 1, "full", penalty)
    theirs = SklearnMixture(
        K,
        tol=0.0,
        max_iter=n_iter,
        weights_init=start.log_weights[0].exp().numpy(),
        means_init=start.loc[0].numpy(),
        precisions_init=(start.scale[0] @ start.scale[0].mT).inverse().numpy(),
    )
    found = {}

    def ours():
        again = em.Mixtures(*(v.clone() for v in vars(start).values()))
        found["densekit"] = em.fit(x, None, again, "full", 0.0, n_iter, penalty).lower_bound

    def sklearn():
        found["scikit-learn"] = theirs.fit(X).lower_bound_

    seconds = interleaved({"scikit-learn": sklearn, "densekit": ours}, ROUNDS)
    return {
        "iterations": n_iter,
        "mean_log_likelihood": found,
        "ratio": ratio(seconds, "scikit-learn", "densekit"),
        "seconds": seconds,
    }


def whole_fit(X):
    """``fit`` with the default k-means initialization of each library, over five seeds."""
    seeds, found = iter(range(1000)), {"scikit-learn": [], "densekit": []}

    def sklearn():
        est = SklearnMixture(K, tol=1e-3, max_iter=100, random_state=next(seeds)).fit(X)
        found["scikit-learn"].append((est.lower_bound_, est.n_iter_))

    def ours():
        est = GaussianMixture(
            n_components=K,
            tol=1e-3,
            max_iter=100,
            n_init=1,
            prior_rows=0.0,
            random_state=next(seeds),
            device="cpu",
        ).fit(X)
        found["densekit"].append((est.lower_bound_, est.n_iter_))

    seconds = interleaved({"scikit-learn": sklearn, "densekit": ours}, ROUNDS)
    return {
        "ratio": ratio(seconds, "scikit-learn", "densekit"),
        "mean_log_likelihood": {
            name: statistics.median(bound for bound, _ in runs) for name, runs in found.items()
        },
        "runs": {
            name: [{"mean_log_likelihood": b, "iterations": i} for b, i in runs]
            for name, runs in found.items()
        },
        "seconds": seconds,
    }


def mixture_scores(X):
    """Rows scored per second by mixtures with the same parameters."""
    ours = GaussianMixture(n_components=K, n_init=1, random_state=0, device="cpu").fit(X)
    theirs = SklearnMixture(
        K,
        tol=0.0,
        max_iter=1,
        weights_init=ours.weights_,
        means_init=ours.means_,
        precisions_init=np.linalg.inv(ours.covariances_),
    ).fit(X[:1000])
    theirs.weights_, theirs.means_ = ours.weights_, ours.means_
    theirs.precisions_cholesky_ = np.linalg.cholesky(np.linalg.inv(ours.covariances_))
    a, b = ours.score_samples(X), theirs.score_samples(X)
    seconds = interleaved(
        {
            "scikit-learn": lambda: theirs.score_samples(X),
            "densekit": lambda: ours.score_samples(X),
        },
        ROUNDS,
    )
    return {
        "ratio": ratio(seconds, "scikit-learn", "densekit"),
        "largest_difference_nats": float(np.abs(a - b).max()),
        "seconds": seconds,
    }


def main():
    warnings.simplefilter("ignore", ConvergenceWarning)
    X, record = rows(), environment()
    record["data"] = f"{N:,} rows x {D} columns, {K} components, float64"
    for threads in sorted({1, os.cpu_count() or 1}):
        torch.set_num_threads(threads)
        with threadpool_limits(threads):
            record[f"{threads}_threads"] = {
                "kernel_density_scores": kernel_density(X),
                "gaussian_mixture_same_start": same_start(X),
                "gaussian_mixture_fit": whole_fit(X),
                "gaussian_mixture_scores": mixture_scores(X),
            }
    write("classical", record)


if __name__ == "__main__":
    main()
