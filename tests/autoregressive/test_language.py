"""What language models share, on the one that needs no training and on a network."""

import numpy as np
import pytest

import densekit
from densekit import NGram, TransformerLanguageModel
from densekit.metrics import bits_per_byte, bits_per_character, nats_per_token

ROWS = ["abab", "ba", "babab", "", "aab", "abba"] * 5


@pytest.fixture(scope="module")
def models():
    small = {"width": 8, "n_layers": 1, "n_heads": 2, "max_steps": 20, "random_state": 0}
    return [
        NGram(order=3, max_length=8).fit(ROWS),
        TransformerLanguageModel(**small, max_length=8).fit(ROWS),
    ]


def test_documents_of_less_than_a_window_have_the_score_of_strings(models):
    rows = ["ab", "", "bababab", "a?b"]
    for model in models:
        np.testing.assert_allclose(
            model.score_documents(rows), model.score_samples(rows), rtol=1e-5
        )


def test_documents_are_scored_whatever_their_company(models):
    rows = ["ab" * 20, "", "ba" * 9 + "!", "b"]
    for model in models:
        alone = [model.score_documents([r])[0] for r in rows]
        np.testing.assert_allclose(model.score_documents(rows), alone, rtol=1e-5)
        assert np.isfinite(alone).all()


def test_a_table_needs_no_more_overlap_than_its_order():
    model = NGram(order=3, max_length=8).fit(ROWS)
    x = ["abba" * 30]
    whole = model.score_documents(x, window=1000)
    np.testing.assert_allclose(model.score_documents(x, window=7, overlap=2), whole, rtol=1e-6)
    assert model.score_documents(x, window=7, overlap=0) != pytest.approx(whole[0], rel=1e-4)


def test_strings_that_are_too_long_are_refused_with_the_remedy(models):
    for model in models:
        with pytest.raises(ValueError, match=r"max_length is 8.*score_documents"):
            model.score_samples(["ab" * 5])


def test_capacity_includes_the_prompts_of_fit():
    """The default length is twice that of the longest string and its prompt, whose symbols are known."""
    prompts = ["zzzz" * (i % 4) for i in range(len(ROWS))]
    model = NGram(order=3).fit(ROWS, context=prompts)
    longest = max(len(p) + len(x) for p, x in zip(prompts, ROWS, strict=True))
    assert model.schema_.event_shape == (2 * longest + 1,)
    assert "z" in model.codec_.symbols
    assert np.isfinite(model.score_samples(ROWS, context=prompts)).all()
    assert np.isfinite(NGram(order=3).fit(ROWS, context="z" * 50).score(ROWS, context="z" * 50))


def test_too_long_with_its_prompt_is_an_error_as_too_long_without_is(models):
    for model in models:
        assert np.isfinite(model.score_samples(["abab"], context=["baba"]))
        with pytest.raises(
            ValueError, match=r"'ababa'.* 9 tokens with its prompt; max_length is 8"
        ):
            model.score_samples(["ab", "ababa"], context=["baba", "baba"])
    with pytest.raises(ValueError, match=r"with its prompt, X\[2\] has 9 tokens"):
        NGram(max_length=8).fit(ROWS, context="abab")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"temperature": 0.0}, ValueError, "temperature=0.0 must be above 0.*top_k=1"),
        ({"temperature": float("nan")}, ValueError, "temperature=nan"),
        ({"temperature": "hot"}, TypeError, "temperature must be a number.*'hot'"),
        ({"top_k": 0}, ValueError, "top_k=0 must be at least 1"),
        ({"top_k": 2.5}, TypeError, "top_k must be an integer.*2.5"),
        ({"top_p": 1.5}, ValueError, r"top_p=1.5 must be in \(0, 1\]"),
        ({"top_p": 0}, ValueError, "top_p=0 must be"),
    ],
)
def test_bad_draws(models, arguments, error, words):
    for model in models:
        with pytest.raises(error, match=words):
            model.sample(2, **arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"window": 0}, ValueError, "window=0 must be at least 1"),
        ({"window": 4, "overlap": 4}, ValueError, "overlap=4 must be below window=4"),
        ({"overlap": -1}, ValueError, "overlap=-1 must be at least 0"),
        ({"overlap": 0.5}, TypeError, "overlap must be an integer"),
    ],
)
def test_bad_windows(models, arguments, error, words):
    for model in models:
        with pytest.raises(error, match=words):
            model.score_documents(["ab"], **arguments)


def test_sharper_draws_are_likelier_and_leave_the_model_alone(models):
    for model in models:
        before, x = model.score_samples(ROWS), model.sample(50, random_state=0)
        cold = model.sample(300, temperature=0.5, random_state=0)
        hot = model.sample(300, temperature=2.0, random_state=0)
        assert model.score(cold) > model.score(hot)
        greedy = model.sample(5, context="a", top_k=1, random_state=0)
        assert len(set(greedy)) == 1
        np.testing.assert_array_equal(model.score_samples(ROWS), before)
        assert model.sample(50, random_state=0) == x
        assert model.sample(50, temperature=1.0, random_state=0) == x


def test_units_compare_tokenizers():
    rows = ["the \u00e9t\u00e9", "the cat", "a cat"] * 10
    models = {t: NGram(order=2, tokens=t).fit(rows) for t in ("character", "byte", "word")}
    n_bytes = sum(len(r.encode()) + 1 for r in rows)
    for tokens, model in models.items():
        scores = model.score_samples(rows)
        n = model.n_tokens(rows)
        total = {
            "character": sum(len(r) + 1 for r in rows),
            "byte": n_bytes,
            "word": sum(len(r.split()) + 1 for r in rows),
        }
        assert n.sum() == total[tokens]
        nats = nats_per_token(scores, n).value * n.sum()
        bits = bits_per_byte(scores, rows).value * n_bytes * np.log(2)
        assert nats == pytest.approx(bits, rel=1e-5)
        bits = bits_per_character(scores, rows).value * total["character"] * np.log(2)
        assert nats == pytest.approx(bits, rel=1e-5)


def test_word_models_survive_saving(tmp_path):
    model = NGram(order=2, tokens="word").fit(["the cat sat", "a cat", "the  dog", ""] * 3)
    model.save(tmp_path / "words.densekit")
    again = densekit.load(tmp_path / "words.densekit")
    rows = ["the cat", "", "a zebra sat", "the  dog"]
    np.testing.assert_array_equal(again.score_samples(rows), model.score_samples(rows))
    assert again.sample(5, random_state=0) == model.sample(5, random_state=0)


@pytest.mark.parametrize("tokens", ["character", "byte", "word"])
def test_bad_text(tokens):
    model = NGram(order=2, tokens=tokens).fit(["ab", "", "b a"])
    assert np.isfinite(model.score_documents(["", "\u4e2d\U0001f600", "a  b"])).all()
    with pytest.raises(ValueError, match=r"X\[0\] is bytes that are not UTF-8 .*0xff"):
        model.score_samples([b"\xff\xfe"])
    with pytest.raises(ValueError, match="lone surrogate"):
        model.score_documents(["\ud800"])
    with pytest.raises(ValueError, match="empty"):
        model.score_documents([])
