"""What a check is, and what it sees of the estimator under test."""

import contextlib
import copy
import functools
import inspect
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.base import clone

from densekit.checks import data, tables
from densekit.checks.data import Data
from densekit.checks.effort import EFFORTS, Effort, effort_named
from densekit.checks.power import Finding

FEW, MANY = 10, 600
"""Optimizer steps of a fit that only needs to exist, and of one that should have learned."""

SETS = {**data.SETS, **tables.SETS}
"""Every data set by name."""

_FITTED: OrderedDict[Any, Any] = OrderedDict()
_KEEP = 24


def expect(met: Any, expected: str, got: str, cause: str | None = None) -> None:
    """Fail the running check, in words, unless ``met``; ``cause`` is its usual cause where what was
    found says more than the check alone."""
    if not met:
        raise UnmetError(f"expected {expected}; got {got}", cause)


_NOT_REACHED = (
    "the context, or this column of it, does not reach the sampler, or that of another row does"
)
OTHER_MAP = (
    "sample and score_samples use the context in different ways: the inverse of another shift or scale, "
    "the context of another row, or one of several columns left out of the sampler alone"
)
"""Usual cause of draws that move with the context, and not as the scores do."""


def cause_under_context(share: float) -> str:
    """The usual cause where draws follow a context by ``share`` of what they should: a sampler that does
    not see it at all, or one that uses it in another way."""
    return _NOT_REACHED if abs(share) < 0.1 else OTHER_MAP


class UnmetError(AssertionError):
    """An expectation of a check that was not met."""

    def __init__(self, problem: str, cause: str | None = None):
        super().__init__(problem)
        self.cause = cause


@dataclass(frozen=True)
class Check:
    """One check: call it with an estimator; it returns, or raises an ``AssertionError``."""

    name: str
    function: Callable[["Subject"], None]
    applies: Callable[["Subject"], bool]
    cause: str
    """What usually causes a failure."""
    chance: float = 0.0
    """How often, at most, it fails an estimator that is right; 0 where nothing is left to chance."""
    effort: Effort = EFFORTS["standard"]
    """How much it may cost, where more draws see smaller defects."""

    def __call__(self, estimator: Any, seed: int = 0) -> tuple[Finding, ...]:
        """Run on ``estimator``, which may be fitted or not and is left alone.

        Each ``seed`` is a repetition of its own: other data, other fits, other draws.

        Returns
        -------
        findings : tuple of Finding
            What was estimated of draws, and the smallest defects that would have been seen.
        """
        subject = Subject(estimator, seed, self.effort)
        try:
            self.function(subject)
        except UnmetError as error:
            raise AssertionError(self._says(subject, str(error), error.cause)) from error
        except Exception as error:
            expected = f"expected no exception; got {type(error).__name__}: {error}"
            raise AssertionError(self._says(subject, expected)) from error
        return tuple(subject.findings)

    def at(self, effort: str) -> "Check":
        """The same check with another effort."""
        return replace(self, effort=effort_named(effort))

    def _says(self, subject: "Subject", problem: str, cause: str | None = None) -> str:
        return f"{subject.name} fails {self.name}: {problem}. Usual cause: {cause or self.cause}"

    @property
    def __name__(self) -> str:
        """The name, where pytest looks for it."""
        return self.name

    def __repr__(self) -> str:
        return self.name


CHECKS: list[Check] = []
"""Every check, in the order they were written in."""


def check(
    *,
    cause: str,
    when: Callable[["Subject"], bool] = lambda subject: True,
    chance: float = 0.0,
) -> Callable[[Callable[["Subject"], None]], Check]:
    """Make a check of a function of a :class:`Subject` and put it on the list."""

    def register(function: Callable[["Subject"], None]) -> Check:
        made = Check(function.__name__, function, when, cause, chance)
        CHECKS.append(made)
        return made

    return register


