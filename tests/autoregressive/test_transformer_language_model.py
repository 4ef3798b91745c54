import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch

from densekit import NGram, TransformerLanguageModel
from densekit.autoregressive.language import NextTokenNet
from densekit.nets.transformer import Transformer

SMALL = {"width": 16, "n_layers": 2, "n_heads": 2, "random_state": 0}


def alternating(n, seed=0):
    """Strings that walk round a ring of four letters, one step forth or (one time in five) back,
    and stop with probability 0.1: what follows depends on the letter before."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        at, row = rng.integers(4), ""
        while len(row) < 12:
            row += "abcd"[at]
            at = (at + (1 if rng.random() < 0.8 else -1)) % 4
            if rng.random() < 0.1:
                break
        rows.append(row)
    return rows


@pytest.fixture(scope="module")
def fitted():
    model = TransformerLanguageModel(**SMALL, max_steps=300, learning_rate=1e-2, max_length=12)
    return model.fit(alternating(1000))


def test_masses_of_all_strings_sum_to_one():
    rows = ["ab", "ba", "bab", "a"] * 5
    model = TransformerLanguageModel(**SMALL, max_steps=5, max_length=3).fit(rows)
    every = ["".join(s) for n in range(4) for s in itertools.product("ab?", repeat=n)]
    for prompt in ("", "a", "ab?"):
        tails = [s for s in every if len(s) + len(prompt) <= 3]
        events, context = model.codec_.encode(tails)[0], model.codec_.prompts([prompt])
        mass = model._distribution(context).log_prob(events).exp().sum()
        assert float(mass) == pytest.approx(1, abs=1e-5)


def test_unknown_symbols_have_mass_between_them(fitted):
    known, unknown = fitted.score_samples(["ab", "a!"])
    assert np.isfinite(unknown)
    assert unknown < known


def test_it_comes_near_the_entropy_of_the_source(fitted):
    # Per letter: ln 4 for the first; then 0.9 of going on, a step of entropy H(0.2).
    test = alternating(1000, seed=1)
    step = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    go, stop = -math.log(0.9), -math.log(0.1)
    best = np.mean(
        [math.log(4) + (len(r) - 1) * (go + step) + (stop if len(r) < 12 else 0) for r in test]
    )
    assert -fitted.score(test) < best + 0.25
    assert -fitted.score(test) > best - 0.25


def test_chain_rule_closes_with_prompts(fitted):
    tails = ["a", "bcd", "", "dabc"]
    joint = fitted.score_samples(["abc" + t for t in tails])
    given = fitted.score_samples(tails, context=["abc"] * 4)
    np.testing.assert_allclose(joint - given, (joint - given)[0], atol=1e-4)


def test_prompts_of_different_lengths_do_not_see_each_other(fitted):
    tails, prompts = ["ab", "cd", "b"], ["", "abcdab", "d"]
    alone = [
        fitted.score_samples([t], context=[p])[0] for t, p in zip(tails, prompts, strict=True)
    ]
    np.testing.assert_allclose(fitted.score_samples(tails, context=prompts), alone, atol=1e-4)
    assert alone[0] == pytest.approx(fitted.score_samples(["ab"])[0], abs=1e-4)


def test_a_score_does_not_depend_on_the_other_rows(fitted):
    rows = ["ab", "cdabcdab", "", "dcba"]
    alone = [fitted.score_samples([r])[0] for r in rows]
    np.testing.assert_allclose(fitted.score_samples(rows), alone, atol=1e-4)
    np.testing.assert_allclose(fitted.score_samples(rows[::-1])[::-1], alone, atol=1e-4)


@pytest.mark.parametrize("prompt", [None, "abc"])
def test_samples_agree_with_scores(fitted, prompt):
    n = 3000
    drawn = Counter(fitted.sample(n, context=prompt, random_state=0))
    for row, count in drawn.most_common(5):
        context = None if prompt is None else [prompt]
        p = math.exp(fitted.score_samples([row], context=context)[0])
        assert abs(count / n - p) < 4.5 * math.sqrt(p * (1 - p) / n)


def test_samples_walk_the_ring(fitted):
    pairs = Counter(p for r in fitted.sample(500, random_state=0) for p in itertools.pairwise(r))
    forth = sum(pairs[a, b] for a, b in ("ab", "bc", "cd", "da"))
    back = sum(pairs[b, a] for a, b in ("ab", "bc", "cd", "da"))
    assert forth / pairs.total() == pytest.approx(0.8, abs=0.05)
    assert back / pairs.total() == pytest.approx(0.2, abs=0.05)


def test_samples_are_legal_strings(fitted):
    longest = fitted.schema_.event_shape[0] - 1
    assert all(len(r) <= longest for r in fitted.sample(200, random_state=1))
    tails = fitted.sample(200, context="abcdabcdab", random_state=1)
    assert all(len(r) <= longest - 10 for r in tails)
    assert np.isfinite(fitted.score_samples(tails, context=["abcdabcdab"] * 200)).all()


def test_one_prompt_per_draw(fitted):
    firsts = [r[:1] for r in fitted.sample(context=["a", "b", "c", "d"] * 50, random_state=0)]
    follows = Counter(zip("abcd" * 50, firsts, strict=True))
    assert follows["a", "b"] > follows["a", "d"]
    assert follows["d", "a"] > follows["d", "c"]


def test_cached_steps_give_the_scores():
    torch.manual_seed(0)
    net = Transformer(9, 16, 2, 2)
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(std=0.4)
    model = NextTokenNet(net, 9, 20).double()
    given = torch.tensor([[0, 0, 1], [1, 4, 5], [0, 1, 3]])
    tokens = torch.tensor([[3, 4, 5, 6, 1], [7, 8, 1, 0, 0], [1, 0, 0, 0, 0]])
    scored = model.log_probs(given, tokens)
    assert (scored[tokens == 0] == 0).all()
    logits, state = model.start(given)
    for t in range(5):
        now = logits.log_softmax(-1).gather(1, tokens[:, t, None]).squeeze(1)
        live = tokens[:, t] > 0
        torch.testing.assert_close(now[live], scored[live, t], rtol=1e-8, atol=1e-8)
        logits, state = model.step(tokens[:, t], state)


def test_the_gradient_is_that_of_the_score():
    torch.manual_seed(0)
    model = NextTokenNet(Transformer(7, 8, 1, 1), 7, 6).double()
    x = torch.tensor([[3, 4, 5, 1, 0, 0], [6, 1, 0, 0, 0, 0]])
    weight = model.net.embed.weight

    def score():
        return model(None).log_prob(x).sum()

    score().backward()
    with torch.no_grad():
        for i, j in ((3, 0), (1, 5)):
            weight[i, j] += 1e-5
            up = score()
            weight[i, j] -= 2e-5
            down = score()
            weight[i, j] += 1e-5
            torch.testing.assert_close((up - down) / 2e-5, weight.grad[i, j], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_it_beats_the_ngram_that_cannot_remember():
    # The last letter repeats the first, eight letters before: out of reach of a 4-gram.
    rng = np.random.default_rng(0)
    rows = ["".join(rng.choice(list("abcd"), 8)) for _ in range(3000)]
    rows = [r + r[0] for r in rows]
    model = TransformerLanguageModel(**SMALL, max_steps=1500, learning_rate=1e-2).fit(rows[:2500])
    assert model.score(rows[2500:]) > NGram(order=4).fit(rows[:2500]).score(rows[2500:]) + 1
