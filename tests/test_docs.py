"""The documentation is correct: its code runs, its pages cover the package, its links are valid."""

import doctest
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import densekit
from densekit import datasets

DOCS = Path(__file__).parents[1] / "docs"
WRITTEN = [
    p
    for p in sorted(DOCS.rglob("*.md"))
    if p.relative_to(DOCS).parts[0] not in ("_build", "api", "examples", "models", "results")
    and p.name != "datasets.md"
]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def blocks(page, language):
    """The code of a page in one language, fence by fence."""
    return [
        code for lang, code in BLOCK.findall(page.read_text(encoding="utf-8")) if lang == language
    ]


def module(name):
    """A module of the docs folder, which is not a package."""
    if str(DOCS) not in sys.path:  # Modules of the folder import each other.
        sys.path.append(str(DOCS))
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize(
    "page",
    [p for p in WRITTEN if any(">>> " in code for code in blocks(p, "python"))],
    ids=lambda p: p.stem,
)
def test_a_page_s_code_gives_the_output_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some of it writes files
    code = "\n".join(blocks(page, "python"))
    test = doctest.DocTestParser().get_doctest(code, {}, page.name, str(page), 0)
    failures = []
    doctest.DocTestRunner(optionflags=OPTIONS, verbose=False).run(test, out=failures.append)
    assert not failures, "".join(failures)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda p: p.stem)
def test_code_of_a_page_is_in_a_form_that_is_tested(page):
    for code in blocks(page, "python"):
        if page.name != "adding-a-model.md":
            assert code.startswith(">>> "), (
                f"{page.name}: a block without prompts is not run:\n{code}"
            )


COMMANDS = [
    (page, line)
    for page in WRITTEN
    for code in blocks(page, "sh")
    for line in code.splitlines()
    if line.startswith("densekit ")
]


