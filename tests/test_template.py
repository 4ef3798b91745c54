"""A model outside of the package, made from the template alone, keeps the whole contract."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

import densekit
from densekit.checks import check_id, density_checks

TEMPLATE = Path(__file__).parents[1] / "docs" / "model_template.py"


def new_model(folder):
    """The class of a model file that was copied into a new package ``my_models`` and renamed."""
    package = folder / "my_models"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    source = TEMPLATE.read_text().replace("TemplateFlow", "LinearFlow")
    (package / "linear_flow.py").write_text(source)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        return importlib.import_module("my_models.linear_flow").LinearFlow
    finally:
        sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def kind(tmp_path_factory):
    yield new_model(tmp_path_factory.mktemp("package"))
    for name in ("my_models", "my_models.linear_flow"):
        sys.modules.pop(name)


def test_every_check_of_the_contract_passes(kind):
    pairs = density_checks(kind(n_transforms=1))
    assert len(pairs) > 30
    failed = []
    for pair in pairs:
        try:
            pair[1](pair[0])
        except AssertionError as error:
            failed.append(f"{check_id(pair[1])}: {error}")
    assert not failed


def test_it_learns_the_normal_distribution_that_it_is(kind):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(2000, 2)) @ [[1.0, 0.8], [0.0, 0.6]]
    flow = kind(max_steps=300, learning_rate=1e-2, random_state=0).fit(X)
    # Entropy of the rows' law: log(2 pi e) + log |det|.
    assert flow.score(X) == pytest.approx(-np.log(2 * np.pi * np.e) - np.log(0.6), abs=0.08)


def test_it_is_saved_and_loaded_only_where_its_module_is_allowed(kind, tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 2))
    flow = kind(max_steps=3, random_state=0).fit(X)
    flow.save(tmp_path / "flow.densekit")
    with pytest.raises(ValueError, match="allow="):
        densekit.load(tmp_path / "flow.densekit")
    again = densekit.load(tmp_path / "flow.densekit", allow=("my_models.linear_flow",))
    np.testing.assert_allclose(again.score_samples(X), flow.score_samples(X), rtol=1e-5)
