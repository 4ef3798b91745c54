import itertools

import numpy as np
import pytest

from densekit.datasets import texts
from densekit.metrics import nats_per_character


def test_blocks_keep_every_character_of_a_text():
    rng = np.random.default_rng(0)
    text = "".join(rng.choice(list("ab \n"), 5000, p=[0.4, 0.3, 0.2, 0.1])) + "\n"
    found = texts.blocks(text, 60)
    assert "\n".join(found) + "\n" == text
    longest = max(map(len, text.split("\n")))
    assert max(map(len, found)) <= max(60, longest)
    pairs = itertools.pairwise(found)
    assert all(len(a) + 1 + len(b.split("\n")[0]) > 60 for a, b in pairs)  # none is cut early
    # A score per character, ends included, is then one per character of the file.
    per_character = nats_per_character([-1.0] * len(found), found)
    assert per_character.value == pytest.approx(len(found) / len(text))


def test_text8_is_cut_by_hundredths_into_blocks(monkeypatch):
    letters = "".join(chr(97 + i % 26) for i in range(60_000))
    monkeypatch.setattr("densekit.datasets.fetch.members", lambda *_: {"text8": letters.encode()})
    data = texts.text8()
    parts = [data.train, data.valid, data.test.for_scoring()]
    assert ["".join(p) for p in parts] == [
        letters[:54_000],
        letters[54_000:57_000],
        letters[57_000:],
    ]
    assert {len(block) for p in parts for block in p[:-1]} == {256}


def test_wikitext_has_a_row_for_every_line(monkeypatch):
    found = {"train": b" \n = A = \n \n a b . \n", "valid": b"v\n", "test": b"\n"}
    monkeypatch.setattr("densekit.datasets.fetch.members", lambda *_: found)
    data = texts.wikitext2()
    assert data.train == ["", "= A =", "", "a b ."]
    assert data.valid == ["v"]
    assert data.test.for_scoring() == [""]


def _symbols(part):
    return sum(len(row) + 1 for row in part)


def test_penn_treebank_has_the_words_and_characters_that_papers_count(local):
    words, characters = local("ptb"), local("ptb_characters")
    parts = [words.train, words.valid, words.test.for_scoring()]
    assert [sum(len(row.split()) + 1 for row in p) for p in parts] == [929_589, 73_760, 82_430]
    assert len(set(" ".join(words.train).split())) + 1 == 10_000  # the end is a word
    parts = [characters.train, characters.valid, characters.test.for_scoring()]
    assert [_symbols(p) for p in parts] == [5_017_482, 393_042, 442_423]
    assert len(set("".join(characters.train))) + 1 == 50
    assert not set(" \n") & set("".join(characters.train))


def test_tinyshakespeare_is_whole_and_its_last_tenth_is_test(local):
    data = local("tinyshakespeare")
    parts = [data.train, data.valid, data.test.for_scoring()]
    assert sum(map(_symbols, parts)) == 1_115_394
    assert _symbols(parts[2]) == pytest.approx(111_540, abs=60)  # to the beginning of a line
    assert _symbols(parts[1]) == pytest.approx(55_770, abs=60)
    assert data.train[0].startswith("First Citizen:\nBefore we proceed any further")
    assert parts[2][-1].endswith("Whiles thou art waking.")
    assert len(set().union(*map("".join, parts))) == 65


def test_wikitext_partial_counts_the_words_of_the_published_parts(local):
    data = local("wikitext2_partial")
    words = [
        sum(len(row.split()) + 1 for row in p)
        for p in (data.train + data.valid, data.test.for_scoring())
    ]
    assert words == [217_646, 245_569]
