"""TextCodec: round trips at every level, unknown symbols, lengths, and errors."""

import json
import math
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from densekit.codecs import TextCodec

few = settings(max_examples=40, deadline=None)
unicode = st.lists(st.text(max_size=12), min_size=1, max_size=6)
LEVELS = ["character", "byte", "bpe"]
SAMPLE = ["a cat sat on a mat", "", "ünï日本 😀\n", "a\x00b"]


@pytest.mark.parametrize("tokens", LEVELS)
@few
@given(unicode)
def test_strings_come_back(tokens, X):
    codec = TextCodec(tokens=tokens).fit([*SAMPLE, *X])
    typed, ladj = codec.encode(X)
    assert codec.decode(typed) == X
    assert typed.dtype == torch.int64
    assert (ladj == 0).all()
    assert int(typed.max()) < codec.schema.vocab_size


@pytest.mark.parametrize("tokens", ["byte", "bpe"])
@few
@given(unicode)
def test_bytes_know_every_symbol(tokens, X):
    codec = TextCodec(tokens=tokens).fit(["abc"])
    typed, ladj = codec.encode(X)
    assert codec.decode(typed) == X
    assert not (typed == 2).any()
    assert (ladj == 0).all()


@few
@given(unicode)
def test_layout_is_tokens_then_end_then_padding(X):
    typed, _ = TextCodec().fit(X).encode(X)
    assert typed.shape == (len(X), max(map(len, X)) + 1)
    for row, text in zip(typed.tolist(), X, strict=True):
        n = len(text)
        assert min(row[:n], default=3) >= 3
        assert row[n:] == [1] + [0] * (len(row) - n - 1)


def test_masses_of_all_strings_of_one_symbol_sum_to_one():
    # Any distribution over ids does: known ids as they are, id 2 shared among all other characters.
    codec = TextCodec(max_length=1).fit(["a", "b", "c"])
    p = np.array([0, 0, 0.4, 0.1, 0.2, 0.3])  # pad, END, unknown, a, b, c
    known = sum(p[codec.encode([c])[0][0, 0]] for c in "abc")
    n_other = sys.maxunicode + 1 - 2048 - 3
    others = n_other * p[2] * math.exp(codec.encode(["z"])[1].item())
    assert known + others == pytest.approx(1, abs=1e-12)
    assert codec.encode(["\U0010ffff"])[1].item() == pytest.approx(-math.log(n_other))


def test_unknown_characters_come_back_as_replacement():
    codec = TextCodec().fit(["abc"])
    typed, ladj = codec.encode(["axby", "abc"])
    assert typed[0].tolist() == [3, 2, 4, 2, 1]
    assert codec.decode(typed) == ["a\ufffdb\ufffd", "abc"]
    assert ladj[0].item() == pytest.approx(-2 * math.log(0x110000 - 0x800 - 3))
    assert ladj[1].item() == 0


def test_vocab_size_keeps_the_most_frequent_characters():
    codec = TextCodec(vocab_size=5).fit(["aaabbc", "d"])
    assert codec.schema.vocab_size == 5
    assert codec.decode(codec.encode(["abcd"])[0]) == ["ab\ufffd\ufffd"]


def test_bpe_learns_words_and_is_not_exact():
    words = ["the cat and the dog and the bird"] * 50
    codec = TextCodec(tokens="bpe", vocab_size=300).fit(words)
    typed, _ = codec.encode(words[:1])
    assert codec.schema.vocab_size <= 300
    assert typed.shape[1] < 15
    assert not codec.schema.exact
    assert TextCodec().fit(words).schema.exact


@pytest.mark.parametrize("tokens", LEVELS)
def test_ids_that_no_string_has_still_decode(tokens):
    codec = TextCodec(tokens=tokens).fit(["ab", "ba"])
    size = codec.schema.vocab_size
    ids = torch.randint(0, size, (50, 9), generator=torch.Generator().manual_seed(0))
    texts = codec.decode(ids)
    assert len(texts) == 50
    assert all(isinstance(t, str) for t in texts)
    assert codec.decode(torch.tensor([[1, 3, 3], [2, 1, 3]])) == ["", "\ufffd"]


def test_invalid_utf8_is_replaced():
    codec = TextCodec(tokens="byte").fit(["a"])
    assert codec.decode(torch.tensor([[0xFF + 3, ord("a") + 3, 1]])) == ["\ufffda"]


def test_a_prompt_that_ends_in_a_space_begins_an_empty_word():
    codec = TextCodec(tokens="word").fit(["the cat", "a dog"])
    with pytest.warns(UserWarning, match=r"context\[1\] ends in a space.*tokens='word'"):
        codec.prompts(["the", "the "])


def test_prompts_have_no_end():
    codec = TextCodec(max_length=4).fit(["ab", "ba"])
    assert codec.prompts(["a", "bax", ""]).tolist() == [[3, 0, 0], [4, 3, 2], [0, 0, 0]]
    assert codec.prompts([""]).shape == (1, 0)
    with pytest.raises(ValueError, match=r"context\[1\] has 5 tokens"):
        codec.prompts(["a", "aaaaa"])


def test_max_length_is_stated_and_enforced():
    codec = TextCodec(max_length=3).fit(["abc", "a"])
    assert codec.schema.event_shape == (4,)
    with pytest.raises(ValueError, match=r"X\[1\] has 4 tokens.*max_length is 3.*larger"):
        codec.encode(["a", "abca"])
    with pytest.raises(ValueError, match=r"X\[0\] has 4 tokens"):
        TextCodec(max_length=3).fit(["abca"])
    assert TextCodec(max_length=None).fit(["abc", "a"]).schema.event_shape == (7,)


