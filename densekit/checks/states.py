"""What an estimator keeps, hands on and leaves alone: parameters, copies, seeds, inputs."""

import copy
import dataclasses
import inspect
import pickle
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import clone

from densekit.checks import process
from densekit.checks.data import Data, take
from densekit.checks.subject import Subject, check, expect, quiet, same


def close(a: Any, b: Any, within: float = 1.0) -> bool:
    """Whether scores agree to the last digits of the precision they come in."""
    single = 4 in (np.asarray(a).dtype.itemsize, np.asarray(b).dtype.itemsize)
    atol, rtol = (2e-4, 2e-5) if single else (1e-8, 1e-8)
    return np.allclose(a, b, atol=atol * within, rtol=rtol * within, equal_nan=True)


def apart(a: Any, b: Any) -> str:
    """How far two sets of scores are apart, in words."""
    gap = np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float))
    return f"scores up to {np.nanmax(gap):.3g} apart"


def expect_twin(subject: Subject, one: Any, two: Any, data: Data, how: str) -> None:
    """Two fitted estimators score and draw alike."""
    if subject.scores:
        a, b = one.score_samples(data.rows), two.score_samples(data.rows)
        expect(close(a, b), f"the same scores {how}", apart(a, b))
    a, b = subject.draw(one, 9, seed=5), subject.draw(two, 9, seed=5)
    expect(same(a, b), f"the same draws {how}", "other draws")


