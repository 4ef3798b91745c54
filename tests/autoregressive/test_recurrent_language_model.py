import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch

from densekit import RecurrentLanguageModel

SMALL = {"width": 16, "n_layers": 1, "random_state": 0, "device": "cpu"}


def ring(n, seed=0):
    """Walks round a ring of four letters, forth four times of five; each stops with 0.1."""
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


@pytest.fixture(scope="module", params=["lstm", "gru"])
def fitted(request):
    model = RecurrentLanguageModel(
        **SMALL, cell=request.param, max_steps=300, learning_rate=1e-2, max_length=12
    )
    return model.fit(ring(1000))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_masses_of_all_strings_sum_to_one(cell):
    model = RecurrentLanguageModel(**SMALL, cell=cell, max_steps=5, max_length=3)
    model.fit(["ab", "ba", "bab", "a"] * 5)
    every = ["".join(s) for n in range(4) for s in itertools.product("ab?", repeat=n)]
    for prompt in ("", "a", "ab?"):
        tails = [s for s in every if len(s) + len(prompt) <= 3]
        events, context = model.codec_.encode(tails)[0], model.codec_.prompts([prompt])
        mass = model._distribution(context).log_prob(events).exp().sum()
        assert float(mass) == pytest.approx(1, abs=1e-5)


def test_chain_rule_closes_with_prompts(fitted):
    tails = ["a", "bcd", "", "dabc"]
    joint = fitted.score_samples(["abc" + t for t in tails])
    given = fitted.score_samples(tails, context=["abc"] * 4)
    np.testing.assert_allclose(joint - given, (joint - given)[0], atol=1e-4)


def test_a_score_does_not_depend_on_the_other_rows(fitted):
    rows = ["ab", "cdabcdab", "", "dcba"]
    alone = [fitted.score_samples([r])[0] for r in rows]
    np.testing.assert_allclose(fitted.score_samples(rows), alone, atol=1e-4)


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
    assert forth / pairs.total() == pytest.approx(0.8, abs=0.06)


def test_the_first_row_in_order_is_a_row_alone_and_the_rest_follow(fitted):
    rows = ["abc", "dabc", "", "cb"]
    scores = fitted.score_in_order(rows)
    assert scores[0] == pytest.approx(fitted.score_samples(rows[:1])[0], abs=1e-4)
    # The whole text, read in one pass of the network.
    ids = torch.cat([torch.tensor([1]), *fitted.codec_.documents(rows)[0]])
    logp = fitted.module_.net(ids[None, :-1]).log_softmax(-1)
    whole = logp.gather(1, ids[1:, None]).sum()
    assert scores.sum() == pytest.approx(float(whole), rel=1e-5)


def test_carried_states_depend_on_the_previous_row():
    # Each row repeats the row before it with probability 0.95: a row alone is a fair coin.
    rng = np.random.default_rng(0)
    rows = [["aaa", "bbb"][i] for i in np.cumsum(rng.random(2000) < 0.05) % 2]
    settings = {**SMALL, "max_length": 4, "max_steps": 300, "learning_rate": 1e-2}
    model = RecurrentLanguageModel(**settings, carry=True, batch_size=8).fit(rows)
    apart = -model.score(rows[-200:])
    in_order = -model.score_in_order(rows[-200:]).mean()
    # The entropy of a repetition is 0.2, that of a coin 0.69.
    assert 0.1 < in_order < 0.45
    assert abs(apart - math.log(2)) < 0.2
    shuffled = RecurrentLanguageModel(**settings, batch_size=8).fit(rows)
    assert -shuffled.score_in_order(rows[-200:]).mean() > in_order + 0.2


def test_carried_states_are_not_checkpointed(tmp_path):
    model = RecurrentLanguageModel(width=8, n_layers=1, max_steps=3, carry=True)
    with pytest.raises(ValueError, match=r"checkpoint_dir=.* with carry=True"):
        model.set_params(checkpoint_dir=str(tmp_path)).fit(["ab", "ba"] * 8)
    assert not list(tmp_path.iterdir())