@pytest.mark.parametrize(
    "X",
    [
        ["a", "b"],
        pd.Series(["a", "b"], name="words"),
        pd.Series(["a", "b"], dtype=object),
        pd.Series(["a", "b"], dtype=pd.StringDtype("python"), name=3),
        pl.Series("words", ["a", "b"]),
        np.array(["a", "b"]),
        np.array(["a", "b"], dtype=object),
        np.array(["a", "b"], dtype=np.dtypes.StringDType()),
        pa.array(["a", "b"]),
    ],
    ids=lambda X: f"{type(X).__name__}-{getattr(X, 'dtype', '')}",
)
def test_the_container_comes_back(X):
    codec = TextCodec().fit(X)
    back = codec.decode(codec.encode(X)[0])
    assert type(back) is type(X)
    if isinstance(X, pd.Series):
        pd.testing.assert_series_equal(back, X)
    elif isinstance(X, np.ndarray):
        assert back.dtype == X.dtype
        assert back.tolist() == X.tolist()
    else:
        assert list(back) == list(X)


def test_utf8_bytes_are_read():
    codec = TextCodec().fit([b"a\xc3\xa4", "b"])
    assert codec.decode(codec.encode([b"\xc3\xa4"])[0]) == ["ä"]


@pytest.mark.parametrize(
    ("X", "error", "words"),
    [
        ([], ValueError, "X is empty"),
        ("abc", TypeError, "one string of 3 characters, 'abc'; .* pass a list"),
        (["a", 3], TypeError, r"X\[1\] is 3 of type int"),
        (["a", None], TypeError, r"X\[1\] is None of type NoneType"),
        (pd.Series(["a", None]), TypeError, r"X\[1\] is nan of type float"),
        (["a", b"\xff"], ValueError, r"X\[1\] is bytes that are not UTF-8 \(byte 0xff at 0\)"),
        (["a", "b\ud800"], ValueError, r"X\[1\] is not valid Unicode.*surrogate"),
    ],
)
def test_text_that_is_refused(X, error, words):
    with pytest.raises(error, match=words):
        TextCodec().fit(X)
    codec = TextCodec().fit(["a"])
    with pytest.raises(error, match=words):
        codec.encode(X)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tokens": "line"}, "tokens='line'; choose 'character'"),
        ({"max_length": 0}, "max_length=0"),
        ({"vocab_size": 3}, "vocab_size=3 must be at least 4"),
        ({"vocab_size": 100, "tokens": "bpe"}, "vocab_size=100 must be at least 259"),
        ({"vocab_size": 300, "tokens": "byte"}, "vocab_size=300 is always 259"),
    ],
)
def test_options_that_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        TextCodec(**options).fit(["abc"])


def test_bpe_without_its_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"pip install 'densekit\[text\]'"):
        TextCodec(tokens="bpe").fit(["abc"])


@pytest.mark.parametrize("tokens", LEVELS)
def test_state_is_json(tokens):
    codec = TextCodec(tokens=tokens).fit(SAMPLE)
    state = {k: v for k, v in vars(codec).items() if k != "schema"}
    revived = TextCodec.__new__(TextCodec)
    vars(revived).update(json.loads(json.dumps(state)), schema=codec.schema)
    typed, _ = codec.encode(SAMPLE)
    torch.testing.assert_close(revived.encode(SAMPLE)[0], typed)
    assert revived.decode(typed) == SAMPLE


def test_a_frame_is_not_text():
    frame = pd.DataFrame({"a": ["x", "y"], "b": ["z", "w"]})
    codec = TextCodec().fit(["xyz", "zw"])
    for wrong in (codec.encode, codec.prompts):
        with pytest.raises(TypeError, match=r"frame of shape \(2, 2\); pass its column .*'a'"):
            wrong(frame)


def test_words_are_what_single_spaces_part():
    codec = TextCodec(tokens="word").fit(["the cat", "a  cat", ""])
    assert codec.symbols == " a cat the"
    rows = ["cat the", "", "a  cat", "cat"]
    ids, ladj = codec.encode(rows)
    assert ids.tolist() == [[5, 6, 1, 0], [1, 0, 0, 0], [4, 3, 5, 1], [5, 1, 0, 0]]
    assert (ladj == 0).all()
    assert codec.decode(ids) == rows
    assert codec.decode(torch.tensor([[2, 4, 1, 0]])) == ["\ufffd a"]


def test_unknown_words_share_the_mass_of_their_symbol():
    codec = TextCodec(tokens="word", vocab_size=4).fit(["a a", "b a"])
    _, ladj = codec.encode(["b", "zz a", "a"])
    size = 0x110000 - 0x800 - 1

    def share(word):
        return 0.5 ** (len(word) + 1) / size ** len(word)

    rest = 1 - share("a")
    wanted = [math.log(share("b") / rest), math.log(share("zz") / rest), 0]
    assert ladj.tolist() == pytest.approx(wanted, rel=1e-9)


def test_documents_are_rows_of_any_length():
    codec = TextCodec(max_length=3).fit(["abc", "a"])
    rows, ladj = codec.documents(["abcabc?", "", "b"])
    assert [row.tolist() for row in rows] == [[3, 4, 5, 3, 4, 5, 2, 1], [1], [4, 1]]
    wanted, _ = codec.encode(["b"])
    assert rows[2].tolist() == wanted[0].tolist()
    assert ladj.tolist() == [-math.log(0x110000 - 0x800 - 3), 0, 0]
