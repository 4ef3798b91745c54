"""Hyper-parameters: constraints checked once, with errors that name parameter, value and remedy."""

from dataclasses import fields
from typing import Annotated

import numpy as np
import pytest

from densekit.discovery import all_estimators
from densekit.hyperparameters import HyperParameters
from densekit.params import Interval, OneOf, check_parameters, parse_settings, parse_value


def toy(**values):
    from dataclasses import dataclass

    @dataclass(kw_only=True)
    class Settings:
        width: Annotated[int, Interval(ge=2, le=64)] = 8
        rate: Annotated[float, Interval(gt=0)] | None = None
        mode: Annotated[str, OneOf("fast", "exact")] | None = "fast"
        sizes: Annotated[tuple[int, ...], Interval(ge=1)] = (4,)
        flag: bool = False

    return Settings(**values)


@pytest.mark.parametrize(
    "good",
    [
        {},
        {"width": np.int64(2)},
        {"rate": 3},
        {"rate": np.float32(0.1)},
        {"mode": None},
        {"sizes": [1, 2]},
        {"sizes": ()},
        {"flag": np.True_},
    ],
)
def test_legal_values_pass(good):
    check_parameters(toy(**good))


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ({"width": 1}, ValueError, r"width=1\): width must be at least 2 and at most 64"),
        ({"width": 2.0}, TypeError, "width must be an integer, got float; the default is 8"),
        ({"width": True}, TypeError, "width must be an integer, got bool"),
        ({"rate": 0.0}, ValueError, "rate must be greater than 0"),
        ({"rate": float("nan")}, ValueError, "rate=nan"),
        ({"rate": "high"}, TypeError, "rate must be a number or None, got str"),
        ({"mode": "fats"}, ValueError, "did you mean 'fast'"),
        ({"sizes": (4, 0)}, ValueError, "sizes must be at least 1"),
        ({"sizes": (4, "x")}, TypeError, "sizes must be a tuple of"),
        ({"flag": 1}, TypeError, "flag must be True or False"),
    ],
)
def test_illegal_values_are_named(bad, error, message):
    with pytest.raises(error, match=message):
        check_parameters(toy(**bad))


@pytest.mark.parametrize("name", sorted(all_estimators()))
def test_every_default_is_legal_and_immutable(name):
    estimator = all_estimators()[name]()
    check_parameters(estimator)
    for field in fields(estimator):
        assert isinstance(field.default, str | int | float | bool | tuple | None), field.name


@pytest.mark.parametrize("name", sorted(all_estimators()))
def test_no_field_is_lost_on_the_way_to_get_params(name):
    kind = all_estimators()[name]
    annotated = {
        key
        for parent in kind.__mro__
        if issubclass(parent, HyperParameters)
        for key, hint in vars(parent).get("__annotations__", {}).items()
        if "ClassVar" not in str(hint) and not key.startswith("_")
    }
    assert annotated == set(kind().get_params())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 1e-3),
        (".5", 0.5),
        ("true", True),
        ("False", False),
        ("None", None),
        ("positive", "positive"),
        ('"3"', "3"),
        (" 7 ", 7),
        ("[64, 64]", (64, 64)),
        ('{income = "positive", age = ["interval", 0, 120]}',
         {"income": "positive", "age": ("interval", 0, 120)}),
        ("1\nother = 2", "1\nother = 2"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_value_is_read_as_toml_or_as_itself(text, value):
    read = parse_value(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["width"], "'width' is not of the form key=value"),
        (["=3"], "'=3' is not of the form key=value"),
        (["widht=3"], "Settings has no setting 'widht'; did you mean 'width'?"),
        (["xyz=3"], "no setting 'xyz'; known are flag, mode, rate, sizes, width"),
        (["width=3", "width=4"], "width is set twice, to 3 and to 4"),
        (["sizes=[3"], r"sizes=\[3: no TOML value"),
        (["mode='fast"], "mode='fast: no TOML value"),
    ],
)
def test_wrong_settings_are_named(pairs, message):
    known = [field.name for field in fields(toy())]
    with pytest.raises(ValueError, match=message):
        parse_settings(pairs, known, "Settings")


def test_what_is_parsed_is_legal():
    pairs = ["width=9", "rate=1e-3", "mode=fast", "sizes=[4, 8]", "flag=true"]
    check_parameters(toy(**parse_settings(pairs, [field.name for field in fields(toy())], "toy")))
