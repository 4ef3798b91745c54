"""Invalid input to public methods: each error names the problem and the remedy, and a failed fit leaves
the estimator unchanged."""

import pathlib
import re

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.exceptions import NotFittedError

from densekit import Gaussian, NGram, RealNVP, TabularAutoregressive

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 2)) * [1.0, 5.0]
FRAME = pd.DataFrame({"age": X[:, 0], "city": RNG.choice(["Bern", "Rome"], 30)})
IMAGES = RNG.integers(0, 256, (20, 2, 2)).astype(np.uint8)
WORDS = ["abba", "baab", "ab", "bb"] * 3

models = pytest.mark.parametrize(
    "make",
    [lambda **p: Gaussian(**p), lambda **p: RealNVP(max_steps=2, **p)],
    ids=["Gaussian", "RealNVP"],
)


def with_value(value, at=(3, 1)):
    bad = X.astype(complex) if isinstance(value, complex) else X.copy()
    bad[at] = value
    return bad


def refuses(act, *words):
    """A ValueError or TypeError whose message has every one of the words (regular expressions)."""
    with pytest.raises((ValueError, TypeError)) as caught:
        act()
    message = str(caught.value)
    for word in words:
        assert re.search(word, message), f"{word!r} is not in: {message}"


def unfitted(estimator):
    with pytest.raises(NotFittedError):
        estimator.sample(1)
    return not [k for k in vars(estimator) if k.endswith("_") and not k.startswith("_")]


TABLES = {
    "nan": (with_value(np.nan), ["NaN"]),
    "infinity": (with_value(np.inf), ["inf"]),
    "no rows": (X[:0], [r"\(0, 2\)"]),
    "no columns": (X[:, :0], [r"\(30, 0\)"]),
    "one row": (X[:1], ["1 sample", "2"]),
    "all columns constant": (np.ones((30, 2)), ["constant"]),
    "duplicate names": (
        pd.DataFrame(X, columns=["age", "age"]),
        ["age", "[Dd]uplicate", "rename"],
    ),
    "names of many types": (pd.DataFrame(X, columns=["age", 1]), ["str"]),
    "missing string": (FRAME.assign(city=[None, *FRAME["city"][1:]]), ["city", "1 missing"]),
    "nan in a frame": (FRAME.assign(age=[np.nan, *X[1:, 0]]), ["age", "NaN"]),
    "objects": (np.array([[1.0, [2]], [2.0, {}]], dtype=object), ["string or a number"]),
    "complex": (with_value(1j), ["[Cc]omplex"]),
    "sparse": (sparse.csr_matrix(X), ["[Ss]parse", "toarray"]),
    "0-d": (np.array(3.0), ["2D|two dimensions", r"0D|\(\)"]),
    "1-d": (X[:, 0], ["2D", "1D", "reshape"]),
    "3-d, no image": (X[None], ["two dimensions", r"\(1, 30, 2\)"]),
    "5-d": (X[None, None, None], ["two dimensions", r"\(1, 1, 1, 30, 2\)"]),
    "one string": ("abc", ["one string of 3 characters, 'abc'", "list of strings"]),
    "a long string": ("to be " * 9000, ["one string of 54,000 characters", r"X\.splitlines\(\)"]),
    "the name of a file": ("shop.csv", [r"'shop\.csv'", r"densekit\.formats\.read\(X\)"]),
    "a path": (pathlib.Path("shop.csv"), ["a path", r"densekit\.formats\.read\(X\)"]),
    "bytes": (b"a\nb", ["3 bytes", r"decode\(\)"]),
    "records": (
        FRAME.to_dict("records"),
        ["dicts", "'age', 'city'", r"pd\.DataFrame\(list\(X\)\)"],
    ),
    "a Series of records": (
        pd.Series(FRAME.to_dict("records")),
        ["dicts", "'age', 'city'", r"pd\.DataFrame\(list\(X\)\)"],
    ),
    "a dict of columns": (
        FRAME.to_dict("list"),
        ["a dict", "'age', 'city'", r"pd\.DataFrame\(X\)"],
    ),
    "a generator": ((row for row in X.tolist()), ["iterator", "read only once", r"list\(X\)"]),
    "a set": ({1.0, 2.0}, ["a set", "no order"]),
    "ragged": ([[1.0, 2.0], [3.0]], ["differ in length|inhomogeneous"]),
    "None": (None, ["X is None"]),
}


@models
@pytest.mark.parametrize("name", TABLES)
def test_fit_refuses_a_table(make, name):
    bad, words = TABLES[name]
    estimator = make()
    refuses(lambda: estimator.fit(bad), *words)
    assert unfitted(estimator)


@models
def test_a_failed_fit_keeps_the_earlier_one(make):
    estimator = make(random_state=0).fit(X)
    before = estimator.score_samples(X)
    refuses(lambda: estimator.fit(with_value(np.nan)), "NaN")
    np.testing.assert_array_equal(estimator.score_samples(X), before)