@check(
    cause="a field without annotation, a forgotten dataclass decorator, or **kwargs in __init__"
)
def every_field_is_a_parameter(subject: Subject) -> None:
    """Every dataclass field and every annotated public class attribute is in ``get_params``."""
    kind = type(subject.estimator)
    names = {f.name for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    for base in kind.__mro__ if dataclasses.is_dataclass(kind) else ():
        for name, hint in inspect.get_annotations(base).items():
            constant = "ClassVar" in str(hint)
            if name in vars(base) and not constant and not name.startswith("_"):
                names.add(name)
    missing = sorted(names - set(subject.params))
    expect(not missing, "every field in get_params()", f"{missing} missing")


@check(
    cause="__init__ or set_params copies, converts or validates what it is given",
    when=lambda s: s.has_parameters,
)
def parameters_survive_clone(subject: Subject) -> None:
    """``clone`` and ``set_params(**get_params())`` keep every value as it was."""
    made = clone(subject.estimator)
    for other in (made, clone(made).set_params(**subject.params)):
        new = other.get_params(deep=False)
        changed = [k for k, v in subject.params.items() if not same(v, new.get(k))]
        expect(not changed, "the same parameters in a clone", f"{changed} changed")
    fitted = subject.fitted()
    leaked = [k for k in vars(clone(fitted)) if k.endswith("_") and not k.startswith("_")]
    expect(not leaked, "an unfitted clone of a fitted estimator", f"{leaked} carried over")


@check(cause="fit returns another object than the estimator")
def fit_returns_self(subject: Subject) -> None:
    """``fit`` returns the estimator."""
    made = subject.fresh()
    with quiet():
        back = made.fit(subject.data.X)
    expect(back is made, "the estimator from fit", type(back).__name__)


@check(
    cause="density_kind_ or base_measure_ not set by fit, or errors reported that are not there",
    when=lambda s: s.ours,
)
def says_what_its_scores_are(subject: Subject) -> None:
    """``density_kind_`` and ``base_measure_`` are legal; standard errors are zero where exact."""
    for data in subject.each_modality:
        fitted = subject.fitted(data)
        kind, measure = fitted.density_kind_, fitted.base_measure_
        kinds = ("exact", "lower_bound", "estimate", "none")
        expect(kind in kinds, f"density_kind_ among {kinds}", repr(kind))
        measures = ("lebesgue", "counting", "product")
        expect(measure in measures, f"base_measure_ among {measures}", repr(measure))
        expect((kind == "none") == (not subject.scores), "kind 'none' without density", repr(kind))
        if subject.scores:
            scores, std = fitted.score_samples(data.rows, return_std=True)
            plain = fitted.score_samples(data.rows)
            expect(close(scores, plain), "the same scores with return_std", apart(scores, plain))
            expect(std.shape == scores.shape, f"errors of shape {scores.shape}", f"{std.shape}")
            expect((std >= 0).all(), "errors that are not negative", f"{std}")
            exact = kind == "exact"
            zero = bool((std == 0).all())
            expect(zero or not exact, "standard errors of zero where exact", f"{std}")


@check(cause="it claims no density and yet defines score_samples", when=lambda s: not s.scores)
def without_density_no_scores(subject: Subject) -> None:
    """Without a density there is no ``score_samples``, and asking for it says why."""
    for estimator in (subject.fresh(), subject.fitted()):
        for name in ("score_samples", "score"):
            expect(not hasattr(estimator, name), f"no attribute {name}", "one")
            try:
                getattr(estimator, name)
            except AttributeError as error:
                whole = f"{error} {error.__cause__ or ''}"
                expect("density" in whole, "an error that says there is no density", whole)


@check(
    cause="a sum where a mean belongs, or the log of a mean",
    when=lambda s: s.scores and hasattr(s.estimator, "score"),
)
def score_is_the_mean(subject: Subject) -> None:
    """``score(X)`` is the mean of ``score_samples(X)``, a float, and ``y`` changes nothing."""
    for data in subject.each_modality:
        fitted = subject.fitted(data)
        each = np.asarray(fitted.score_samples(data.rows), dtype=float)
        expect(each.shape == (12,), "scores of shape (12,)", f"{each.shape}")
        score, mean = fitted.score(data.rows), float(each.mean())
        expect(close(score, np.float32(mean)), f"score {mean:.4f}, the mean", f"{score:.4f}")
        expect(isinstance(score, float), "a float from score", type(score).__name__)
        labeled = fitted.score(data.rows, np.zeros(12))
        expect(close(score, labeled), "y ignored", f"{labeled} with y and {score} without")


@check(
    cause="statistics of the batch (batch normalization, a per-batch constant, noise per batch) "
    "in the score",
    when=lambda s: s.scores,
)
def scores_do_not_depend_on_the_batch(subject: Subject) -> None:
    """A row scores the same alone, in a batch of any size, and in any order."""
    for data in subject.each_modality:
        fitted = subject.fitted(data)
        whole = fitted.score_samples(data.rows)
        alone = [fitted.score_samples(take(data.rows, [i])) for i in range(3)]
        single, some = np.concatenate(alone), whole[:3]
        expect(close(some, single), "a row's score alone as in a batch", apart(some, single))
        n = subject.few(1500)
        many = fitted.score_samples(data.new[:n])[:12]
        expect(close(whole, many), f"a row's score in 12 as in {n}", apart(whole, many))
        turned = fitted.score_samples(take(data.rows, slice(None, None, -1)))[::-1]
        expect(close(whole, turned), "no effect of the order of rows", apart(whole, turned))


@check(
    cause="scores or fits take the dtype or the memory layout of the input into the computation",
    when=lambda s: s.scores and s.takes("table"),
)
def scores_do_not_depend_on_the_dtype(subject: Subject) -> None:
    """float32, float64, lists, Fortran order and strides of the same numbers score the same."""
    X = subject.load("plane").X.astype(np.float32)
    rows = X[:12].astype(np.float64)
    reference = subject.fit(X.astype(np.float64))
    base = reference.score_samples(rows)
    wide = np.zeros((12, 4))
    wide[:, ::2] = rows
    views = {
        "float32": X[:12],
        "a list": rows.tolist(),
        "Fortran order": np.asfortranarray(rows),
        "a strided view": wide[:, ::2],
    }
    for name, view in views.items():
        scores = reference.score_samples(view)
        expect(close(base, scores, 5), f"the same scores for {name}", apart(base, scores))
    scores = subject.fit(X).score_samples(rows)
    expect(close(base, scores, 20), "the same scores after fit on float32", apart(base, scores))


@check(
    cause="a tensor made on the CPU inside the model, or float32 kept at reduced precision",
    when=lambda s: s.ours and s.scores and torch.cuda.is_available(),
)
def scores_do_not_depend_on_the_device(subject: Subject) -> None:
    """Fitted on the CPU and loaded on a GPU, it scores the same."""
    import densekit

    for data in subject.each_modality:
        fitted = subject.fitted(data, device="cpu")
        with tempfile.TemporaryDirectory() as folder:
            fitted.save(path := Path(folder) / "model.densekit")
            moved = densekit.load(path, device="cuda")
        a, b = fitted.score_samples(data.rows), moved.score_samples(data.rows)
        expect(np.allclose(a, b, atol=1e-2, rtol=1e-3), "the same scores on a GPU", apart(a, b))


@check(cause="the seed does not reach every draw of fit, or a global generator does")
def fit_follows_the_seed(subject: Subject) -> None:
    """Two fits with one seed score and draw alike, whatever the global generators are at."""
    for data in subject.each_modality:
        numpy, own, theirs = np.random.get_state(), random.getstate(), torch.get_rng_state()  # noqa: NPY002
        try:
            two = subject.fit(data.X)
            random.random(), np.random.random(7), torch.rand(7)  # noqa: NPY002
            expect_twin(
                subject, subject.fit(data.X), two, data, "from two fits with random_state=0"
            )
        finally:
            np.random.set_state(numpy)  # noqa: NPY002
            random.setstate(own)
            torch.set_rng_state(theirs)


@check(
    cause="np.random, random or torch.manual_seed used without a generator of its own; "
    "check_random_state(None) is NumPy's global generator"
)
def global_generators_are_left_alone(subject: Subject) -> None:
    """fit, sample and score leave the generators of Python, NumPy and torch as they were."""
    data = subject.data
    for seed in (0, None):
        before = _generators()
        fitted = subject.fit(data.X, seed=seed)
        _expect_unmoved("fit", seed, before)
        subject.draw(fitted, 5, seed=seed)
        _expect_unmoved("sample", seed, before)
        if subject.scores:
            fitted.score_samples(data.rows)
            _expect_unmoved("score_samples", seed, before)


def _generators() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    numpy = [kind, np.asarray(keys).tolist(), *rest]
    return {
        "random": random.getstate(),
        "numpy.random": numpy,
        "torch": torch.get_rng_state().tolist(),
    }


def _expect_unmoved(action: str, seed: int | None, before: dict[str, Any]) -> None:
    moved = [name for name, state in _generators().items() if state != before[name]]
    wanted = f"{action} with random_state={seed} to leave global generators alone"
    expect(not moved, wanted, f"{' and '.join(moved)} moved on")


@check(cause="state that __getstate__ leaves out, or an object that cannot be copied")
def copies_score_and_draw_alike(subject: Subject) -> None:
    """pickle and deepcopy keep scores and draws."""
    for data in subject.each_modality:
        fitted = subject.fitted(data)
        expect_twin(subject, fitted, copy.deepcopy(fitted), data, "after deepcopy")
        expect_twin(subject, fitted, pickle.loads(pickle.dumps(fitted)), data, "after pickle")


@check(
    cause="a file that lacks part of the state, or a score that depends on the process",
    when=lambda s: s.ours and type(s.estimator).__module__.startswith("densekit."),
)
def saved_and_loaded_in_a_new_process(subject: Subject) -> None:
    """``save``, then ``densekit.load`` in another process: the same scores and draws."""
    for data in subject.each_modality:
        fitted = subject.fitted(data, device="cpu")
        with tempfile.TemporaryDirectory() as folder:
            fitted.save(path := Path(folder) / "model.densekit")
            seed = subject.seeded(5)
            scores, draws = process.load_and_use(path, data.rows, 9, seed, subject.scores)
        if subject.scores:
            own = fitted.score_samples(data.rows)
            expect(close(own, scores), "the same scores in a new process", apart(own, scores))
        mine = subject.draw(fitted, 9, seed=5)
        near = same(mine, draws) or (data.modality == "table" and np.allclose(mine, draws))
        expect(near, "the same draws in a new process", f"{draws} for {mine}")


@check(cause="fit builds on what an earlier fit left behind, or a cache is not emptied")
def refit_equals_a_fresh_fit(subject: Subject) -> None:
    """Fitted to other data first, then to X: the same as fitted to X at once."""
    for data in subject.each_modality:
        used = subject.fit(take(data.new, slice(0, 300)))
        if subject.scores:
            used.score_samples(data.rows)
        with quiet():
            used.fit(data.X)
        expect_twin(subject, subject.fit(data.X), used, data, "from a refit and a fresh fit")


@check(cause="scoring or drawing writes to the estimator")
def use_changes_no_state(subject: Subject) -> None:
    """Scoring and drawing leave every attribute as it was."""
    for data in subject.each_modality:
        fitted = copy.deepcopy(subject.fitted(data))
        before = copy.deepcopy(dict(vars(fitted)))
        subject.draw(fitted, 5)
        if subject.scores:
            fitted.score_samples(data.rows)
            if hasattr(fitted, "score"):
                fitted.score(data.rows)
        after = dict(vars(fitted))
        # A private cache may be filled; what was there must stay what it was.
        new = [k for k in after if k not in before and not k.startswith("_")]
        changed = [k for k in before if k not in after or not same(before[k], after[k])]
        expect(not new + changed, "unchanged attributes", f"{new + changed} changed")


@check(cause="the input is standardized or shuffled in place")
def the_input_is_not_changed(subject: Subject) -> None:
    """fit and score_samples leave X as it was, and take one that cannot be written to."""
    for data in subject.each_modality:
        X, rows = copy.deepcopy(data.X), copy.deepcopy(data.rows)
        fitted = subject.fit(X)
        if subject.scores:
            fitted.score_samples(rows)
        kept = same(X, data.X) and same(rows, data.rows)
        expect(kept, "X unchanged by fit and score_samples", "another X")
        if isinstance(X, np.ndarray):
            X.flags.writeable = rows.flags.writeable = False
            fitted = subject.fit(X)
            if subject.scores:
                fitted.score_samples(rows)


@check(cause="column names or dtypes are dropped on the way", when=lambda s: s.takes("table"))
def frames_come_back_as_frames(subject: Subject) -> None:
    """Fitted on a DataFrame, it draws DataFrames with the same columns, dtypes and values."""
    import pandas as pd

    frames = [pd.DataFrame(subject.load("plane").X, columns=["left", "right"])]
    frames += [subject.load("mixed").X] if subject.ours else []
    for X in frames:
        fitted = subject.fit(X)
        drawn = subject.draw(fitted, 30)
        expect(isinstance(drawn, pd.DataFrame), "a DataFrame", type(drawn).__name__)
        columns = list(X.columns)
        expect(list(drawn.columns) == columns, f"columns {columns}", f"{list(drawn.columns)}")
        for name in columns:
            got, want = drawn[name].dtype, X[name].dtype
            expect(got == want, f"dtype {want} in column {name!r}", f"{got}")
            if X[name].nunique() < 5:
                alien = set(drawn[name]) - set(X[name])
                expect(not alien, f"values of column {name!r}", f"{alien}")
        if subject.scores:
            scores = np.asarray(fitted.score_samples(X[:20]), dtype=float)
            expect(not np.isnan(scores).any(), "scores of a frame", "NaN")
            swapped = X.loc[:19, columns[::-1]]
            try:
                turned = np.asarray(fitted.score_samples(swapped), dtype=float)
            except (ValueError, KeyError):
                continue
            expect(
                close(scores, turned), "columns found by name, or an error", apart(scores, turned)
            )
