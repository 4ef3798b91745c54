"""fit, sample, score_samples and save need the core dependencies only, for every model."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

import densekit
from densekit.discovery import all_estimators, capabilities
from densekit.extras import require

ROOT = Path(__file__).parents[1]
FAST = {
    "max_steps": 3,
    "max_epochs": None,
    "max_time": None,
    "hidden_sizes": (8,),
    "n_transforms": 2,
    "width": 16,
    "n_layers": 1,
    "n_heads": 2,
    "random_state": 0,
    "device": "cpu",
}
"""Settings that make a fit take a fraction of a second, for the models that have them."""

rng = np.random.default_rng(0)
ROWS = {
    "table": pd.DataFrame({"x": rng.normal(size=60), "y": rng.normal(3.0, 2.0, size=60)}),
    "image": rng.integers(0, 256, size=(20, 4, 4)).astype("uint8"),
    "text": ["the cat sat", "the dog sat", "a cat ran"] * 5,
}


def shift(n_features):
    """A factory for ``TransformFlow``."""
    import pyro.distributions.transforms as transforms

    return [transforms.affine_autoregressive(n_features, [8]).inv]


def small(name):
    """An estimator that fits fast, and rows that it accepts."""
    kind = all_estimators()[name]
    settings = {k: v for k, v in FAST.items() if k in kind().get_params()}
    if "transforms" in kind().get_params():
        settings["transforms"] = shift
    return kind(**settings), ROWS[capabilities(kind).modalities[0]]


@pytest.mark.parametrize("name", all_estimators())
@pytest.mark.filterwarnings("ignore")
def test_model_fits_samples_scores_and_is_saved(name, tmp_path):
    model, X = small(name)
    model = clone(model).fit(X)
    drawn = model.sample(4, random_state=0)
    assert type(drawn) is type(X) or isinstance(drawn, np.ndarray | list)
    assert len(drawn) == 4
    model.save(tmp_path / "model.densekit")
    parameters = {"transforms": shift} if "transforms" in model.get_params() else {}
    again = densekit.load(tmp_path / "model.densekit", parameters=parameters)
    if hasattr(model, "score_samples"):
        scores = model.score_samples(X)
        assert scores.shape == (len(X),)
        assert np.isfinite(scores).all()
        np.testing.assert_allclose(again.score_samples(X), scores, rtol=1e-4, atol=1e-4)


BLOCKED = """
from importlib.machinery import PathFinder
blocked, find = {blocked!r}, PathFinder.find_spec
def find_others(name, path=None, target=None):
    return None if name.split(".")[0] in blocked else find(name, path, target)
PathFinder.find_spec = find_others
"""
OPTIONAL = (
    "typer rich jinja2 markupsafe matplotlib PIL pooch requests filelock psutil pyarrow polars "
    "numba llvmlite tokenizers nflows"
)


def run_without(modules, code):
    """What a fresh Python prints where some modules cannot be imported."""
    code = BLOCKED.format(blocked=modules.split()) + code
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_no_optional_dependency_is_imported():
    done = run_without(
        OPTIONAL,
        """
import json, tempfile
import numpy as np, pandas as pd, densekit
X = pd.DataFrame({"x": np.random.default_rng(0).normal(size=80), "s": ["f", "m"] * 40})
model = densekit.RealNVP(max_steps=2, hidden_sizes=(4,), random_state=0, device="cpu").fit(X)
with tempfile.TemporaryDirectory() as folder:
    model.save(folder + "/m.densekit")
    same = densekit.load(folder + "/m.densekit").score(X) == model.score(X)
moons = densekit.datasets.load("two_moons").train.shape
print(json.dumps([bool(same), list(model.sample(2).columns), moons]))
""",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [True, ["x", "s"], [4500, 2]]


@pytest.mark.parametrize(
    ("module", "code", "extra"),
    [
        ("typer", "import runpy; runpy.run_module('densekit', run_name='__main__')", "cli"),
        ("jinja2", "from densekit import bench", "bench"),
        ("psutil", "from densekit import formats", "files"),
        ("psutil", "import densekit.formats", "files"),
        ("pyarrow", "from densekit.formats import read", "files"),
        ("PIL", "from densekit.formats.reading import read", "files"),
    ],
)
def test_a_missing_dependency_names_its_extra(module, code, extra):
    done = run_without(module, code)
    assert done.returncode != 0
    assert re.search(
        rf"{module}\b.* not installed: pip install 'densekit\[{extra}\]'", done.stderr
    )


def test_require_lists_all_that_is_missing():
    require("bench", "json", "sys")
    with pytest.raises(
        ImportError, match=r"no_a, no_b are not installed: pip install 'densekit\[x"
    ):
        require("x", "json", "no_a", "no_b")
