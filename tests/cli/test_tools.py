"""bench, check, list and datasets."""

import json

import pytest
from typer.testing import CliRunner

import densekit
from densekit import bench
from densekit.cli import app

SUITE = """
baselines = false
budget = 1
time_limit = 3000
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
    statuses = {record.key: record.status for record in bench.read(folder)}
    assert statuses == {"two_moons--Gaussian--0": "ok", "two_moons--Broken--0": "failed"}


def test_bench_of_a_file(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{i % 7 / 2};{'ab'[i % 2]}\n" for i in range(60))
    (tmp_path / "shop.csv").write_text("amount;kind\n" + rows)
    suite = SUITE.replace("two_moons", "shop.csv").replace("cli_stub:Broken", "GaussianMixture")
    (tmp_path / "mine.toml").write_text("split = { test = 0.25 }\n" + suite)
    status, out, err = call("bench", "mine.toml", "--out", "out")
    assert status == 0, err
    assert "shop.csv: table, 40 training rows, 15 held out, 2 dimensions" in out
    digests = {record.data["digest"] for record in bench.read(tmp_path / "out")}
    assert len(digests) == 1
    # The same content, elsewhere, is not run again; another is.
    (tmp_path / "b").mkdir()
    for name in ("shop.csv", "mine.toml"):
        (tmp_path / name).rename(tmp_path / "b" / name)
    assert "2 of 2 runs have up-to-date records" in call("bench", "b/mine.toml", "--out", "out")[2]
    with open(tmp_path / "b" / "shop.csv", "a") as file:
        file.write("3.5;a\n")
    assert "up-to-date records" not in call("bench", "b/mine.toml", "--out", "out")[2]


def test_bench_as_json(tmp_path, monkeypatch, call):
    (tmp_path / "cli_stub.py").write_text(STUB)
    (tmp_path / "tiny.toml").write_text(SUITE)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ("bench", tmp_path / "tiny.toml", "--out", tmp_path / "out", "--json", "--quiet")
    status, out, err = call(*words)
    assert (status, err) == (1, "")
    assert json.loads(out) == {
        "runs": 2,
        "failed": {"two_moons--Broken--0": "ArithmeticError: it broke"},
        "folder": str(tmp_path / "out"),
    }


def test_an_interrupted_bench_says_how_to_go_on(tmp_path, monkeypatch, call):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt("1 of 2 runs are kept")

    monkeypatch.setattr(bench, "run_suite", interrupt)
    status, _, err = call("bench", "quick", "--out", tmp_path)
    assert status == 130
    assert err == "densekit: stopped; 1 of 2 runs are kept\n"


@pytest.mark.parametrize("kept", [True, False])
def test_an_interrupt_before_the_first_run_has_a_whole_line(tmp_path, monkeypatch, call, kept):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "run_suite", interrupt)
    folder = tmp_path / "results"
    if kept:
        folder.mkdir()
    status, _, err = call("bench", "quick", "--out", folder)
    line = "nothing was written"
    if kept:
        line = f"finished runs are kept in {folder}; the same command continues with the rest"
    assert (status, err) == (130, f"densekit: stopped; {line}\n")


def test_report_as_json(tmp_path, monkeypatch, call):
    page = tmp_path / "report.html"
    monkeypatch.setattr("densekit.bench.report.write_report", lambda _: page)
    assert call("report", tmp_path) == (0, f"{page}\n", "wrote the report\n")
    _, out, _ = call("report", tmp_path, "--json")
    assert json.loads(out) == {"report": str(page)}


def test_list_shows_every_model(done):
    out = done("list")
    assert all(name in out for name in densekit.all_estimators())
    texts = done("list", "--modality", "text")
    assert "NGram" in texts
    assert "KernelDensity" not in texts


def test_list_as_json(done):
    found = {entry["model"]: entry for entry in json.loads(done("list", "--json"))}
    assert set(found) == set(densekit.all_estimators())
    assert found["GAN"]["density"] == "none"
    assert found["NGram"]["modalities"] == ["text"]
    assert json.loads(done("--json", "list", "--family", "vaes"))[0]["family"] == "vaes"


def test_datasets_shows_every_one_of_a_modality(done):
    found = json.loads(done("datasets", "--json"))
    assert [entry["name"] for entry in found] == list(densekit.datasets.names())
    texts = json.loads(done("datasets", "--modality", "text", "--json"))
    assert {entry["modality"] for entry in texts} == {"text"}
    out = done("datasets", "--modality", "text")
    assert all(entry["name"] in out for entry in texts)
    assert "digits" not in out


def test_one_data_set_with_its_sources(done, tmp_path, monkeypatch):
    monkeypatch.setenv("DENSEKIT_CACHE", str(tmp_path))
    monkeypatch.delenv("DENSEKIT_DATA", raising=False)
    info = densekit.datasets.info("power")
    found = json.loads(done("datasets", "power", "--json"))
    assert found["rows"] == list(info.rows)
    assert found["local"] is False
    assert found["files"][0].startswith(str(tmp_path))
    assert len(found["published"]) == len(info.published)
    out = done("datasets", "power")
    assert info.license in out
    assert info.urls[0] in out
    assert info.published[0].source in out
    assert json.loads(done("datasets", "two_moons", "--json"))["local"] is True


SUSPECT = """
from densekit import Gaussian
class TooHigh(Gaussian):
    def score_samples(self, X, **options):
        found = super().score_samples(X, **options)
        return (found[0] + 1, found[1]) if isinstance(found, tuple) else found + 1
