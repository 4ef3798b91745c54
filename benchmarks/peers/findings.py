"""What the contract suite finds in other libraries, each finding in a few lines with the right value.

    python -m venv peers && peers/bin/pip install -r benchmarks/peers/requirements.txt
    PYTHONPATH=. peers/bin/python benchmarks/peers/findings.py               # the findings alone
    PYTHONPATH=. peers/bin/python benchmarks/peers/findings.py --suite 600   # and the suite, for so long

The findings use the library alone: no wrapper, and nothing of densekit. The suite found those that a
wrapped estimator of a table of numbers has; the others are what its checks compute, done to categories
and to single transforms. What the suite says of each estimator of wrapped.py is beside them; a check
that was run is not run again. Writes
results/peer_findings.json, from which the docs make their page.
"""

import argparse
import importlib.metadata
import json
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from _record import RESULTS, environment

PATH = RESULTS / "peer_findings.json"
EFFORT = "quick"
LIBRARIES = (
    "scikit-learn", "statsmodels", "pyvinecopulib", "zuko", "nflows", "copulas", "torch", "numpy",
)  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """A few lines of code whose last value, ``got``, should be ``right``."""

    library: str
    title: str
    what: str
    code: str
    right: float
    why: str
    """Where the right value comes from."""
    check: str
    """The check of the suite that tests for it."""


FINDINGS = (
    Finding(
        "scikit-learn",
        "Draws of a mixture are in order",
        "GaussianMixture draws its components one after the other: neighboring draws are not "
        "independent, and the first rows of a sample are all of one component.",
        """\
import numpy as np
from sklearn.mixture import GaussianMixture
X = np.r_[np.arange(-1, 1, 0.01) - 5, np.arange(-1, 1, 0.01) + 5][:, None]
x = GaussianMixture(2, random_state=0).fit(X).sample(10_000)[0][:, 0]
got = np.corrcoef(x[1:], x[:-1])[0, 1]""",
        0.0,
        "independent draws; 0.01 is a standard error",
        "draws_are_independent",
    ),
    Finding(
        "scikit-learn",
        "A score that is a sum",
        "KernelDensity.score is the sum over rows, as it documents, where GaussianMixture.score is the "
        "mean: the two cannot be compared, nor folds of unlike size.",
        """\
import numpy as np
from sklearn.neighbors import KernelDensity
X = np.random.default_rng(0).normal(size=(200, 1))
model = KernelDensity().fit(X)
got = model.score(X) / model.score_samples(X).mean()""",
        1.0,
        "DensityMixin's convention, that of GaussianMixture",
        "score_is_the_mean",
    ),
    Finding(
        "statsmodels",
        "Categories that were never seen have mass",
        "KDEMultivariate gives a mass to every category that was never seen, so that masses over all "
        "values add up to more than one.",
        """\
import numpy as np
from statsmodels.nonparametric.kernel_density import KDEMultivariate
x = np.random.default_rng(0).integers(0, 3, 200)
model = KDEMultivariate(x, "u", bw=[0.3])
got = model.pdf(np.arange(10)).sum()""",
        1.0,
        "a mass function; over the three levels alone the sum is one already",
        "sums_to_one_over_cells",
    ),
    Finding(
        "statsmodels",
        "Ordered levels lose mass",
        "KDEMultivariate with an ordered column of three levels has a seventh of its mass on integers "
        "that are no level.",
        """\
import numpy as np
from statsmodels.nonparametric.kernel_density import KDEMultivariate
x = np.random.default_rng(0).integers(0, 3, 200)
model = KDEMultivariate(x, "o", bw=[0.3])
got = model.pdf(np.arange(3)).sum()""",
        1.0,
        "a mass function over the levels; the kernel's sum is one over all integers only",
        "sums_to_one_over_cells",
    ),
    Finding(
        "SDV copulas",
        "A density without its margins",
        "GaussianMultivariate.probability_density is the normal density of the normal scores, without "
        "the densities of the margins: it does not change with the units and has no mass of one.",
        """\
import numpy as np, pandas as pd
from copulas.multivariate import GaussianMultivariate
from copulas.univariate import GaussianUnivariate
X = pd.DataFrame(np.random.default_rng(0).normal(0, [1, 10], (5000, 2)), columns=["a", "b"])
model = GaussianMultivariate(distribution=GaussianUnivariate)
model.fit(X)
got = model.probability_density(pd.DataFrame({"a": [0.0], "b": [0.0]})).item()""",
        1 / (2 * np.pi * 10),
        "N(0, 1) times N(0, 100) at the origin, 1 / (20 pi); the fit moves it by 2 %",
        "integrates_to_one_on_a_plane",
    ),
    Finding(
        "pyvinecopulib",
        "A category has impossible rows",
        "VineDensity turns an unordered category of three levels into two columns of 0 and 1, and gives "
        "a mass to rows that have a 1 in both, which no data can have.",
        """\
import numpy as np, pandas as pd
from pyvinecopulib.sklearn import VineDensity
rng, x, levels = np.random.default_rng(0), np.linspace(-8, 8, 400), list("abc")
k = pd.Categorical(rng.choice(levels, 300))
model = VineDensity().fit(pd.DataFrame({"k": k, "x": rng.normal(size=300)}))
grids = [pd.DataFrame({"k": pd.Categorical([a] * 400, levels), "x": x}) for a in levels]
got = sum(np.trapezoid(np.exp(model.score_samples(grid)), x) for grid in grids)""",
        1.0,
        "the sum over three levels of integrals over x (trapezoids of 0.04)",
        "sums_to_one_over_cells",
    ),
    Finding(
        "zuko",
        "Draws of Gaussianization end at 10",
        "GF draws by bisection within [-10, 10], and moves values beyond to the ends: of a flow that "
        "was not trained, nearly half of all draws.",
        """\
import torch, zuko
torch.manual_seed(0)
flow = zuko.flows.GF(1)()
x = flow.sample((5000,))
got = ((x.abs() > 9.99) & (x.abs() < 10.01)).float().mean().item()""",
        0.00049,
        "the flow's own density integrated over 9.99 < |x| < 10.01 by trapezoids",
        "transforms_there_and_back",
    ),
    Finding(
        "zuko",
        "A bounded inverse",
        "MonotonicTransform inverts by bisection within [-10, 10], whatever the value: what NAF, UNAF "
        "and GF draw ends there, while their scores do not.",
        """\
import torch, zuko
identity = zuko.transforms.MonotonicTransform(lambda x: x)
got = identity.inv(torch.tensor(12.0)).item()""",
        12.0,
        "the inverse of the identity; the docstring calls 10 the bound of the domain",
        "transforms_there_and_back",
    ),
    Finding(
        "nflows",
        "The inverse of Sigmoid stops",
        "The inverse of Sigmoid stops at logit(1 - 1e-6), in 64 bits too.",
        """\
import torch
from nflows.transforms import Sigmoid
x = torch.tensor([[20.0]], dtype=torch.float64)
y, _ = Sigmoid()(x)
got = Sigmoid().inverse(y)[0].item()""",
        20.0,
        "the inverse; rounding of 1 - 2e-9 in 64 bits moves it by 1e-7",
        "transforms_there_and_back",
    ),
    Finding(
        "nflows",
        "A layer without an inverse",
        "NaiveLinear has no inverse with torch 2: it calls torch.solve, which is gone.",
        """\
import torch
from nflows.transforms import NaiveLinear
layer, x = NaiveLinear(3), torch.ones(1, 3)
y, _ = layer(x)
got = (layer.inverse(y)[0] - x).abs().max().item()""",
        0.0,
        "there and back",
        "transforms_there_and_back",
    ),
)