ROWS = {
    "nan": (with_value(np.nan), ["NaN"]),
    "no rows": (X[:0], [r"\(0, 2\)|0 sample"]),
    "too wide": (np.c_[X, X], ["4", "2"]),
    "too narrow": (X[:, :1], ["1", "2"]),
    "1-d": (X[:, 0], ["2D", "reshape"]),
    "3-d": (X[None], ["2D|two dimensions|dim 3|dimension"]),
    "complex": (with_value(1j), ["[Cc]omplex"]),
    "sparse": (sparse.csr_matrix(X), ["[Ss]parse"]),
    "strings": (np.full((2, 2), "a"), ["string|numeric|'a'"]),
    "records": ([{"a": 1.0, "b": 2.0}] * 3, ["dicts", "'a', 'b'"]),
    "one row as a dict": ({"a": 1.0, "b": 2.0}, ["a dict", r"pd\.DataFrame\(\[X\]\)"]),
    "one string": ("abc", ["one string of 3 characters"]),
}


@models
@pytest.mark.parametrize("name", ROWS)
def test_score_samples_refuses_rows(make, name):
    bad, words = ROWS[name]
    refuses(lambda: make().fit(X).score_samples(bad), *words)


def test_an_infinite_row_is_refused():
    estimator, bad = Gaussian().fit(X), with_value(np.inf)
    refuses(lambda: estimator.score_samples(bad), "inf")


def test_columns_are_known_by_name():
    estimator = Gaussian(random_state=0).fit(FRAME)
    refuses(
        lambda: estimator.score_samples(FRAME.rename(columns={"age": "years"})), "years", "age"
    )
    refuses(lambda: estimator.score_samples(FRAME[["age"]]), "city")


def test_an_unseen_category_is_named_and_has_no_mass():
    estimator = Gaussian().fit(FRAME)
    odd = FRAME.assign(city=["Oslo", *FRAME["city"][1:]])
    with pytest.warns(UserWarning, match=r"city.*Oslo"):
        scores = estimator.score_samples(odd)
    assert scores[0] == -np.inf
    assert np.isfinite(scores[1:]).all()


@models
def test_odd_but_good_tables_are_taken(make):
    estimator = make(random_state=0).fit(X)
    base = estimator.score_samples(X)
    read_only = X.copy()
    read_only.flags.writeable = False
    wide = np.zeros((60, 4))
    wide[::2, ::2] = X
    for good in (read_only, wide[::2, ::2], np.asfortranarray(X), X.astype(object), X.tolist()):
        np.testing.assert_allclose(estimator.score_samples(good), base, rtol=1e-5)
        again = make(random_state=0).fit(good).score_samples(X)
        np.testing.assert_allclose(again, base, rtol=1e-3, atol=1e-3)


@models
def test_one_column_and_a_constant_column(make):
    assert make().fit(X[:, :1]).sample(3).shape == (3, 1)
    estimator = make().fit(np.c_[X, np.full(30, 7.0)])
    drawn = estimator.sample(5)
    assert (drawn[:, 2] == 7).all()
    assert np.isfinite(estimator.score_samples(np.c_[X, np.full(30, 7.0)])).all()


def test_images():
    floats = IMAGES / 255
    for bad, words in (
        (floats * 300, [r"\[0, 1\]", r"\(20, 2, 2\)"]),
        (floats - 0.5, [r"\[0, 1\]"]),
        (IMAGES.astype(int) * 2, ["uint8|255"]),
        (np.where(floats > 0.9, np.nan, floats), ["NaN|nan|finite|missing"]),
        (IMAGES[:0], ["0"]),
    ):
        estimator = Gaussian()
        refuses(lambda estimator=estimator, bad=bad: estimator.fit(bad), *words)
        assert unfitted(estimator)
    estimator = Gaussian().fit(IMAGES)
    refuses(lambda: estimator.score_samples(np.zeros((3, 4, 4), np.uint8)), "4", "2")
    refuses(
        lambda: Gaussian(image_shape=(3, 3)).fit(IMAGES.reshape(20, 4)), "image_shape", "4", "9"
    )


