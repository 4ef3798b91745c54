"""Every model is found, exported and describes itself."""

import ast
import inspect
import pathlib
import subprocess
import sys

import pytest
from sklearn.mixture import GaussianMixture as ForeignMixture

import densekit
from densekit import Capabilities, discovery
from densekit.autoregressive.language import LanguageModel, NeuralTokenModel, TextModel, TokenModel
from densekit.discovery import FAMILIES, all_estimators, capabilities, family_of


def test_every_family_has_a_model_and_every_model_an_export_line():
    for family in FAMILIES:
        found = all_estimators(family=family)
        assert found, family
        for name, kind in found.items():
            assert getattr(densekit, name) is kind, (
                f"{name} lacks its line in densekit/__init__.py"
            )
            assert family_of(kind) == family


def test_modalities_are_filtered():
    assert set(all_estimators(modality="text")) == {
        "MaskedDiffusion",
        "NGram",
        "RecurrentLanguageModel",
        "Seq2Seq",
        "TransformerLanguageModel",
    }
    for kind in all_estimators(modality="image").values():
        assert "image" in kind._capabilities.modalities


@pytest.mark.parametrize("bad", [{"family": "flow"}, {"modality": "audio"}])
def test_unknown_filters_are_named(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))}="):
        all_estimators(**bad)


@pytest.mark.parametrize("kind", all_estimators().values(), ids=all_estimators())
def test_models_are_final_and_document_their_formula_and_example(kind):
    bases = (
        densekit.DensityEstimator,
        densekit.NeuralDensity,
        LanguageModel,
        TextModel,
        TokenModel,
        NeuralTokenModel,
    )
    assert kind.__bases__[0] in bases
    # By what its module has: the broken estimators of other tests say they come from there.
    derived = [k for k in kind.__subclasses__() if k.__module__.startswith("densekit.")]
    assert not [k for k in derived if hasattr(sys.modules[k.__module__], k.__name__)]
    doc = inspect.getdoc(kind)
    assert ">>>" in doc
    assert any(str(year) in doc for year in range(1950, 2027)), "name the paper and its year"
    assert capabilities(kind()) is capabilities(kind)


def test_foreign_estimators_declare_nothing():
    with pytest.raises(TypeError, match="declares no capabilities"):
        capabilities(ForeignMixture())
    assert family_of(ForeignMixture()) == "other"


def test_importing_densekit_imports_no_torch():
    code = "import sys, densekit; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="no attribute 'Gausian'"):
        densekit.Gausian  # noqa: B018


MODULES = {"bench", "checks", "datasets", "formats", "metrics"}


def test_modules_that_users_call_by_name_are_there_without_an_import():
    code = """
import densekit, sys
assert not [m for m in sys.modules if m.startswith("densekit.")]
names = dir(densekit)
assert "two_moons" in densekit.datasets.names()
for name in ("bench", "checks", "formats", "metrics"):
    assert getattr(densekit, name).__name__ == f"densekit.{name}"
assert dir(densekit) == names
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_dir_lists_the_public_names_and_no_others():
    public = {"Capabilities", "DensityEstimator", "NeuralDensity", "__version__"}
    public |= {"ColumnWarning", "Description", "describe"}
    public |= {"all_estimators", "capabilities", "distill", "load"}
    assert set(dir(densekit)) == set(densekit.__all__) == {*public, *MODULES, *all_estimators()}
    for name in dir(densekit):
        assert getattr(densekit, name) is not None


def test_type_checkers_and_editors_see_every_public_name():
    """They read imports only, so everything that ``__getattr__`` finds is also imported for them."""
    tree = ast.parse(pathlib.Path(densekit.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    seen = {a.asname: (node.module, a.name) for node in block.body for a in node.names}
    known = {name: (module, name) for name, module in densekit._EXPORTS.items()}
    assert seen == known | {name: ("densekit", name) for name in MODULES}


def test_a_list_that_imports_no_model_states_what_the_classes_do():
    found = {
        name: (family_of(kind), kind._capabilities) for name, kind in all_estimators().items()
    }
    assert discovery.listed() == found
    assert list(discovery.listed()) == list(found)
    for family, modality in (("autoregressive", None), (None, "text"), ("vaes", "image")):
        part = discovery.listed(family=family, modality=modality)
        assert list(part) == list(all_estimators(family=family, modality=modality))
    with pytest.raises(ValueError, match="family='tree'"):
        discovery.listed(family="tree")
    with pytest.raises(ValueError, match="modality='images'"):
        discovery.listed(modality="images")


MODEL = """
from densekit.autoregressive.language import TextModel
from densekit.abilities import Capabilities
WIDE = ("table", "image")
class Plain(TextModel):
    _capabilities = Capabilities(density="none", view="typed", modalities=("text",))
class Inherited(Plain):
    pass
class Computed(Plain):
    _capabilities = Capabilities(density="none", view="typed", modalities=WIDE)
class Unstated:
    pass
"""


def test_capabilities_are_read_as_they_stand_or_not_at_all(monkeypatch):
    body = ast.parse(MODEL).body
    monkeypatch.setattr(discovery, "_source", lambda module: body)
    plain = Capabilities(density="none", view="typed", modalities=("text",))
    assert discovery._stated("densekit.vaes.mine", "Plain") == plain
    assert discovery._stated("densekit.vaes.mine", "Inherited") == plain
    # Where the class has to be asked, no base speaks for it.
    assert discovery._stated("densekit.vaes.mine", "Computed") is None
    assert discovery._stated("densekit.vaes.mine", "Unstated") is None


def test_what_cannot_be_read_from_the_source_is_imported(monkeypatch):
    expected = discovery.listed(family="classical")
    monkeypatch.setattr(discovery, "_source", lambda module: [])
    assert discovery.listed(family="classical") == expected