def reproduced():
    """Each finding with what its code gives here."""
    found = []
    for finding in FINDINGS:
        names = {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                exec(finding.code, names)  # the very lines that the page shows
            got = float(names["got"])
        except Exception as error:
            got = f"{type(error).__name__}: {error}".splitlines()[0]
        found.append(
            {
                "library": finding.library,
                "title": finding.title,
                "what": finding.what,
                "code": finding.code,
                "got": got,
                "right": finding.right,
                "why": finding.why,
                "check": finding.check,
            }
        )
        print(f"{finding.library}: {got} where {finding.right:.6g} is right", flush=True)
    return found


def suite(known, seconds):
    """Of each wrapped estimator the checks that it fails, and what they say; ``known`` is not run
    again."""
    from wrapped import WRAPPED

    from densekit.checks import density_checks

    until = time.monotonic() + seconds
    for name, make in WRAPPED.items():
        mine = known.setdefault(name, {"passed": [], "failed": {}})
        try:
            estimator = make()
        except ImportError as error:
            mine["failed"]["import"] = str(error)
            continue
        checks = density_checks(estimator)
        mine["checks"] = len(checks)
        for _, check in checks:
            if check.name in mine["passed"] or check.name in mine["failed"]:
                continue
            if time.monotonic() > until:
                break
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    check.at(EFFORT)(make())
                mine["passed"].append(check.name)
            except AssertionError as error:
                mine["failed"][check.name] = str(error)
        print(f"{name}: {len(mine['passed'])} passed, fails {sorted(mine['failed'])}", flush=True)
    return known


def versions():
    """Of the libraries that are installed here."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", type=float, default=0, help="seconds to run the suite for")
    arguments = parser.parse_args()
    old = json.loads(PATH.read_text()) if PATH.exists() else {}
    known = old.get("suite", {}) if old.get("versions") == versions() else {}
    if arguments.suite:
        known = suite(known, arguments.suite)
    record = {
        "environment": environment(),
        "versions": versions(),
        "effort": EFFORT,
        "findings": reproduced(),
        "suite": known,
    }
    PATH.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