"""


def test_check_finds_a_density_that_is_none(tmp_path, monkeypatch, call):
    (tmp_path / "cli_suspect.py").write_text(SUSPECT)
    monkeypatch.chdir(tmp_path)
    wanted = ("integrates_to_one_on_a_line", "fit_returns_self")

    from densekit import checks

    def few(estimator):
        return [pair for pair in every(estimator) if pair[1].name in wanted]

    every = checks.density_checks
    monkeypatch.setattr(checks, "density_checks", few)
    status, out, err = call("check", "cli_suspect:TooHigh")
    assert status == 1
    lines = out.splitlines()
    assert any(line.startswith("failed  TooHigh fails integrates_to_one") for line in lines)
    assert "passed  fit_returns_self" in lines
    n_failed = sum(line.startswith("failed  ") for line in lines)
    assert (
        err == f"cli_suspect:TooHigh: {len(lines) - n_failed} checks passed, {n_failed} failed\n"
    )
    found = json.loads(call("check", "cli_suspect:TooHigh", "--json")[1])
    assert list(found["failed"]) == ["integrates_to_one_on_a_line"]
    assert call("check", "Gaussian")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bench", "quik"], "no suite is called 'quik'; did you mean 'quick'?"),
        (["bench", "none.toml"], "cannot read the suite none.toml"),
        (["bench", "quick", "--jobs", "0"], "jobs"),
        (
            ["bench", "quick", "--out", "{tmp}/o.parquet"],
            "need a folder, whose name must not end in",
        ),
        (
            ["bench", "quick", "--out", "{tmp}/o.html"],
            "need a folder, whose name must not end in .html",
        ),
        (["bench", "quick", "--out", "{tmp}/there"], "--out {tmp}/there is a file"),
        (["list", "--modality", "images"], "modality='images'"),
        (["datasets", "powr"], "no data set is called 'powr'; did you mean 'power'?"),
        (["datasets", "--modality", "images"], "modality='images'"),
        (["check", "Gausian"], "no model is called 'Gausian'; did you mean 'Gaussian'?"),
        (["check", "nowhere:Density"], "model 'nowhere:Density' cannot be imported"),
        (["report", "{tmp}/none"], "{tmp}/none"),
    ],
)
def test_errors_are_one_line(tmp_path, refused, words, message):
    (tmp_path / "there").touch()
    error = refused(*(word.format(tmp=tmp_path) for word in words))
    assert message.format(tmp=tmp_path) in error
