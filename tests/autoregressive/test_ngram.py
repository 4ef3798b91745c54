import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from densekit import NGram
from densekit.autoregressive.ngram import _count, _discounts, _smooth, _tuned, _unigram
from densekit.distributions.backoff import stream

LETTERS = "abc"


def markov_source(n, seed=0):
    """Strings of a Markov chain over three letters that stops with probability 0.15."""
    rng = np.random.default_rng(seed)
    after = {"": "abc", "a": "bbc", "b": "aac", "c": "abc"}
    rows = []
    for _ in range(n):
        row = ""
        while len(row) < 12 and rng.random() > 0.15:
            row += rng.choice(list(after[row[-1:]]))
        rows.append(row)
    return rows


def strings(letters, longest):
    return ["".join(s) for n in range(longest + 1) for s in itertools.product(letters, repeat=n)]


@pytest.fixture(scope="module")
def model():
    return NGram(order=3).fit(markov_source(400))


def kneser_ney(rows, order, max_length, symbols):
    """Probabilities by the book: dictionaries and loops, no arrays. `symbols` has the end, not the
    beginning; the uniform distribution counts one more, the unknown symbol."""
    raw = [Counter() for _ in range(order + 1)]
    for row in rows:
        tokens = ["^", *row, *(["$"] if len(row) < max_length else [])]
        for k in range(1, order + 1):
            for i in range(len(tokens) - k + 1):
                raw[k][tuple(tokens[i : i + k])] += 1
    del raw[1][("^",)]
    counts = [None]
    for k in range(1, order + 1):
        if k == order:
            counts.append(dict(raw[k]))
            continue
        before = defaultdict(set)
        for gram in raw[k + 1]:
            before[gram[1:]].add(gram[0])
        counts.append({g: c if g[0] == "^" else len(before[g]) for g, c in raw[k].items()})

    def discounts(k):
        n = Counter(counts[k].values())
        if not (n[1] and n[2] and n[3]):
            return [0, 0.5, 1.0, 1.5]
        y = n[1] / (n[1] + 2 * n[2])
        d = [0] + [j - (j + 1) * y * n[j + 1] / n[j] for j in (1, 2, 3)]
        return [x if j == 0 or 0.05 < x <= j else j / 2 for j, x in enumerate(d)]

    table = [None] + [discounts(k) for k in range(1, order + 1)]

    def probability(context, w, k):
        if k == 0:
            return 1 / (len(symbols) + 1)
        context = context[-(k - 1) :] if k > 1 else ()
        if len(context) < k - 1:
            return probability(context, w, len(context) + 1)
        seen = {g[-1]: c for g, c in counts[k].items() if g[:-1] == context}
        lower = probability(context, w, k - 1)
        if not seen:
            return lower
        d, total, c = table[k], sum(seen.values()), seen.get(w, 0)
        handed = sum(d[min(c, 3)] for c in seen.values())
        return (c - d[min(c, 3)]) / total + handed / total * lower

    return lambda context, w: probability(tuple(context), w, order)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [6, 300])
def test_scores_are_kneser_neys_by_the_book(order, n):
    rows = markov_source(n, seed=order)
    max_length = max(map(len, rows))
    model = NGram(order=order, max_length=max_length).fit(rows)
    p = kneser_ney(rows, order, max_length, [*sorted(set("".join(rows))), "$"])
    for row in ["", "a", "cab", "bbbbb", "abcabc", rows[0]][: 4 if n == 6 else 6]:
        by_hand = 0.0
        if len(row) > max_length:
            continue
        for i, w in enumerate([*row, "$"]):
            if i < max_length:
                by_hand += math.log(p(["^", *row[:i]], w))
        assert model.score_samples([row])[0] == pytest.approx(by_hand, rel=1e-6)


def test_a_corpus_small_enough_for_pencil_and_paper():
    model = NGram(order=2, max_length=5).fit(["a", "aa"])
    # Pairs: ^a twice, aa once, a$ twice. No pair is seen three times, so the discounts are 1/2 for
    # a count of one, 1 for two. Different tokens before a: ^ and a; before the end: a.
    # Unigrams: counts 2 and 1 of 3, 3/2 of it spread over a, end, unknown.
    unigram = {"a": (2 - 1) / 3 + 0.5 / 3, "$": (1 - 0.5) / 3 + 0.5 / 3}
    first = (2 - 1) / 2 + 1 / 2 * unigram["a"]
    stop = (2 - 1) / 3 + 1.5 / 3 * unigram["$"]
    assert model.score_samples(["a"])[0] == pytest.approx(math.log(first * stop), rel=1e-6)


