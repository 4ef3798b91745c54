import dataclasses
import sys

import pytest

from densekit.bench import Run
from densekit.bench.address import _PACKAGE, _closure, _source, address

RUN = Run("two_moons", "NeuralSplineFlow", "flow")


@pytest.mark.parametrize(
    "change",
    [
        {"data": "checkerboard"}, {"model": "RealNVP"}, {"settings": {"n_bins": 4}}, {"seed": 1},
        {"budget": 3.0}, {"n_samples": 10}, {"n_test": 3}, {"metrics": ()},
    ],
)  # fmt: skip
def test_what_changes_the_result_changes_the_address(change):
    assert address(dataclasses.replace(RUN, **change)) != address(RUN)


@pytest.mark.parametrize("change", [{"label": "x"}, {"baseline": True}, {"time_limit": 1.0}])
def test_what_does_not_change_the_result_does_not(change):
    assert address(dataclasses.replace(RUN, **change)) == address(RUN)


def test_the_code_behind_a_model_is_what_it_imports():
    files = {
        path.relative_to(_PACKAGE).as_posix()
        for path in _closure(frozenset({"densekit.flows.nsf", "densekit.bench.worker"}))
    }
    assert {
        "flows/nsf.py", "transforms/spline.py", "nets/masked.py", "training.py", "base.py",
        "codecs/table.py", "bench/worker.py", "datasets/base.py", "metrics/samples.py",
    } <= files  # fmt: skip
    assert not {"vaes/vae.py", "gans/gan.py", "bench/report.py", "cli.py"} & files


def test_a_foreign_model_counts_by_its_source(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "foreign_stub.py"
    found = []
    for text in ("a = 1", "a = 2"):
        path.write_text(text)
        sys.modules.pop("foreign_stub", None)
        _source.cache_clear()
        found.append(address(dataclasses.replace(RUN, model="foreign_stub:Model")))
    assert found[0] != found[1]