class Subject:
    """An estimator under test: what it claims, cheap fits of it, scores and draws from it.

    Estimators of other libraries claim nothing; they are taken to be exact densities over tables.
    """

    def __init__(self, estimator: Any, seed: int = 0, effort: Effort = EFFORTS["standard"]):
        self.estimator, self.seed = estimator, seed
        self.findings: list[Finding] = []
        self.name = type(estimator).__name__
        claims = _capabilities(estimator)
        self.ours = claims is not None
        """Whether it follows densekit's contract and not only scikit-learn's conventions."""
        scores = hasattr(estimator, "score_samples")
        self.density: str = claims.density if claims else ("exact" if scores else "none")
        self.modalities: tuple[str, ...] = tuple(claims.modalities) if claims else ("table",)
        self.context: str = claims.context if claims else "none"
        # A network costs its fits already: a third of the time for draws keeps a run short.
        share = 3 if "max_steps" in self.params else 1
        self.effort = replace(effort, seconds=effort.seconds / share)

    @functools.cached_property
    def params(self) -> dict[str, Any]:
        """Hyper-parameters; none of a class without ``get_params``."""
        return self.estimator.get_params(deep=False) if self.has_parameters else {}

    @property
    def has_parameters(self) -> bool:
        """Whether it has hyper-parameters by scikit-learn's conventions."""
        return hasattr(self.estimator, "get_params") and hasattr(self.estimator, "set_params")

    def seeded(self, seed: int) -> int:
        """``seed`` in this repetition."""
        return seed + 1000 * self.seed

    def load(self, name: str) -> Data:
        """A data set in this repetition."""
        return SETS[name](self.seed)

    @property
    def scores(self) -> bool:
        """Whether it claims a density."""
        return self.density != "none"

    def few(self, n: int) -> int:
        """n, or a quarter of it where each score is the solution of an equation and costs."""
        return n // 4 if self.density == "estimate" else n

    def takes(self, modality: str) -> bool:
        """Whether it takes tables, images or text."""
        return modality in self.modalities

    @property
    def only_images(self) -> bool:
        """Whether it takes images and no tables, so that the checks on tables cannot speak for it."""
        return self.ours and self.takes("image") and not self.takes("table")

    @property
    def data(self) -> Data:
        """The data for checks that care for none in particular."""
        return self.each_modality[0]

    @property
    def each_modality(self) -> list[Data]:
        """One set of each modality it takes."""
        names = {"table": "plane", "image": "images", "text": "strings"}
        return [self.load(name) for modality, name in names.items() if self.takes(modality)]

    def judge(self, findings: Iterable[Finding], expected: str, cause: str | None = None) -> None:
        """Keep what was found, and fail the running check by the clearest defect among it."""
        found = list(findings)
        self.findings += found
        failed = [f for f in found if f.failed]
        if failed:
            worst = max(failed, key=lambda f: abs(f.effect) / max(f.limit, 1e-300))
            more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
            expect(False, expected, f"{worst}{more}", cause)

    def note(self, what: str, n: int) -> None:
        """Keep how many rows were looked at where nothing is left to chance."""
        self.findings.append(Finding(what, 0.0, 0.0, 0.0, n))

    # Fits

    def fresh(self, steps: int | None = FEW, seed: int | None = 0, **params: Any) -> Any:
        """An unfitted copy with a seed and, where the estimator counts steps, few of them."""
        if not self.has_parameters:
            return copy.deepcopy(self.estimator)
        made = clone(self.estimator)
        seed = None if seed is None else self.seeded(seed)
        limits = {"max_steps": steps, "max_epochs": None} if steps else {}
        wanted = {**limits, "random_state": seed, **params}
        if "max_steps" not in self.params:
            wanted.pop("max_epochs", None)
        elif self.params.get("max_epochs") is None and steps:
            wanted["max_steps"] = min(steps, self.params["max_steps"] or steps)
        return made.set_params(**{k: v for k, v in wanted.items() if k in self.params})

    def fit(self, X: Any, context: Any = None, **settings: Any) -> Any:
        """A new cheap fit."""
        made = self.fresh(**settings)
        with quiet():
            return made.fit(X) if context is None else made.fit(X, context=context)

    def fitted(self, data: Data | None = None, steps: int = FEW, **params: Any) -> Any:
        """A fit that checks share: look, do not touch."""
        data = data or self.data
        if data.longest is not None:
            params = {"max_length": data.longest, **params}
        known = self.params if self.has_parameters else vars(self.estimator)
        options = tuple(sorted((k, repr(v)) for k, v in {**known, **params}.items()))
        key = (type(self.estimator), options, data.name, steps, self.seed)
        if key not in _FITTED:
            _FITTED[key] = self.fit(data.X, data.context, steps=steps, **params)
            while len(_FITTED) > _KEEP:
                _FITTED.popitem(last=False)
        return _FITTED[key]

    # Uses

    def kind(self, fitted: Any) -> str:
        """What its scores are on the data it was fitted to."""
        return str(getattr(fitted, "density_kind_", self.density))

    def transform(self, fitted: Any, context: Any = None) -> Any:
        """Standard normal noise to rows, as a torch Transform; None where there is none."""
        try:
            if context is None:
                return getattr(fitted, "transform_", None)
            return getattr(fitted.condition(context), "from_noise", None)
        except (AttributeError, NotImplementedError):
            return None

    def log_density(self, fitted: Any, X: Any, **options: Any) -> tuple[np.ndarray, np.ndarray]:
        """Scores and their standard errors as float64."""
        if self.kind(fitted) == "exact" or not self.ours:
            scores = np.asarray(fitted.score_samples(X, **options), dtype=float)
            error = np.zeros(len(scores))
        else:
            scores, error = fitted.score_samples(X, return_std=True, **options)
            error = np.nan_to_num(error, nan=0.0)  # not known: no slack for it
        return np.asarray(scores, dtype=float), np.asarray(error, dtype=float)

    def draw(self, fitted: Any, n: int, seed: int | None = 0, **options: Any) -> Any:
        """Draws, also from estimators whose ``sample`` takes no seed or returns labels too."""
        return self.draw_with(fitted, n, None if seed is None else self.seeded(seed), **options)

    def draw_with(self, fitted: Any, n: int, seed: int | None, **options: Any) -> Any:
        """The same with the seed as it is, in all repetitions."""
        if "random_state" in inspect.signature(fitted.sample).parameters:
            drawn = fitted.sample(n, random_state=seed, **options)
        else:
            fitted = copy.deepcopy(fitted)
            if "random_state" in self.params:
                fitted.set_params(random_state=seed)
            drawn = fitted.sample(n, **options)
        return drawn[0] if isinstance(drawn, tuple) else drawn


