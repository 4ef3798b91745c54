import itertools
import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch

import densekit
from densekit import Seq2Seq

SMALL = {"width": 16, "n_layers": 1, "n_heads": 2, "random_state": 0}


def shouted(n, seed=0):
    """Sources of a, b and c; targets are the same letters one further, and one time in five a mark."""
    rng = np.random.default_rng(seed)
    sources = ["".join(rng.choice(list("abc"), rng.integers(1, 5))) for _ in range(n)]
    marks = rng.random(n) < 0.2
    return sources, [
        s.translate(str.maketrans("abc", "bcd")) + "!" * m
        for s, m in zip(sources, marks.tolist(), strict=True)
    ]


@pytest.fixture(scope="module")
def fitted():
    sources, targets = shouted(400)
    model = Seq2Seq(**SMALL, max_steps=500, learning_rate=1e-2, max_length=6)
    return model.fit(targets, context=sources)


@pytest.fixture(scope="module")
def tiny():
    """Hardly trained: targets of a, b and unknown symbols, two at most."""
    model = Seq2Seq(**SMALL, max_steps=3, max_length=2, dtype="float64")
    model.fit(["ab", "ba", "a", "b"] * 5, context=["xy", "y", "x", ""] * 5)
    generator = torch.Generator().manual_seed(0)
    for p in model.module_.parameters():
        p.copy_(0.4 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    return model


EVERY = ["".join(s) for n in range(3) for s in itertools.product("ab?", repeat=n)]


@pytest.mark.parametrize("source", ["", "x", "yx", "?"])
def test_masses_of_all_targets_sum_to_one(tiny, source):
    events = tiny.codec_.encode(EVERY)[0]
    logp = tiny.condition([source]).log_prob(events)
    assert float(logp.exp().sum()) == pytest.approx(1, abs=1e-9)


def test_beam_search_finds_what_trying_every_target_finds(tiny):
    known = [s for s in EVERY if "?" not in s]
    for source in ("", "x", "xy", "y"):
        scores = tiny.score_samples(known, context=source)
        best, logp = tiny.decode(source, n_beams=3, return_log_prob=True)
        assert best == [known[scores.argmax()]]
        assert logp[0] == pytest.approx(scores.max(), rel=1e-9)


def test_it_learns_to_write_from_the_source(fitted):
    sources, targets = shouted(200, seed=1)
    entropy = -(0.2 * math.log(0.2) + 0.8 * math.log(0.8))
    assert -entropy - 0.2 < fitted.score(targets, context=sources) < -entropy + 0.1
    plain = [s.translate(str.maketrans("abc", "bcd")) for s in sources]
    assert np.mean([a == b for a, b in zip(fitted.decode(sources), plain, strict=True)]) > 0.95
    drawn = fitted.sample(context=sources, random_state=0)
    assert np.mean([d in (p, p + "!") for d, p in zip(drawn, plain, strict=True)]) > 0.9
    assert np.mean([d.endswith("!") for d in drawn]) == pytest.approx(0.2, abs=0.12)
    other = fitted.score(targets, context=sources[::-1])
    assert other < fitted.score(targets, context=sources) - 2


def test_decoded_log_masses_are_scores(fitted):
    sources = ["abc", "c", "", "aabb"]
    for n_beams in (1, 4):
        best, logp = fitted.decode(sources, n_beams=n_beams, return_log_prob=True)
        np.testing.assert_allclose(logp, fitted.score_samples(best, context=sources), atol=1e-4)
    greedy = fitted.sample(context=sources, top_k=1, random_state=0)
    assert greedy == fitted.decode(sources, n_beams=1)


def test_samples_agree_with_scores(fitted):
    n = 2000
    drawn = Counter(fitted.sample(n, context="ab", random_state=0))
    for row, count in drawn.most_common(3):
        p = math.exp(fitted.score_samples([row], context="ab")[0])
        assert abs(count / n - p) < 4.5 * math.sqrt(p * (1 - p) / n)


def test_a_score_depends_on_its_own_source_only(fitted):
    rows, sources = ["bc", "bcdb!", "", "d"], ["ab", "abca", "", "cab"]
    pairs = list(zip(rows, sources, strict=True))
    alone = [fitted.score_samples([r], context=[s])[0] for r, s in pairs]
    np.testing.assert_allclose(fitted.score_samples(rows, context=sources), alone, atol=1e-4)
    np.testing.assert_allclose(
        fitted.score_samples(rows[::-1], context=sources[::-1])[::-1], alone, atol=1e-4
    )
    np.testing.assert_allclose(
        fitted.score_samples(rows, context="ab"),
        fitted.score_samples(rows, context=["ab"] * 4),
        atol=1e-4,
    )


def test_cached_logits_are_those_of_scores(tiny):
    source = tiny.context_codec_.encode(["xy", "", "y"])[0]
    model = tiny.module_.conditioned_on(source)
    given, tokens = torch.ones(3, 1).long(), torch.tensor([[3, 4, 1], [4, 1, 0], [1, 0, 0]])
    scored = model.log_probs(given, tokens)
    logits, state = model.start(given)
    for t in range(3):
        now = logits.log_softmax(1).gather(1, tokens[:, t, None])[:, 0]
        live = tokens[:, t] > 0
        torch.testing.assert_close(now[live], scored[live, t], rtol=0, atol=1e-10)
        logits, state = model.step(tokens[:, t], state)


def test_temperature_is_of_targets(fitted):
    sources = shouted(200, seed=2)[0]
    cold, hot = (
        fitted.score(
            fitted.sample(context=sources, temperature=t, random_state=0), context=sources
        )
        for t in (0.3, 3.0)
    )
    assert cold > hot


def test_the_gradient_is_that_of_the_score(tiny):
    module = tiny.module_.requires_grad_(True)
    try:
        x, c = tiny.codec_.encode(["ab", ""])[0], tiny.context_codec_.encode(["xy", "y"])[0]
        module(c).log_prob(x).sum().backward()
        for weight in (module.net.encoder.embed.weight, module.net.looks[0].query.weight):
            at = (3, 1)
            with torch.no_grad():
                weight[at] += 1e-5
                up = module(c).log_prob(x).sum()
                weight[at] -= 2e-5
                down = module(c).log_prob(x).sum()
                weight[at] += 1e-5
            expected = weight.grad[at].item()
            assert ((up - down) / 2e-5).item() == pytest.approx(expected, rel=1e-4, abs=1e-7)
            assert expected != 0
    finally:
        module.requires_grad_(False)


def test_containers_and_files(fitted, tmp_path):
    sources, targets = shouted(60)
    model = Seq2Seq(**SMALL, max_steps=5).fit(pd.Series(targets), context=pd.Series(sources))
    assert isinstance(model.decode(pd.Series(sources[:3])), pd.Series)
    assert model.sample(2, context="ab", random_state=0).shape == (2,)
    fitted.save(tmp_path / "model.densekit")
    again = densekit.load(tmp_path / "model.densekit")
    np.testing.assert_array_equal(
        again.score_samples(targets, context=sources),
        fitted.score_samples(targets, context=sources),
    )
    assert again.decode(sources[:9]) == fitted.decode(sources[:9])
    assert again.sample(4, context="ab", random_state=0) == fitted.sample(
        4, context="ab", random_state=0
    )


def test_words_have_sources_of_words():
    model = Seq2Seq(**SMALL, tokens="word", max_steps=5)
    model.fit(["der Hund", "die Katze"] * 5, context=["the dog", "the cat"] * 5)
    assert np.isfinite(model.score_samples(["der Hund"], context=["a dog"])).all()


def test_bad_contexts(fitted):
    with pytest.raises(ValueError, match="fitted with a context and is used without"):
        fitted.score_samples(["bc"])
    for call in (fitted.sample, fitted.decode):
        with pytest.raises(ValueError, match="give it context="):
            call()
    with pytest.raises(ValueError, match="context has 2 rows and X has 3"):
        fitted.score_samples(["b", "c", "d"], context=["a", "b"])
    with pytest.raises(ValueError, match="context has 2 rows and X has 4"):
        Seq2Seq(**SMALL, max_steps=1).fit(["a", "b", "c", "d"], context=["a", "b"])
    with pytest.raises(ValueError, match=r"context\[1\] has 7 tokens.*max_length is 6"):
        fitted.score_samples(["b", "c"], context=["a", "abcabca"])
    with pytest.raises(ValueError, match=r"X\[0\] has 7 tokens.*max_length is 6"):
        fitted.score_samples(["bcdbcdb"], context=["a"])
    with pytest.raises(TypeError, match=r"context\[0\] is 3 of type int"):
        fitted.score_samples(["b"], context=[3])
    with pytest.raises(TypeError, match="context=3"):
        fitted.decode(3)
    with pytest.raises(ValueError, match="context is empty"):
        fitted.decode([])
    with pytest.raises(ValueError, match="n_beams=0 must be at least 1"):
        fitted.decode("a", n_beams=0)
    with pytest.raises(TypeError, match="n_beams must be an integer"):
        fitted.decode("a", n_beams=2.5)
    alone = Seq2Seq(**SMALL, max_steps=1).fit(["a", "b"])
    with pytest.raises(ValueError, match="fitted without a context"):
        alone.score_samples(["a"], context=["b"])


def test_unseen_characters_and_empty_strings_have_mass(fitted):
    scores = fitted.score_samples(["", "b?", "bc"], context=["", "z", "\U0001f600b"])
    assert np.isfinite(scores).all()
    assert all("\ufffd" not in t for t in fitted.decode(["", "zzz", "az"]))


def test_sources_are_no_x_and_targets_no_y():
    with pytest.raises(ValueError, match=r"fit\(targets, context=sources\)"):
        Seq2Seq(max_steps=1).fit(["ab", "b"], ["AB", "B"])