@pytest.mark.parametrize("order", [1, 2, 5])
def test_every_context_sums_to_one_with_the_unknown_symbol(order):
    model = NGram(order=order).fit(markov_source(100))
    table = model._distribution(None).model
    v = model.schema_.vocab_size
    contexts = torch.tensor([[0, 0, 1, 3], [1, 3, 4, 5], [0, 1, 2, 3], [1, 5, 5, 5]])
    logits, _ = table.start(contexts)
    p = logits.exp()
    torch.testing.assert_close(p.sum(1), torch.ones(4, dtype=p.dtype), rtol=1e-12, atol=0)
    assert (p[:, 0] == 0).all()
    assert (p[:, 1:] > 0).all()
    scored = torch.stack(
        [table.log_probs(contexts, torch.full((4, 1), w)).squeeze(1) for w in range(1, v)], 1
    )
    torch.testing.assert_close(scored, logits[:, 1:], rtol=1e-12, atol=1e-12)


def test_masses_of_all_strings_sum_to_one():
    model = NGram(order=3, max_length=3).fit([r[:3] for r in markov_source(50)])
    rows = strings([*LETTERS, "?"], 3)  # the question mark is unknown
    events = model.codec_.encode(rows)[0]
    mass = model._distribution(None).log_prob(events).exp().sum()
    assert float(mass) == pytest.approx(1, abs=1e-12)


def test_steps_and_scores_agree(model):
    rows = model.codec_.encode(["abcab", "c", "", "ba"])[0]
    table = model._distribution(None).model
    scored = table.log_probs(torch.ones(4, 1, dtype=torch.long), rows)
    logits, state = table.start(torch.ones(4, 1, dtype=torch.long))
    for t in range(rows.shape[1]):
        now = logits.gather(1, rows[:, t, None]).squeeze(1)
        torch.testing.assert_close(torch.where(rows[:, t] > 0, now, 0), scored[:, t])
        logits, state = table.step(rows[:, t], state)


def test_chain_rule_closes_with_prompts(model):
    tails = np.array(["a", "bc", "", "cab"])
    together = model.score_samples(["ab" + t for t in tails])
    given = model.score_samples(tails, context=["ab"] * 4)
    np.testing.assert_allclose(together - given, (together - given)[0], rtol=1e-5)


def test_a_score_does_not_depend_on_the_other_rows(model):
    rows = ["ab", "cabcabcab", "", "xyz"]
    alone = [model.score_samples([r])[0] for r in rows]
    np.testing.assert_allclose(model.score_samples(rows), alone, rtol=1e-6)
    np.testing.assert_allclose(model.score_samples(rows[::-1])[::-1], alone, rtol=1e-6)


def test_a_sampled_corpus_has_the_bigrams_of_the_first(model):
    def table(rows):
        c = Counter(p for r in rows for p in itertools.pairwise(f"^{r}$"))
        return {k: v / sum(c.values()) for k, v in c.items()}

    truth = table(markov_source(20_000, seed=1))
    model = NGram(order=3).fit(markov_source(5000))
    drawn = table(model.sample(5000, random_state=0))
    assert all(abs(drawn.get(k, 0) - truth.get(k, 0)) < 0.01 for k in {*truth, *drawn})


def test_samples_score_as_the_entropy_says(model):
    x = model.sample(3000, random_state=0)
    scores = model.score_samples(x)
    freq = Counter(x)
    for row, count in freq.most_common(5):
        p = math.exp(model.score_samples([row])[0])
        assert abs(count / 3000 - p) < 4 * math.sqrt(p * (1 - p) / 3000)
    assert np.isfinite(scores).all()


def test_more_context_helps_where_there_is_memory():
    # Every second letter repeats the one two before it: order 2 cannot know, order 3 can.
    rng = np.random.default_rng(0)
    rows = ["".join(rng.choice(["ab", "cd"]) * 3) for _ in range(300)]
    rows = [r[0] + "x" + r[0] + "x" + r[0] for r in rows]
    low, high = (NGram(order=k).fit(rows[:200]).score(rows[200:]) for k in (2, 3))
    assert high > low + 0.5


def test_strings_of_full_length_teach_nothing_about_ends():
    chunks = ["ababab"] * 10
    table = NGram(order=2, max_length=6).fit(chunks)._distribution(None).model
    logits, _ = table.start(torch.tensor([[1, 3]]))
    assert logits.exp()[0, 1] < 0.2


def test_a_fit_with_prompts_counts_them_as_text():
    whole = NGram(order=3, max_length=6).fit(["abca", "abbb", "cab"])
    parts = NGram(order=3, max_length=6).fit(["ca", "bb", "b"], context=["ab", "ab", "ca"])
    np.testing.assert_allclose(whole.keys_[0], parts.keys_[0])
    np.testing.assert_allclose(whole.unigram_, parts.unigram_)


