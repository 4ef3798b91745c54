import json
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from densekit.cli import app, main

SUITE = """
budget = 1
n_samples = 50
[[runs]]
data = "two_moons"
model = "Gaussian"
[[runs]]
data = "two_moons"
model = "cli_stub:Broken"
"""
STUB = """
from densekit import Gaussian
class Broken(Gaussian):
    def _fit(self, events, context):
        raise ArithmeticError("it broke")
"""


def call(capsys, *words):
    with pytest.raises(SystemExit) as caught:
        main(words)
    out, err = capsys.readouterr()
    return caught.value.code, out, err


def test_bench_prints_a_table_and_says_what_failed(tmp_path, monkeypatch):
    (tmp_path / "cli_stub.py").write_text(STUB)
    (tmp_path / "tiny.toml").write_text(SUITE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["bench", "tiny.toml"])
    assert done.exit_code == 1, done.output
    assert "exact, lebesgue" in done.stdout
    assert "the truth" in done.stdout
    assert "two_moons--Broken--0 failed: ArithmeticError: it broke" in done.stdout
    assert "2 runs, 1 failed" in done.stdout
    assert "[2/2]" in done.stderr
    folder = tmp_path / "densekit-results" / "tiny"
    statuses = {p.stem: json.loads(p.read_text())["status"] for p in folder.glob("*.json")}
    assert statuses == {"two_moons--Gaussian--0": "ok", "two_moons--Broken--0": "failed"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bench", "quik"], "no suite is called 'quik'; did you mean 'quick'?"),
        (["bench", "none.toml"], "cannot read the suite none.toml"),
        (["bench"], "Missing argument"),
        (["bench", "quick", "--jobs", "0"], "jobs"),
        (["bench", "quick", "--frob"], "--frob"),
        (["bnch"], "bnch"),
        (["list", "--modality", "images"], "modality='images'"),
    ],
)
def test_errors_are_one_line(capsys, words, message):
    status, out, err = call(capsys, *words)
    assert status == 2
    assert out == ""
    assert err.startswith("densekit: ")
    assert err.count("\n") == 1
    assert message in err


def test_list_shows_every_model(capsys):
    import densekit

    status, out, _ = call(capsys, "list")
    assert status == 0
    assert all(name in out for name in densekit.all_estimators())
    _, texts, _ = call(capsys, "list", "--modality", "text")
    assert "NGram" in texts
    assert "KernelDensity" not in texts


def test_a_bare_call_is_for_help(capsys):
    status, out, err = call(capsys)
    assert (status, err) == (0, "")
    assert "bench" in out


def test_help_imports_no_torch():
    code = (
        "import sys; from densekit.cli import main\n"
        "try:\n    main(['bench', '--help'])\n"
        "except SystemExit as e:\n    assert e.code == 0\n"
        "assert not {'torch', 'pandas', 'sklearn', 'rich'} & set(sys.modules)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "SUITE" in done.stdout
    # A bound that only a wrong import breaks, even on a busy machine.
    assert time.perf_counter() - start < 10


def test_it_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "densekit", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "densekit" in done.stdout


def test_interrupted(capsys, monkeypatch):
    from densekit import bench

    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "load_suite", interrupt)
    status, _, err = call(capsys, "bench", "quick")
    assert status == 130
    assert "stopped" in err
