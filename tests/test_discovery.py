"""Every model is found, exported and describes itself."""

import inspect
import subprocess
import sys

import pytest
from sklearn.mixture import GaussianMixture as ForeignMixture

import densekit
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
    assert "Gaussian" in dir(densekit)
    with pytest.raises(AttributeError, match="no attribute 'Gausian'"):
        densekit.Gausian  # noqa: B018