def test_held_out_rows_choose_discounts_at_which_they_are_likeliest():
    # Words drawn from a heavy tail: the counts of counts are no guide for the highest order.
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), 4)) for _ in range(400)]
    p = 1 / np.arange(1, 401)
    rows = [" ".join(rng.choice(words, 20, p=p / p.sum())) for _ in range(1200)]
    model = NGram(order=4).fit(rows)
    ids, _ = model.codec_.encode(rows)
    tokens = [a.numpy() for a in stream(begin_and(ids))]
    tokens.append(np.ones_like(tokens[0]))
    held = np.cumsum(tokens[1] == 0) % 10 == 9
    counts, keys = _count(*(a[~held] for a in tokens), 4, model.schema_.vocab_size)
    all_counts, _ = _count(*tokens, 4, model.schema_.vocab_size)
    closed = np.array([_discounts(c) for c in all_counts])
    tuned = _tuned(counts, keys, closed, *(a[held] for a in tokens))
    np.testing.assert_allclose(model.discounts_, tuned)

    def likelihood(discounts):
        made = NGram(order=4)
        made.__dict__.update(vars(model))
        v, sizes = model.schema_.vocab_size, [model.schema_.vocab_size, *map(len, keys)]
        smoothed = [
            _smooth(c, k // v, n, d)
            for c, k, n, d in zip(counts[1:], keys, sizes, discounts[1:], strict=False)
        ]
        made.unigram_, made.keys_ = _unigram(counts[0], discounts[0]), tuple(keys)
        made.values_, made.leftover_ = zip(*smoothed, strict=True)
        return made.score([r for i, r in enumerate(rows, 1) if i % 10 == 9])

    best = likelihood(tuned)
    assert best > likelihood(closed)
    for k, j in itertools.product(range(4), range(3)):
        for step in (-0.1, 0.1):
            other = tuned.copy()
            other[k, j] = np.clip(other[k, j] + step, 0, j + 1)
            assert likelihood(other) < best + 0.01  # of 106 nats a row


def begin_and(ids):
    return torch.cat([torch.ones_like(ids[:, :1]), ids], 1)


WEIGHTS = np.random.default_rng(5).integers(0, 4, 400)


def repeated(rows, weights):
    return [row for row, w in zip(rows, weights, strict=True) for _ in range(w)]


@pytest.mark.parametrize("tokens", ["character", "word", "bpe"])
def test_whole_weights_are_repeated_rows(tokens):
    rows = [" ".join(row) for row in markov_source(400)]
    settings = {"order": 3, "tokens": tokens, "vocab_size": 262 if tokens == "bpe" else 5}
    weighted = NGram(**settings).fit(rows, sample_weight=WEIGHTS)
    plain = NGram(**settings).fit(repeated(rows, WEIGHTS))
    new = [" ".join(row) for row in markov_source(50, seed=1)]
    np.testing.assert_allclose(weighted.score_samples(new), plain.score_samples(new), rtol=1e-12)


def test_whole_weights_are_repeated_rows_where_discounts_are_tuned():
    rng = np.random.default_rng(0)
    rows = ["".join(rng.choice(list("abcdefgh"), 60, p=np.arange(1, 9) / 36)) for _ in range(400)]
    rows = [row.replace("h", "ab").replace("g", "cd") for row in rows]
    twice = WEIGHTS + 3
    weighted = NGram(order=4).fit(rows, sample_weight=twice)
    plain = NGram(order=4).fit(repeated(rows, twice))
    closed = NGram(order=4).fit(rows)  # a tenth of these has fewer than 10,000 tokens
    np.testing.assert_allclose(weighted.discounts_, plain.discounts_, rtol=1e-9)
    assert not np.allclose(weighted.discounts_, closed.discounts_, rtol=1e-2)
    np.testing.assert_allclose(
        weighted.score_samples(rows[:50]), plain.score_samples(rows[:50]), rtol=1e-6
    )


def test_a_weight_that_is_no_whole_number_is_refused():
    with pytest.raises(ValueError, match=r"sample_weight is 1.5 in row 1 .* whole numbers"):
        NGram(order=2).fit(["ab", "b", "ba"], sample_weight=[1, 1.5, 2])


def test_a_weighted_prompt_counts_as_often_as_its_string():
    weighted = NGram(order=3, max_length=6).fit(
        ["ca", "bb", "b"], context=["ab", "ab", "ca"], sample_weight=[2, 1, 3]
    )
    plain = NGram(order=3, max_length=6).fit(["abca"] * 2 + ["abbb"] + ["cab"] * 3)
    np.testing.assert_allclose(weighted.unigram_, plain.unigram_)
    for a, b in zip(weighted.values_, plain.values_, strict=True):
        np.testing.assert_allclose(a, b)
