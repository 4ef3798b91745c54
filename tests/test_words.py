"""Words that must not come back are found in text and in names, and in no finished file."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def words():
    spec = importlib.util.spec_from_file_location("words", ROOT / "docs" / "words.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "text",
    [
        "a normalised row",
        "dequantisation_draws=8",
        "Dequantised",
        "the neighbours of a row",
        "a labelled row",
        "in grey",
        "how the house lies",
        "rooms and arrows",
        "for room in FAMILIES:",
        "told = []",
        "as was said",
    ],
)
def test_forbidden_word_is_found_with_its_line(words, text):
    found = list(words.finds(f"first line\n{text}\n"))
    assert found
    assert {line for line, _, _ in found} == {2}


@pytest.mark.parametrize(
    "text",
    [
        "room for the noise",
        "a normalized row, a color, a neighbor",
        "torch.floor(x)",
        "precise, otherwise, promise, raise, size, exercise",
        "california_housing",
        "their scores, flour, hours, contour",
        "modeling, labeled, rolled, filling",
        "noise floors",
    ],
)
def test_other_words_are_not(words, text):
    assert not list(words.finds(text))


def test_main_prints_file_and_line(words, capsys, tmp_path, monkeypatch):
    (tmp_path / "page.md").write_text("fine\na behaviour\n")
    monkeypatch.setattr(words, "ROOT", tmp_path)
    assert words.main(["page.md"]) == 1
    assert "page.md:2: 'behaviour'" in capsys.readouterr().out


def test_pending_path_without_a_forbidden_word_is_reported(words, tmp_path, monkeypatch):
    (tmp_path / "a.md").write_text("a color")
    (tmp_path / "b.md").write_text("a colour")
    monkeypatch.setattr(words, "ROOT", tmp_path)
    monkeypatch.setattr(words, "PENDING", ("a.md", "b.md"))
    assert words.finished(["a.md", "b.md"]) == ["a.md"]
