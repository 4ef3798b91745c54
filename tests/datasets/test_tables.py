import numpy as np
import pandas as pd
import pytest

from densekit.datasets import tables


def parts_of(data):
    return data.train, data.valid, data.test.for_scoring()


def test_categories_are_declared_for_all_parts_alike():
    frame = tables.categories(pd.DataFrame({"a": ["y", "x", "z", "x"], "b": [1.5, 2, 3, 4]}))
    first, second = tables.take(frame, ([0, 1], [3, 2]))
    assert first["a"].dtype == second["a"].dtype == pd.CategoricalDtype(["x", "y", "z"])
    assert second["a"].tolist() == ["x", "z"]
    assert second.index.tolist() == [0, 1]
    assert second["b"].dtype == float


def test_numbers_that_are_whole_everywhere_become_integers():
    frame = tables.integers(pd.DataFrame({"a": [1.0, 2.0], "b": [1.0, 2.5], "c": [3, 4]}))
    assert [dtype.kind for dtype in frame.dtypes] == ["i", "f", "i"]


def test_adult_keeps_the_original_parts_and_what_is_missing(local):
    train, valid, test = parts_of(local("adult"))
    missing = [int((part == "?").sum().sum()) for part in (train, valid, test)]
    assert [missing[0] + missing[1], missing[2]] == [4262, 2203]
    assert train["income"].cat.categories.tolist() == ["<=50K", ">50K"]
    # 24.08 % of adult.data and 23.62 % of adult.test, as adult.names has it.
    both = pd.concat([train, valid])["income"]
    assert (both == ">50K").mean() == pytest.approx(0.2408, abs=5e-5)
    assert (test["income"] == ">50K").mean() == pytest.approx(0.2362, abs=5e-5)
    assert all(train[c].dtype == test[c].dtype for c in train)
    assert {str(d) for d in train.dtypes if d.kind != "O"} == {"int64"}


def test_churn_has_no_names_of_customers(local):
    data = local("churn")
    assert "Surname" not in data.train
    assert data.train["Geography"].cat.categories.tolist() == ["France", "Germany", "Spain"]
    assert pd.concat(parts_of(data))["Exited"].sum() == 2037


def test_cardio_is_whole_and_its_levels_are_ordered(local):
    data = local("cardio")
    every = pd.concat(parts_of(data))
    assert (every["sys_bp"].min(), every["sys_bp"].max()) == (-150, 16_020)
    assert every["gluc"].cat.ordered
    kinds = {c.name: c.kind for c in data.schema.columns}
    assert (kinds["gluc"], kinds["smoke"], kinds["age"]) == ("ordinal", "ordinal", "integer")


def test_california_housing_lacks_only_the_rows_without_bedrooms(local):
    every = pd.concat(parts_of(local("california_housing")))
    assert len(every) == 20_640 - 207
    assert every["median_house_value"].max() == 500_001
    assert every["ocean_proximity"].nunique() == 5
    assert every["total_bedrooms"].dtype == np.int64


def test_small_sets_of_uci(local):
    wine, radar = local("wine_white"), local("ionosphere")
    quality = pd.concat(parts_of(wine))["quality"]
    assert quality.value_counts().sort_index().tolist() == [20, 163, 1457, 2198, 880, 175, 5]
    assert pd.concat(parts_of(radar))["class"].value_counts().to_dict() == {"g": 225, "b": 126}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("abalone", "integer"), ("buddy", "categorical"), ("california", "real"),
        ("default", "categorical"), ("house", "integer"), ("king", "integer"),
        ("wilt", "categorical"),
    ],
)  # fmt: skip
def test_targets_of_tabddpm_are_what_the_task_says(local, name, kind):
    columns = {c.name: c.kind for c in local(name).schema.columns}
    assert columns["y"] == kind
    assert all(columns[c] == "categorical" for c in columns if c.startswith("cat"))


def test_identifiers_are_left_out_and_times_are_in_their_own_steps(local):
    king = pd.concat(parts_of(local("king")))
    assert max(king[c].nunique() for c in king) < len(king) / 2
    buddy = pd.concat(parts_of(local("buddy")))
    days = pd.to_datetime(buddy["num_0"], unit="D")
    minutes = pd.to_datetime(buddy["num_1"], unit="m")
    assert days.dt.year.between(1994, 2019).all()
    assert minutes.dt.year.between(2015, 2019).all()
