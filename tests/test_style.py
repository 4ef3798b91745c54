"""Limits of CONTRIBUTING that a program can check: length of files, docstrings, links to papers."""

import ast
import re
from pathlib import Path

import pytest

import densekit
from densekit.discovery import all_estimators

PACKAGE = Path(densekit.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400
MIN_DOCUMENTED_FUNCTIONS = 0.95


def public(node, inside=()):
    """Public classes and functions in a module or class, with their names; not those in functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.ClassDef | ast.FunctionDef) or child.name.startswith("_"):
            continue
        yield ".".join((*inside, child.name)), child
        if isinstance(child, ast.ClassDef):
            yield from public(child, (*inside, child.name))


def undocumented(kind):
    """Number of public definitions of a kind, and the names of those without a docstring."""
    n, names = 0, []
    for path in FILES:
        for name, node in public(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kind):
                n += 1
                if not ast.get_docstring(node):
                    names.append(f"{path.relative_to(PACKAGE)}: {name}")
    return n, names


def test_every_public_class_has_a_docstring():
    n, names = undocumented(ast.ClassDef)
    assert n > 100
    assert names == []


def test_nearly_all_public_functions_have_a_docstring():
    n, names = undocumented(ast.FunctionDef)
    assert n > 1000
    assert len(names) <= (1 - MIN_DOCUMENTED_FUNCTIONS) * n, names


def test_no_file_is_too_long():
    lengths = {str(p.relative_to(PACKAGE)): p.read_text().count("\n") for p in FILES}
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


@pytest.mark.parametrize("kind", all_estimators().values(), ids=all_estimators())
def test_every_model_links_its_paper(kind):
    links = re.findall(r"https?://(?:dx\.)?(\S+?)[>\s]", kind._written_doc)
    assert links, f"{kind.__name__} has no link to its paper"
    for link in links:
        if link.startswith("arxiv.org"):
            assert re.fullmatch(
                r"arxiv\.org/abs/(\d{4}\.\d{4,5}|[a-z-]+/\d{7})", link.rstrip(".,;")
            ), link