def people(n=200):
    """What the pages call people.csv and shop.csv."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": rng.integers(18, 80, n),
            "member": rng.random(n) < 0.4,
            "race": rng.choice(["White", "Black", "Other"], n),
            "Month": rng.choice(["Feb", "Mar", "May"], n),
            "Revenue": rng.random(n) < 0.2,
        }
    )


def test_commands_of_the_command_line_s_page_run(tmp_path, monkeypatch, capsys):
    from densekit import cli

    monkeypatch.chdir(tmp_path)
    people().to_csv("people.csv", index=False)
    lines = [line for page, line in COMMANDS if page.name == "command-line.md"]
    assert len(lines) >= 6
    for line in lines:
        with pytest.raises(SystemExit) as left:
            cli.main(shlex.split(line)[1:])
        assert left.value.code == 0, (line, capsys.readouterr().err)
    assert len(list((tmp_path / "pictures").iterdir())) == 16


@pytest.mark.parametrize("line", sorted({line for _, line in COMMANDS}))
def test_a_command_is_one_that_there_is(line):
    import typer

    from densekit.cli import app

    group = typer.main.get_command(app)
    _, name, *rest = shlex.split(line)
    with group.make_context("densekit", ["--quiet"], resilient_parsing=True) as top:
        group.get_command(top, name).make_context(name, rest, parent=top)  # raises: a wrong call


def test_suites_of_the_pages_can_be_run(tmp_path):
    from densekit import bench

    suites = [code for page in WRITTEN for code in blocks(page, "toml")]
    assert suites
    people().to_csv(tmp_path / "shop.csv", index=False)
    for code in suites:
        (tmp_path / "mine.toml").write_text(code)
        suite = bench.load_suite(str(tmp_path / "mine.toml"))
        bench.check(suite)
        assert {run.seed for run in suite.runs} in ({0, 1}, {0})


def test_each_model_has_a_page_that_shows_its_docstring_and_nothing_twice():
    pages = module("pages").model_pages()
    for name, kind in densekit.all_estimators().items():
        page = pages[f"{name}.rst"]
        assert page.count(f"autoclass:: densekit.{name}(**parameters)") == 1
        for parameter in kind().get_params():  # all of them are in the docstring
            assert f"{parameter}=" not in page, (name, parameter)
        assert f"[{name}]({name}.rst)" in pages["index.md"]


def test_results_keep_kinds_apart_and_rank_inside_them(tmp_path):
    from densekit import bench

    scores = {  # label: kind, nats; a bound above all exact scores must not come near them
        "VAE": ("lower_bound", 9.0),
        "RealNVP": ("exact", 1.0),
        "Gaussian": ("exact", 2.0),
        "GAN": None,
    }
    for label, score in scores.items():
        run = bench.Run(data="two_moons", model=label, label=label)
        entry = score and {
            "value": score[1],
            "standard_error": 0.1,
            "unit": "nats per row",
            "kind": score[0],
            "base_measure": "lebesgue",
        }
        (tmp_path / "quick").mkdir(exist_ok=True)
        bench.append(bench.Record.of("quick", run, status="ok", score=entry), tmp_path / "quick")
    pages = module("pages").result_pages(tmp_path)
    assert list(pages) == ["index.md", "quick.md"]
    bodies = re.findall(r"<tbody>(.*?)</tbody>", pages["quick.md"], re.S)
    assert [re.findall(r"models/(\w+)\.html", body) for body in bodies] == [
        ["Gaussian", "RealNVP"],
        ["VAE"],
        ["GAN"],
    ]
    assert re.findall(r"<b>(.*?)</b>", pages["quick.md"]) == ["2.00 ± 0.10"]


def test_the_page_of_data_sets_lists_all():
    page = module("pages").datasets_page()
    listed = re.findall(r"^\| `(.*?)` \|", page, re.M)
    assert sorted(listed) == sorted(datasets.names())
    digits = next(line for line in page.splitlines() if line.startswith("| `digits`"))
    assert "1,294 / 144 / 359 | 64 |" in digits


def test_mathematics_is_set_or_refused_by_name():
    mathml = module("mathml").mathml
    one = mathml(r"\Big[\frac{a}{b}\Big]", False)
    assert "<mfrac>" in one
    assert one.startswith("<math")
    assert mathml(r"\tfrac12 x", False) == mathml(r"\tfrac{1}{2} x", False)
    assert "<mtable" in mathml(r"a &= b \\ c &= d", True)
    with pytest.raises(ValueError, match="nosuch"):
        mathml(r"\nosuch", False)


def test_a_dead_link_is_found_and_a_live_one_is_not(tmp_path):
    check = module("check")
    site = tmp_path / "site"
    (site / "sub").mkdir(parents=True)
    (tmp_path / "out.html").write_text("is there, but not when the site is served from elsewhere")
    (site / "index.html").write_text(
        '<a href="sub/a.html#here">x</a><a href="sub/">y</a><a href="https://example.org/z">z</a>'
        '<img src="no.png"><a href="#top">t</a><a href="sub/a.html#gone">g</a>'
    )
    (site / "sub" / "index.html").write_text("<p>")
    (site / "sub" / "a.html").write_text('<p id="here"><a href="../../out.html">o</a>')
    assert check.dead_links(site) == [
        "index.html: no.png",
        "index.html: #top",
        "index.html: sub/a.html#gone",
        "sub/a.html: ../../out.html",
    ]
    assert "no built documentation" in check.main(site / "sub" / "nothing")


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_without_a_dead_link(tmp_path):
    pytest.importorskip("sphinx_gallery", reason="needs densekit[docs]")
    site = str(tmp_path / "site")
    # Without the pictures, which take a minute: .ci/run builds all of it.
    words = ["-q", "-W", "--keep-going", "-D", "plot_gallery=0", "-d", str(tmp_path / "trees")]
    command = [sys.executable, "-m", "sphinx", *words, "-b", "html", str(DOCS), site]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert module("check").dead_links(tmp_path / "site") == []