def _capabilities(estimator: Any) -> Any:
    from densekit.base import DensityEstimator
    from densekit.discovery import capabilities

    return capabilities(estimator) if isinstance(estimator, DensityEstimator) else None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings: fits are cut short on purpose here, and may say that they did not converge."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def same(a: Any, b: Any) -> bool:
    """Whether two samples, scores or states are equal, NaN equal to NaN."""
    if type(a) is not type(b):
        return False
    if hasattr(a, "equals"):
        return bool(a.equals(b))
    if hasattr(a, "detach"):
        a, b = a.detach().cpu().numpy(), b.detach().cpu().numpy()
    if isinstance(a, np.ndarray):
        nan = a.dtype.kind in "fc"
        return a.dtype == b.dtype and bool(np.array_equal(a, b, equal_nan=nan))
    if isinstance(a, float):
        return a == b or (a != a and b != b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if hasattr(a, "state_dict"):
        return same(dict(a.state_dict()), dict(b.state_dict()))
    if type(a).__module__.startswith("densekit") and hasattr(a, "__dict__"):
        return same(a.__getstate__(), b.__getstate__())
    try:
        # What compares by identity only cannot say whether it is the same.
        return bool(a == b) or type(a).__eq__ is object.__eq__  # type: ignore[comparison-overlap]
    except (TypeError, ValueError):
        return True


def numeric(X: Any) -> np.ndarray:
    """Rows of numbers as an array (n, d); frames by their codes."""
    if hasattr(X, "iloc"):
        return np.stack([_codes(X.iloc[:, j]) for j in range(X.shape[1])], 1)
    return np.asarray(X, dtype=float).reshape(len(X), -1)


def _codes(column: Any) -> np.ndarray:
    if hasattr(column, "cat"):
        return np.asarray(column.cat.codes, dtype=float)
    return np.asarray(column, dtype=float)


def label(X: Any) -> list[str]:
    """One string per row, equal for equal rows: what counting goes by."""
    if isinstance(X, list):
        return list(X)
    rows = X.astype(str).to_numpy() if hasattr(X, "iloc") else np.asarray(X).reshape(len(X), -1)
    return ["|".join(map(str, row)) for row in rows.tolist()]
