"""What ``help`` shows of an estimator is whole: every parameter once, with its type and default."""

import dataclasses
import inspect
import pydoc
import re
import warnings
from typing import Annotated, ClassVar

import pytest
from numpydoc.docscrape import NumpyDocString
from numpydoc.validate import validate

from densekit import DensityEstimator, Gaussian, NeuralDensity, NeuralSplineFlow
from densekit.discovery import all_estimators
from densekit.params import Interval

KINDS = {**all_estimators(), "DensityEstimator": DensityEstimator, "NeuralDensity": NeuralDensity}
EVERY = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
OF_DATA = [
    "image_shape",
    "support",
    "kinds",
    "atom_share",
    "step",
    "derived",
    "columns",
    "dequantization_draws",
]
RUNNING = ["device", "dtype", "random_state", "verbose"]


def sections(kind):
    """The docstring as numpydoc reads it; a section that it does not know is a warning, and an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return NumpyDocString(kind.__doc__)


def names_of(entries):
    return [name for entry in entries for name in entry.name.split(", ")]


@EVERY
def test_every_parameter_is_there_once_with_its_type_and_default(kind):
    doc = sections(kind)
    entries = [*doc["Parameters"], *doc["Other Parameters"]]
    fields = {field.name: field for field in dataclasses.fields(kind)}
    assert sorted(names_of(entries)) == sorted(fields)
    for entry in entries:
        assert entry.type.endswith(f", default={fields[entry.name].default!r}"), entry
        assert not entry.type.startswith(","), f"{entry.name} has no type"
        assert "optional" not in entry.type
        assert any(line.strip() for line in entry.desc), f"{entry.name} has no description"
        assert kind.__doc__.count(f"\n{entry.name} : ") == 1


@pytest.mark.parametrize("kind", all_estimators().values(), ids=all_estimators())
def test_the_defaults_are_those_of_the_estimator(kind):
    shown = dict(re.findall(r"^(\w+) : .*, default=(.*)$", kind.__doc__, re.M))
    assert shown == {name: repr(value) for name, value in kind().get_params().items()}


@EVERY
def test_a_model_s_own_parameters_come_first_and_the_others_in_groups(kind):
    doc = sections(kind)
    own, others = names_of(doc["Parameters"]), doc["Other Parameters"]
    written = names_of(NumpyDocString(kind._written_doc)["Parameters"])
    assert own == written
    labels = [m[1] for e in others if (m := re.match(r"\*\*(\w+)\.\*\* ", " ".join(e.desc)))]
    bases = [("Text", "TextModel"), ("Training", "NeuralDensity"), ("Data", "TakesRows")]
    above = [base.__name__ for base in kind.__mro__[1:]]
    expected = [
        label
        for label, base in bases
        if base in above and not (label == "Text" and "tokens" in own)
    ]
    assert labels == expected + ["Running"] * ("Data" in expected)
    if kind is not DensityEstimator:
        inherited = [n for n in (*OF_DATA, *RUNNING) if n not in own]
        assert names_of(others)[-len(inherited) :] == inherited


STRUCTURE = {
    "GL06",
    "GL07",
    "GL10",
    "SS01",
    "PR01",
    "PR02",
    "PR03",
    "PR04",
    "PR05",
    "PR07",
    "PR10",
}
"""numpydoc's checks: sections that it knows, in its order; parameters that there are, in the order of
the signature, each with a type and a description."""


@EVERY
def test_numpydoc_finds_no_fault_with_the_structure(kind):
    errors = validate(f"densekit.{kind.__name__}")["errors"]
    assert [error for error in errors if error[0] in STRUCTURE] == []


@EVERY
def test_attributes_of_bases_are_there_once(kind):
    attributes = names_of(sections(kind)["Attributes"])
    assert len(attributes) == len(set(attributes))
    assert {"density_kind_", "codec_", "schema_"} <= set(attributes)
    assert ("history_" in attributes) == issubclass(kind, NeuralDensity)


def test_help_shows_what_the_docstring_says():
    text = pydoc.plain(pydoc.render_doc(NeuralSplineFlow))
    shown_lines = [line.strip() for line in text.replace(" |  ", "").splitlines()]
    for line in NeuralSplineFlow.__doc__.splitlines():
        assert line.strip() in shown_lines
    assert inspect.getdoc(NeuralSplineFlow) == NeuralSplineFlow.__doc__
    assert "max_steps : int or None, default=None" in shown_lines
    assert "learning_rate : float, default=0.003" in shown_lines  # this model's
    assert "max_time : float or None, default=None" in shown_lines
    assert "patience : int or None, default=10" in shown_lines


def test_the_signature_begins_with_the_model_s_own_parameters():
    names = list(inspect.signature(NeuralSplineFlow).parameters)
    assert names[:2] == ["n_transforms", "n_bins"]
    assert names[-4:] == RUNNING
    assert sorted(names) == sorted(NeuralSplineFlow().get_params())
    assert inspect.signature(NeuralSplineFlow).parameters["dtype"].default == "float32"


def test_a_class_of_the_user_s_own_is_described_too():
    class Documented(Gaussian):
        """A Gaussian with more.

        Parameters
        ----------
        low, high : float
            Ends.
        shrinkage : float, optional
            Another.

        Notes
        -----
        At length.
        """

        low: float = 0.5
        high: Annotated[float, Interval(gt=0)] = 2.0
        shrinkage: float | None = None
        unsaid: int = 3
        dtype: str = "float32"
        hidden: ClassVar[int] = 7

    class Silent(Documented):
        more: int = 1

    for kind, own in ((Documented, ["low", "high", "shrinkage", "unsaid"]), (Silent, ["more"])):
        doc = sections(kind)
        entries = {e.name: e for e in (*doc["Parameters"], *doc["Other Parameters"])}
        assert names_of(doc["Parameters"]) == own
        assert set(entries) == set(kind().get_params())
    assert entries["low"].type == "float, default=0.5"
    assert entries["high"].desc == ["Ends."]
    assert entries["shrinkage"].type == "float or None, default=None"
    assert entries["more"].type == "int, default=1"
    assert entries["dtype"].type == '{"float32", "float64"}, default=\'float32\''
    assert sections(Documented)["Notes"] == ["At length."]
    assert Silent.__doc__.startswith("Silent, a kind of Documented.\n")
    assert "Notes" not in Silent.__doc__
    assert "unsaid" not in Gaussian.__doc__
