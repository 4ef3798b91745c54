"""Parsing of --context and --given to columns of a model and their values."""

import io

import numpy as np
import pandas as pd
import pytest

import densekit
from densekit import formats

RNG = np.random.default_rng(0)
N = 400
FRAME = pd.DataFrame(
    {
        "age": RNG.integers(18, 90, N),
        "race": RNG.choice(["White", "Black", "Amer, other", " Asian"], N),
        "Revenue": RNG.random(N) < 0.3,
        "income": RNG.lognormal(0, 1, N),
        "size": pd.Categorical(RNG.choice(["S", "M", "L"], N), ["S", "M", "L"], ordered=True),
        "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(RNG.integers(0, 10**8, N), "s"),
        "a=b": RNG.normal(size=N),
        "grade": pd.Categorical(RNG.choice([1, 2, 4], N), [1, 2, 4], ordered=True),
    }
)
GIVEN = ["Revenue", "race", "since", "age", "income"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A model of all columns, one that was fitted with a context, and two of arrays."""
    folder = tmp_path_factory.mktemp("conditions")
    tiny = {"max_steps": 3, "random_state": 0}
    kind = densekit.TabularAutoregressive
    kind(hidden_sizes=(8,), **tiny).fit(FRAME).save(folder / "any.densekit")
    kind(hidden_sizes=(8,), **tiny).fit(FRAME[["age", "income"]].to_numpy()).save(
        folder / "array.densekit"
    )
    flow = densekit.RealNVP(n_transforms=1, **tiny)
    flow.fit(FRAME, context=GIVEN).save(folder / "given.densekit")
    flow.fit(FRAME[["income", "a=b"]].to_numpy(), context=FRAME["age"].to_numpy(float)[:, None])
    flow.save(folder / "nameless.densekit")
    densekit.Gaussian().fit(FRAME).save(folder / "plain.densekit")
    formats.write(FRAME, folder / "rows.csv", sep=";")
    return folder


@pytest.fixture
def drawn(work, done):
    def drawn(*conditions, model="any", n=60):
        given = [word for condition in conditions for word in ("--context", condition)]
        out = done("sample", work / f"{model}.densekit", "-n", n, "--seed", 0, *given)
        return pd.read_csv(io.StringIO(out), parse_dates=["since"] if model != "array" else [])

    return drawn


DAY = pd.Timestamp("2021-05-01")
MEANT = {
    "age=30..40": lambda f: f["age"].between(30, 40),
    "age=..20": lambda f: f["age"] <= 20,
    "age=80..": lambda f: f["age"] >= 80,
    "age=30.5..31.5": lambda f: f["age"] == 31,
    "age = 33": lambda f: f["age"] == 33,
    "age=33.0": lambda f: f["age"] == 33,
    "age=20,30,40": lambda f: f["age"].isin([20, 30, 40]),
    "Revenue=true": lambda f: f["Revenue"],
    "Revenue=FALSE": lambda f: ~f["Revenue"],
    "Revenue=1": lambda f: f["Revenue"],
    "race=White": lambda f: f["race"] == "White",
    "race=White,Black": lambda f: f["race"].isin(["White", "Black"]),
    "race=White, Black": lambda f: f["race"].isin(["White", "Black"]),
    "race=Amer, other": lambda f: f["race"] == "Amer, other",
    'race="Amer, other",White': lambda f: f["race"].isin(["Amer, other", "White"]),
    "race=Asian": lambda f: f["race"] == " Asian",
    "income=0.5..1": lambda f: f["income"].between(0.5, 1),
    "income=..1e-1": lambda f: f["income"] <= 0.1,
    "size=M..": lambda f: f["size"].isin(["M", "L"]),
    "size=S..M": lambda f: f["size"].isin(["S", "M"]),
    "grade=2..3": lambda f: f["grade"] == 2,
    "grade=4": lambda f: f["grade"] == 4,
    "since=2021-05-01..": lambda f: f["since"] >= DAY,
    # A date that ends an interval is in it, to its last second.
    "since=2021-05-01..2021-05-01": lambda f: f["since"].dt.normalize() == DAY,
    "since=2021-05-01T06:00..2021-05-01T12:00": lambda f: f["since"].dt.floor("6h").isin(
        [DAY + pd.Timedelta("6h"), DAY + pd.Timedelta("12h")]
    ),
    "since=2021-05-01..2021-05-02T01:30+02:00": lambda f: f["since"].between(
        DAY, DAY + pd.Timedelta("23h30m")
    ),
    "since=2021-05-01 06:30:00": lambda f: f["since"] == DAY + pd.Timedelta("6h30m"),
    "a=b=-1..1": lambda f: f["a=b"].between(-1, 1),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*hardly ever come together")
@pytest.mark.parametrize("condition", MEANT)
def test_all_draws_are_what_is_asked(drawn, condition):
    rows = drawn(condition)
    assert list(rows.columns) == list(FRAME.columns)
    assert MEANT[condition](rows).all()


def test_conditions_come_together_and_are_those_of_the_estimator(work, drawn):
    rows = drawn("age=30..40", "Revenue=true", "race=White,Black", n=9)
    asked = {"age": (30, 40), "Revenue": True, "race": ["White", "Black"]}
    same = densekit.load(work / "any.densekit").sample(9, context=asked, random_state=0)
    assert rows["income"].tolist() == pytest.approx(same["income"].tolist(), rel=1e-12)
    assert rows["age"].tolist() == same["age"].tolist()


def test_columns_of_an_array_are_numbered(drawn):
    rows = drawn("x0=30..40", "x1=..1", model="array")
    assert rows["x0"].between(30, 40).all()
    assert (rows["x1"] <= 1).all()


def test_a_model_fitted_with_a_context_takes_a_value_of_each_column(drawn, work):
    values = ["Revenue=true", "race=Amer, other", "since=2021-05-01", "age=30", "income=2"]
    rows = drawn(*values, model="given", n=5)
    context = {
        "Revenue": True, "race": "Amer, other", "since": DAY, "age": 30, "income": 2.0
    }  # fmt: skip
    for name, value in context.items():
        assert (rows[name] == value).all()
    same = densekit.load(work / "given.densekit").sample(5, context=context, random_state=0)
    assert rows["a=b"].tolist() == pytest.approx(same["a=b"].tolist())


def test_a_file_of_contexts_is_separated_as_it_is(work, done, tmp_path):
    formats.write(FRAME[GIVEN][:7], tmp_path / "contexts=7.csv", sep="|")
    out = done("sample", work / "given.densekit", "--context", tmp_path / "contexts=7.csv")
    assert pd.read_csv(io.StringIO(out))["age"].tolist() == FRAME["age"][:7].tolist()


WRONG = {
    "no such column": ("any", ["agee=3"], ["no column 'agee'; did you mean 'age'?"]),
    "no column at all": ("any", ["age"], ["write COLUMN=VALUE", "age, race, Revenue"]),
    "a column twice": ("any", ["age=3", "age=4"], ["age is given twice"]),
    "no such level": (
        "any",
        ["race=whit"],
        ["--context race=whit: column 'race' has no value 'whit'", "did you mean 'White'?",
         "' Asian', 'Amer, other', 'Black', 'White'"],
    ),
    "a level among others": ("any", ["race=White,Blak"], ["'Blak'; did you mean 'Black'?"]),
    "no such grade": ("any", ["grade=3"], ["'grade' has no value 3; it has 1, 2, 4"]),
    "no number": ("any", ["age=old"], ["column 'age' has numbers, and 'old' is not one"]),
    "no integer": ("any", ["age=30.5"], ["'age' has integers, and 30.5 is not one", "30..40"]),
    "no boolean": ("any", ["Revenue=yes"], ["'Revenue' has booleans, and 'yes'", "true or false"]),
    "no date": ("any", ["since=soon"], ["'since' has dates and times, and 'soon'", "2024-01-31"]),
    "half a date": ("any", ["since=2021"], ["'2021' is not one"]),
    "no value": ("any", ["age="], ["'age' is given no value; it has integers"]),
    "a missing value": ("any", ["income=nan"], ["finite numbers, and 'nan'"]),
    "no ends": ("any", ["age=.."], ["'age' has no end in '..'", "30..40, 30.. or ..40"]),
    "ends the wrong way": ("any", ["age=40..30"], ["nothing from 40 to 30"]),
    "an interval of words": ("any", ["race=Black..White"], ["'race' has no order", "'Black', 'White'"]),
    "an interval of booleans": ("any", ["Revenue=false..true"], ["no order", "False, True"]),
    "an end that is no level": ("any", ["size=M..XL"], ["'XL'", "'S', 'M', 'L'"]),
    "several numbers": ("any", ["income=1,2"], ["'income' has a density"]),
    "no such file": ("any", ["none.csv"], ["none.csv: no such file"]),
    "no column of an array": ("array", ["x2=1"], ["no column 'x2'; it has x0, x1"]),
    "a list for a context": (
        "given", ["race=White,Black"], ["'White,Black'", "takes one value of race"]
    ),
    "an interval for a context": (
        "given", ["since=2021-01-01..2022-01-01"], ["'since' has dates", "one value of since"]
    ),
    "a context that lacks a column": ("given", ["age=3"], ["Revenue is missing"]),
    "a context without names": ("nameless", ["x0=3"], ["an array as context", "rows.npy"]),
    "a model that takes none": (
        "plain", ["age=3"], ["fitted without a context", "TabularAutoregressive"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_names_column_value_and_levels(work, refused, case):
    model, conditions, words = WRONG[case]
    given = [word for condition in conditions for word in ("--context", condition)]
    error = refused("sample", work / f"{model}.densekit", *given)
    for word in words:
        assert word in error


def test_scores_given_columns_are_those_of_the_estimator(work, done, tmp_path):
    words = ("score", work / "any.densekit", work / "rows.csv", "-o", tmp_path / "s.parquet")
    done(*words, "--given", 'age, "a=b",race')
    found = pd.read_parquet(tmp_path / "s.parquet")["score"]
    rows = formats.read(work / "rows.csv")
    estimator = densekit.load(work / "any.densekit")
    expected = estimator.score_samples(rows, given=["age", "a=b", "race"])
    assert found.to_numpy() == pytest.approx(expected)
    assert abs(found.mean() - estimator.score_samples(rows).mean()) > 1
    done(*words, "--given", "age", "--sep", ";")
    assert pd.read_parquet(tmp_path / "s.parquet")["score"].to_numpy() == pytest.approx(
        estimator.score_samples(rows, given=["age"])
    )


@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        ("any", "age,rac", ["--given age,rac", "no column 'rac'; did you mean 'race'?"]),
        ("any", " , ", ["names no column", "age, race"]),
        ("any", ",".join(FRAME.columns), ["nothing is left to score"]),
        ("given", "age", ["RealNVP scores whole rows", "TabularAutoregressive"]),
    ],
)
def test_columns_that_cannot_be_given(work, refused, tmp_path, model, given, words):
    error = refused(
        "score",
        work / f"{model}.densekit",
        work / "rows.csv",
        "--given",
        given,
        "-o",
        tmp_path / "s.csv",
    )
    for word in words:
        assert word in error
    assert not list(tmp_path.iterdir())
