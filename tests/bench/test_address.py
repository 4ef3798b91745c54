import dataclasses
import sys

import pytest

from densekit.bench import Run
from densekit.bench.address import _PACKAGE, _closure, _path, _source, address

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
        for path in _closure("densekit.flows.nsf") | _closure("densekit.bench.worker")
    }
    assert {
        "flows/nsf.py", "transforms/spline.py", "nets/masked.py", "training/loop.py", "base.py",
        "codecs/table.py", "bench/worker.py", "datasets/base.py", "metrics/samples.py",
    } <= files  # fmt: skip
    others = {"vaes/vae.py", "gans/gan.py", "bench/report/report.py", "cli/__init__.py"}
    assert all((_PACKAGE / name).is_file() for name in others)
    assert not others & files


@pytest.mark.parametrize(
    "changed", ["foreign_stub/model.py", "foreign_stub/parts/net.py", "foreign_stub/__init__.py"]
)
def test_a_foreign_model_counts_by_its_package_and_by_ours(tmp_path, monkeypatch, changed):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "foreign_stub" / "parts").mkdir(parents=True)
    texts = {
        "foreign_stub/__init__.py": "",
        "foreign_stub/parts/__init__.py": "",
        "foreign_stub/parts/net.py": "depth = 1",
        "foreign_stub/unused.py": "",
        "foreign_stub/model.py": "from densekit import neural\nfrom .parts import net\n"
        "import foreign_stub\nclass Model:\n    pass",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)

    def found():
        for name in [name for name in sys.modules if name.startswith("foreign_stub")]:
            del sys.modules[name]
        _source.cache_clear()
        _path.cache_clear()
        return address(dataclasses.replace(RUN, model="foreign_stub.model:Model"))

    before = found()
    assert {path.name for path in _closure("foreign_stub.model")} >= {
        "neural.py", "loop.py", "net.py", "model.py"
    }  # fmt: skip
    (tmp_path / "foreign_stub/unused.py").write_text("a = 2")
    assert found() == before
    (tmp_path / changed).write_text(texts[changed] + "\na = 2")
    assert found() != before
