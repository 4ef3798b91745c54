import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch

from densekit import MaskedDiffusion

SMALL = {"width": 16, "n_layers": 2, "n_heads": 2, "random_state": 0, "batch_size": 64}


def palindromes(n, seed=0):
    """Four letters, the last two mirror the first two: the whole string is needed to know it."""
    rng = np.random.default_rng(seed)
    halves = ["".join(rng.choice(list("abc"), 2)) for _ in range(n)]
    return [h + h[::-1] if i % 4 else h[0] for i, h in enumerate(halves)]


@pytest.fixture(scope="module")
def fitted():
    model = MaskedDiffusion(**SMALL, max_steps=500, learning_rate=1e-2, max_length=5)
    return model.fit(palindromes(1000))


def mask_by_mask(model, text):
    """The exact bound: every set of hidden tokens, one reading each."""
    module, (x, _) = model.module_, model.codec_.encode([text])
    n = len(text)
    total = module(None).log_lengths[n].item()
    for k in range(1, n + 1):
        for hide in itertools.combinations(range(n), k):
            seen = x.clone()
            seen[0, list(hide)] = module.vocab_size
            logp = module.log_probs(seen, x).sum().item()
            total += logp / k / math.comb(n, k)
    return total


def test_the_bound_is_that_of_all_masks(fitted):
    rows = ["abba", "a", "", "abcab", "cbbc", "bb", "aac"]
    bound, error = fitted.score_samples(rows, return_std=True)
    exact = np.array([mask_by_mask(fitted, r) for r in rows])
    assert (np.abs(bound - exact) < 4 * error + 1e-4).all()
    assert (error[:3] >= 0).all()
    assert error[1] == error[2] == 0
    assert (error[3:] > 0).all()


def test_it_learns_from_both_sides(fitted):
    test = palindromes(400, seed=1)
    # A quarter has one letter of three, the rest two.
    truth = 0.75 * math.log(0.75) + 0.25 * math.log(0.25) - 1.75 * math.log(3)
    assert truth - 0.25 < fitted.score(test) < truth + 0.02
    drawn = fitted.sample(500, random_state=0)
    assert np.mean([r == r[::-1] for r in drawn]) > 0.9  # a third by chance
    assert np.mean([len(r) == 4 for r in drawn]) == pytest.approx(0.75, abs=0.07)


def test_draws_are_as_likely_as_the_bound_says_at_least(fitted):
    n = 3000
    drawn = Counter(fitted.sample(n, random_state=1))
    for row, count in drawn.most_common(9):
        bound, error = fitted.score_samples([row], return_std=True)
        p = math.exp(bound[0] - 4 * error[0])
        assert count / n > p - 4.5 * math.sqrt(p * (1 - p) / n)


def test_bounds_sum_to_no_more_than_one():
    model = MaskedDiffusion(**SMALL, max_steps=5, max_length=3, n_draws=200)
    model.fit(["ab", "ba", "bab", "a"] * 5)
    every = ["".join(s) for n in range(4) for s in itertools.product("ab?", repeat=n)]
    events = model.codec_.encode(every)[0]
    bound, error = model.module_(None).log_prob_and_error(events)
    assert 0.9 < bound.exp().sum() < 1 + 4 * (bound.exp() * error).sum()


def test_a_score_does_not_depend_on_company_or_padding(fitted):
    rows = ["ab", "cbabc", "", "a"]
    alone = [fitted.score_samples([r])[0] for r in rows]
    np.testing.assert_allclose(fitted.score_samples(rows), alone, atol=1e-4)
    np.testing.assert_allclose(fitted.score_samples(rows[::-1])[::-1], alone, atol=1e-4)


def test_neither_mask_nor_end_is_ever_predicted(fitted):
    module, (x, _) = fitted.module_, fitted.codec_.encode(["abba", "abc"])
    seen = torch.where(x > 1, module.vocab_size, x)
    logits = module.logits(seen, x > 1)
    assert logits.shape == (7, module.vocab_size)
    assert (logits[:, :2] == -torch.inf).all()
    assert logits[:, 2:].isfinite().all()
    # What is seen costs nothing: it is carried over.
    assert (module.log_probs(x, x) == 0).all()


def test_what_is_on_the_right_is_seen(fitted):
    module, (x, _) = fitted.module_, fitted.codec_.encode(["abba"])
    seen = x.clone()
    seen[0, 1:3] = module.vocab_size
    before = module.log_probs(seen, x)
    seen[0, 3] = 5  # on the right of them
    assert (module.log_probs(seen, x) - before)[0, 1:3].abs().min() > 0.1


def test_more_draws_leave_less_error(fitted):
    rows = ["abcab", "cbbc"]
    few = MaskedDiffusion(**SMALL, max_steps=5, max_length=5, n_draws=8).fit(palindromes(50))
    many = MaskedDiffusion(**SMALL, max_steps=5, max_length=5, n_draws=511).fit(palindromes(50))
    assert len(many.module_.levels) == 512
    errors = [m.score_samples(rows, return_std=True)[1].mean() for m in (few, many)]
    assert errors[1] < errors[0] / 3
    assert fitted.density_kind_ == "lower_bound"
    assert fitted.base_measure_ == "counting"


def test_fewer_steps_than_tokens_are_legal_and_worse(fitted):
    model = MaskedDiffusion(**SMALL, max_steps=500, learning_rate=1e-2, max_length=5, n_steps=1)
    model.fit(palindromes(1000))
    drawn = model.sample(500, random_state=0)
    assert all(len(r) <= 5 for r in drawn)
    # Two pairs that agree by chance: a ninth of three quarters, and the rest.
    assert np.mean([r == r[::-1] for r in drawn]) < 0.6


def test_the_gradient_is_that_of_the_loss(fitted):
    torch.manual_seed(0)
    model = MaskedDiffusion(**SMALL, max_steps=1, max_length=5, dtype="float64")
    model.fit(palindromes(20))
    module, (x, _) = (
        model.module_.requires_grad_(True).train(),
        fitted.codec_.encode(["abba", "c"]),
    )

    def loss():
        torch.manual_seed(1)
        return model._loss(module, x, None).sum() / model._size(x).sum()

    loss().backward()
    for weight, at in ((module.net.embed.weight, (3, 1)), (module.lengths, (4,))):
        grad = weight.grad[at].item()
        with torch.no_grad():
            weight[at] += 1e-5
            up = loss().item()
            weight[at] -= 2e-5
            down = loss().item()
            weight[at] += 1e-5
        assert (up - down) / 2e-5 == pytest.approx(grad, rel=1e-4, abs=1e-7)
        assert grad != 0


@pytest.mark.parametrize(
    ("parameters", "words"),
    [({"n_draws": 1}, "n_draws"), ({"n_steps": 0}, "n_steps"), ({"width": 10}, "width=10")],
)
def test_bad_parameters(parameters, words):
    with pytest.raises(ValueError, match=words):
        MaskedDiffusion(**{**SMALL, **parameters}).fit(["ab", "ba"])


def test_bad_rows(fitted):
    assert np.isfinite(fitted.score_samples(["", "?", "a!"])).all()
    with pytest.raises(ValueError, match=r"X\[1\] has 6 tokens.*max_length is 5"):
        fitted.score_samples(["a", "abcabc"])
    with pytest.raises(ValueError, match="takes no context"):
        fitted.score_samples(["a"], context=["b"])