def test_text():
    for bad, words in (
        ([], ["0|empty"]),
        (["a", None, "b"], ["None"]),
        (["a", 3], ["int|3"]),
        ([b"ab", b"\xff\xfe"], ["UTF-8|utf-8|decode"]),
        ("one string", ["one string of 10 characters", "list of strings"]),
        (["to be " * 9000], ["2 rows", "54,000 characters", "splitlines", "pieces of one length"]),
        (pathlib.Path("corpus.txt"), ["a path", r"densekit\.formats\.read"]),
        ((word for word in WORDS), ["iterator", r"list\(X\)"]),
        ([{"text": word} for word in WORDS], ["dicts", "'text'", "DataFrame"]),
        ([["a", "b"], ["b", "a"]], ["table|text"]),
    ):
        estimator = NGram(order=2)
        refuses(lambda estimator=estimator, bad=bad: estimator.fit(bad), *words)
        assert unfitted(estimator)
    estimator = NGram(order=2, max_length=4).fit(WORDS)
    refuses(lambda: estimator.score_samples(["abbab"]), "max_length", "4", "5")
    refuses(lambda: NGram(order=2, max_length=3).fit(WORDS), "max_length", "3", "4")
    assert np.isfinite(estimator.score_samples(["", "ab"])).all()
    assert NGram(order=2).fit(["", *WORDS]).sample(3)


MEMBERS = pd.DataFrame({"age": X[:, 0], "member": [True, False] * 15})


def asks_model_of_all_columns(context):
    TabularAutoregressive(max_steps=1).fit(MEMBERS).sample(2, context=context)


def asks_model_fitted_with_a_context(context):
    RealNVP(max_steps=1).fit(MEMBERS, context=["member"]).sample(2, context=context)


@pytest.mark.parametrize("ask", [asks_model_of_all_columns, asks_model_fitted_with_a_context])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("True", ["'True' is a string", "give True, without quotes"]),
        ("false", ["'false' is a string", "give False, without quotes"]),
        ("yes", ["'yes' is a string", "give True or False"]),
        (["x"], ["'x' is a string"]),
        (None, ["None is a missing value"]),
        (pd.Timestamp("2024-01-31"), ["is a Timestamp", "give True or False"]),
    ],
)
def test_a_context_of_booleans_calls_them_booleans(ask, value, words):
    refuses(lambda: ask({"member": value}), r"context\['member'\]", "holds booleans", *words)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("city", True, ["holds strings, and True is a boolean"]),
        ("city", 3, ["holds strings, and 3 is a number"]),
        ("age", "30", ["holds numbers, and '30' is a string", "a number, without quotes"]),
        ("since", "soon", ["holds datetimes, and 'soon' is a string", r"pd\.Timestamp"]),
    ],
)
def test_a_context_of_another_sort_is_named_by_column_and_value(column, value, words):
    frame = FRAME.assign(since=pd.date_range("2024-01-01", periods=30), x=X[:, 1])
    flow = RealNVP(max_steps=1).fit(frame, context=["age", "city", "since"])
    good = {"age": 1.0, "city": "Bern", "since": pd.Timestamp("2024-01-05")}
    assert len(flow.sample(2, context=good)) == 2
    refuses(lambda: flow.sample(2, context={**good, column: value}), rf"\['{column}'\]", *words)


def test_a_model_refuses_what_it_does_not_take():
    refuses(lambda: Gaussian().fit(WORDS), "Gaussian", "text", "table")
    refuses(lambda: NGram().fit(X), "NGram", "table", "text")
    refuses(lambda: Gaussian().fit(X, context=X), "context")
    refuses(lambda: RealNVP(max_steps=2).fit(X, context=X[:5]), "5", "30")
    fitted = RealNVP(max_steps=2).fit(X, context=X[:, :1])
    refuses(lambda: fitted.score_samples(X), "context")
    refuses(lambda: fitted.sample(3), "context")
    refuses(lambda: fitted.sample(3, context=X[:2, :1]), "2", "3")


@models
def test_sample_names_its_arguments(make):
    estimator = make().fit(X)
    for n in (0, -3, 2.5, "three", None, True):
        refuses(lambda n=n: estimator.sample(n), "n_samples", re.escape(str(n)))
    refuses(lambda: estimator.sample(2, random_state="seven"), "random_state", "seven")


PARAMETERS = {
    "device": ["abacus", 3],
    "dtype": ["float16", 64],
    "random_state": ["seven", -1, 1.5],
    "verbose": ["loud"],
    "support": ["negative", {"height": "positive"}],
    "kinds": [{0: "color"}, "real"],
    "dequantization_draws": [0, "many"],
    "max_steps": [0, -1, 2.5, "many"],
    "learning_rate": [0.0, -1.0, "small", float("nan")],
    "batch_size": [0, 1.5],
    "validation_fraction": [1.0, -0.1],
}


@pytest.mark.parametrize(
    ("name", "value"), [(k, v) for k, values in PARAMETERS.items() for v in values]
)
def test_a_wrong_hyper_parameter_is_named(name, value):
    estimator = RealNVP(**{"max_steps": 2, name: value})
    shown = "height|color" if isinstance(value, dict) else re.escape(str(value))
    refuses(lambda: estimator.fit(X), name, shown)
    assert unfitted(estimator)


def test_an_unknown_hyper_parameter_is_named():
    refuses(lambda: Gaussian(n_bin=3), "n_bin")
    refuses(lambda: Gaussian().set_params(n_bin=3), "n_bin")
