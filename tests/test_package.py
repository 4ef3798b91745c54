"""The wheel and the source distribution hold what they should, and the wheel works when installed."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the source distribution, built from the working tree."""
    pytest.importorskip("hatchling", reason="needs densekit[test]")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def names_in_sdist(path):
    with tarfile.open(path) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


def test_wheel_holds_the_package_its_types_and_its_data(built):
    names = set(zipfile.ZipFile(built[0]).namelist())
    expected = ["py.typed", "datasets/catalog.toml", "bench/suites/quick.toml"]
    expected += ["bench/report/template.html.j2", "bench/report/page.js", "flows/nsf.py"]
    assert {f"densekit/{name}" for name in expected} <= names
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"densekit"}


def test_sdist_holds_sources_tests_and_records_and_no_report_page(built):
    names = names_in_sdist(built[1])
    assert {
        "README.md",
        "LICENSE",
        "tests/conftest.py",
        "docs/conf.py",
        "constraints.txt",
    } <= names
    assert "benchmarks/results/quick/records.jsonl" in names
    assert not [name for name in names if name.endswith("report.html")]
    assert not [name for name in names if name.endswith(".densekit") and "/" not in name]


def test_metadata_has_links_python_versions_and_extras(built):
    archive = zipfile.ZipFile(built[0])
    name = next(n for n in archive.namelist() if n.endswith("/METADATA"))
    metadata = archive.read(name).decode()
    for field in ("Homepage", "Documentation", "Source", "Issues", "Changelog"):
        assert f"Project-URL: {field}, https://" in metadata
    for version in ("3.11", "3.12", "3.13"):
        assert f"Classifier: Programming Language :: Python :: {version}" in metadata
    for extra in ("bench", "cli", "data", "docs", "fast", "files", "nflows", "test", "text"):
        assert f"Provides-Extra: {extra}\n" in metadata
    core = [line for line in metadata.splitlines() if re.match(r"Requires-Dist: [^;]*$", line)]
    assert not [line for line in core if re.search("typer|rich|matplotlib|jinja2|pyarrow", line)]


def test_links_of_the_readme_are_absolute():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert len(links) > 10
    assert [link for link in links if not link.startswith("https://")] == []
    # What the links name in this repository is there.
    for link in links:
        inside = re.match(
            r"https://(?:github\.com|raw\.\S+?)/densekit/densekit/(?:(?:blob|tree)/)?main/(.*)",
            link,
        )
        if inside:
            assert (ROOT / inside[1].partition("#")[0]).exists(), link


def test_installed_wheel_works_without_the_repository(built, tmp_path):
    wheel, sdist = built
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    rebuilt = tmp_path / "rebuilt"
    command = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(rebuilt), str(sdist)]
    subprocess.run(command, check=True)
    from_sdist = next(rebuilt.glob("*.whl"))
    assert sorted(zipfile.ZipFile(from_sdist).namelist()) == sorted(
        zipfile.ZipFile(wheel).namelist()
    )
    target = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", target, from_sdist], check=True)
    code = """
import densekit, numpy as np
X = np.random.default_rng(0).normal(size=(50, 2))
print(densekit.__file__, densekit.Gaussian().fit(X).sample(3).shape, len(densekit.datasets.names()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(target), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(target))
    assert "(3, 2)" in done.stdout
