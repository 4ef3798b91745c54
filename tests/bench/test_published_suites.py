"""The suites under benchmarks/ work on the day someone has their files: each, on data of its shape."""

from pathlib import Path

import numpy as np
import pytest

from densekit import datasets
from densekit.bench import check, load_suite
from densekit.bench.suite import resolve

FILES = sorted((Path(__file__).parents[2] / "benchmarks" / "suites").glob("*.toml"))
SHAPES = {
    "power": (6,),
    "gas": (8,),
    "hepmass": (21,),
    "miniboone": (43,),
    "bsds300": (63,),
    "mnist": (28, 28),
    "fashion_mnist": (28, 28),
    "binarised_mnist": (28, 28),
    "binarised_mnist_dynamic": (28, 28),
}
BINARY = ("accidents", "baudio", "bbc", "bnetflix", "dna", "jester", "mushrooms", "nips", "nltcs",
          "plants", "pumsb_star", "voting")  # fmt: skip
RUNS = {
    f"{path.stem}-{run.data}-{run.label}": run
    for path in FILES
    for run in load_suite(str(path)).runs
    if not run.baseline
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_suite_names_what_there_is(path):
    suite = load_suite(str(path))
    check(suite)
    assert suite.description


@pytest.mark.parametrize("name", RUNS)
def test_a_run_fits_and_scores_rows_of_its_shape(name):
    run = RUNS[name]
    if run.data in BINARY:
        # Widths differ from 16 to over a thousand; the arithmetic is the same.
        assert datasets.info(run.data).modality == "table"
        bits = np.random.default_rng(0).integers(0, 2, size=(200, 20))
        settings = {**run.settings, "max_steps": 1, "batch_size": 64}
        model = resolve(run.model)(random_state=run.seed, **settings).fit(bits)
        assert np.isfinite(model.score_samples(bits[:3])).all()
        assert set(np.unique(model.sample(20))) <= {0, 1}
        return
    shape = SHAPES[run.data]
    assert datasets.info(run.data).modality == ("table" if len(shape) == 1 else "image")
    rng = np.random.default_rng(0)
    if len(shape) == 1:
        X = rng.normal(size=(600, *shape)).astype(np.float32)
    else:
        top = 1 if "binarized" in run.data else 255
        X = rng.integers(0, top + 1, size=(160, *shape)).astype(np.uint8)
    settings = {**run.settings, "max_steps": 1, "dequantization_draws": 2, "batch_size": 64}
    if "binarized" in run.data:
        settings["support"] = ("interval", 0, 1)  # as the data set says
    model = resolve(run.model)(random_state=run.seed, **settings).fit(X)
    assert model.n_iter_ == 1
    assert np.isfinite(model.score_samples(X[:3])).all()
    assert model.sample(2).shape == (2, *shape)
