"""Every estimator on hostile input: numbers and rows like those of fit, or an error that names the
culprit and leaves nothing fitted."""

import dataclasses
import functools
import warnings

import numpy as np
import pytest
from hostile_rows import alike, any_table, images, texts
from hypothesis import strategies as st
from verdicts import cells, dtypes, examples, hold, refusal, unchanged

from densekit import Gaussian, NoiseConditionalScore, all_estimators

CHEAP = {
    "max_steps": 3,
    "hidden_sizes": (8,),
    "n_transforms": 2,
    "width": 8,
    "n_layers": 1,
    "n_heads": 2,
    "n_levels": 3,
    "n_ode_steps": 4,
    "n_probes": 2,
    "n_importance": 2,
    "n_init": 1,
    "dequantization_draws": 2,
    "order": 2,
    "random_state": 0,
    "verbose": False,
}
SUBJECTS = [
    pytest.param(modality, kind, id=f"{kind.__name__}-{modality}")
    for modality in ("table", "image", "text")
    for kind in all_estimators(modality=modality).values()
]


def cheap(kind, **options):
    defaults = {f.name: f.default for f in dataclasses.fields(kind)}
    given = {k: v for k, v in (CHEAP | options).items() if k in defaults}
    if isinstance(defaults.get("order"), str):  # of columns, and not of an n-gram
        del given["order"]
    return given


@pytest.fixture(scope="module", autouse=True)
def imported():
    """Import lazily imported modules before global state is watched."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for kind in (Gaussian, NoiseConditionalScore):
            kind(**cheap(kind)).fit(np.eye(4)).score_samples(np.eye(4))


BORDER = (
    "X ",
    "rows",
    "of X",
    "mages",
    "image_shape",
    "support",
    "X[",
    "Expected",
    "array",
    "names",
)
"""What the border's errors speak of where no column is to blame."""


def drawn_for(modality):
    """A strategy of rows, the words of which an error must have one (none: it must fit), options."""
    if modality == "table":
        words = st.tuples(any_table, st.just({}))
        return words.map(lambda t: (t[0].X, blame(t[0]), t[1]))
    if modality == "image":
        good = images().filter(lambda t: t[0].dtype.kind != "O")
        return good.map(lambda t: (t[0], () if t[1] and len(t[0]) > 1 else BORDER, t[2]))
    return texts().map(lambda t: (t[0], (*BORDER, *t[1]), t[1]))


def blame(drawn):
    """The columns at fault, or the border where the form of the table is."""
    culprits = tuple(drawn.culprits)
    shaped = drawn.wrong or len(cells(drawn.X)) == 0 or len(drawn.X) < 2
    return culprits + alike + (BORDER if shaped else ())


def assert_scores(scores, n):
    assert scores.shape == (n,)
    assert not np.isnan(scores).any()
    assert not np.isposinf(scores).any()


def judge_estimator(kind, rows):
    """Fit, score and draw; also return whether fit accepted the rows."""
    X, words, options = rows
    estimator = kind(**cheap(kind, **options))
    with unchanged(X):
        _, error = refusal(lambda: estimator.fit(X), *words)
        if error is not None:
            assert not [k for k in vars(estimator) if k.endswith("_")]
            return "refused"
        n = len(X)
        if estimator._capabilities.scores:
            assert_scores(estimator.score_samples(X), n)
        drawn = estimator.sample(5, random_state=0)
    assert len(drawn) == 5
    table = estimator.schema_.modality == "table"
    assert type(drawn) is (np.ndarray if table and isinstance(X, list) else type(X))
    if table and not isinstance(X, list):
        # scikit-learn makes numbers of an array of Python objects.
        assert dtypes(drawn) == dtypes(X) or X.dtype == object
    # Bytes that are no text come out as U+FFFD, three bytes: such a draw may be too long to score.
    if estimator._capabilities.scores and options.get("tokens", "character") == "character":
        assert_scores(scores := estimator.score_samples(drawn), 5)
        assert np.isfinite(scores).sum() >= 3
    return "right"


@examples(20, 300)
@pytest.mark.parametrize(("modality", "kind"), SUBJECTS)
def test_estimators(modality, kind, n):
    name = f"{kind.__name__} on {modality}s"
    hold(name, n, functools.partial(judge_estimator, kind), drawn_for(modality))
