import numpy as np
import pytest

from densekit import datasets
from densekit.datasets import catalog, uci

_CLEAN = ("kin40k", "pumadyn32nm", "pendulum", "protein")


def test_test_rows_are_those_of_fold_zero(monkeypatch):
    x = np.arange(40.0).reshape(20, 2)
    mask = np.eye(10, dtype=int)[np.arange(20) % 10]
    files = {
        "uci_regression/yacht/data.csv.gz": "\n".join(f"{a},{b}" for a, b in x),
        "uci_regression/yacht/test_mask.csv.gz": "\n".join(",".join(map(str, m)) for m in mask),
    }
    monkeypatch.setattr("densekit.datasets.fetch.text", lambda path: files[path].encode())
    data = uci.regression("yacht")
    assert data.test.for_scoring().tolist() == [[0, 1], [20, 21]]
    assert len(data.valid) == 2
    every = np.concatenate([data.train, data.valid, data.test.for_scoring()])
    assert np.array_equal(every[every[:, 0].argsort()], x)
    assert np.array_equal(uci.regression("yacht").valid, data.valid)


@pytest.mark.parametrize("name", _CLEAN)
def test_clean_sets_hold_nothing_that_a_likelihood_could_run_away_on(local, name):
    data = local(f"uci_{name}")
    every = np.concatenate([data.train, data.valid, data.test.for_scoring()])
    assert len(np.unique(every, axis=0)) == len(every)
    assert min(len(np.unique(column)) for column in every.T) > 20
    correlation = np.corrcoef(every.T) - np.eye(every.shape[1])
    assert np.abs(correlation).max() < 0.98


def test_all_sets_of_the_folder_are_there(local):
    local("uci_yacht")
    path = catalog.file("uci_regression/yacht/data.csv.gz").locations[0]
    if catalog.data_folder() is None:
        pytest.skip("the set comes from the cache: no folder to list")
    folders = {f"uci_{p.name}" for p in path.parents[1].iterdir() if p.is_dir()}
    assert folders == {n for n in datasets.names() if n.startswith("uci_")}
