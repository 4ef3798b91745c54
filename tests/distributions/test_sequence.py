import itertools

import pyro
import pytest
import torch
from pyro.distributions import Categorical

from densekit.distributions.backoff import BackoffTable, Order
from densekit.distributions.sequence import TokenSequence, begin

VOCAB, MAX_LENGTH = 5, 3


class Markov:
    """The next token depends on the last two: the simplest model with a memory and a state."""

    vocab_size = VOCAB
    device = torch.device("cpu")

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.table = torch.randn(VOCAB, VOCAB, VOCAB, generator=generator, dtype=torch.float64)
        self.table[..., 0] = -torch.inf
        self.table = self.table.log_softmax(-1)

    def log_probs(self, given, tokens):
        x = torch.cat([torch.zeros_like(given[:, :1]), given, tokens], 1)
        logp = self.table[x[:, :-2], x[:, 1:-1]].gather(2, x[:, 2:, None]).squeeze(2)
        return torch.where(x[:, 2:] != 0, logp, 0)[:, given.shape[1] - 1 :]

    def start(self, given):
        before = given[:, -2] if given.shape[1] > 1 else torch.zeros_like(given[:, -1])
        return self.table[before, given[:, -1]], given[:, -1]

    def step(self, tokens, state):
        return self.table[state, tokens], tokens

    def keep(self, state, rows):
        return state[rows]


def strings(longest=MAX_LENGTH):
    """Every string of up to ``longest`` tokens, padded to the length of an event."""
    rows = [
        [*body, 1] + [0] * (MAX_LENGTH - len(body))
        for n in range(longest + 1)
        for body in itertools.product(range(2, VOCAB), repeat=n)
    ]
    return torch.tensor(rows)


@pytest.fixture
def dist():
    return TokenSequence(Markov(), MAX_LENGTH)


def test_masses_sum_to_one(dist):
    torch.testing.assert_close(
        dist.log_prob(strings()).exp().sum(), torch.tensor(1.0, dtype=torch.float64)
    )


def test_log_prob_is_the_sum_over_tokens(dist):
    table = Markov().table
    by_hand = table[0, 1, 3] + table[1, 3, 2] + table[3, 2, 1]
    torch.testing.assert_close(dist.log_prob(torch.tensor([3, 2, 1, 0])), by_hand)


def test_the_end_is_certain_at_full_length(dist):
    table = Markov().table
    by_hand = table[0, 1, 3] + table[1, 3, 2] + table[3, 2, 4]
    torch.testing.assert_close(dist.log_prob(torch.tensor([3, 2, 4, 1])), by_hand)


@pytest.mark.parametrize("prompt", [[], [4], [2, 3], [2, 2, 4]])
def test_chain_rule_closes_and_continuations_sum_to_one(dist, prompt):
    n = len(prompt)
    given = TokenSequence(Markov(), MAX_LENGTH, torch.tensor([[0] * (3 - n) + prompt]))
    tails = strings(MAX_LENGTH - n)
    scores = given.log_prob(tails)
    torch.testing.assert_close(scores.exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    wholes = torch.cat([torch.tensor(prompt, dtype=torch.long).expand(len(tails), n), tails], 1)
    joint = dist.log_prob(wholes)
    # log p(prompt + tail) - log p(tail | prompt) is log p(begins with prompt), whatever the tail.
    begins = dist.log_prob(strings())[[r[:n] == prompt for r in strings().tolist()]].logsumexp(0)
    torch.testing.assert_close(joint - scores, begins.expand(len(tails)))


def test_padding_and_other_rows_change_nothing(dist):
    x = strings()
    together = dist.log_prob(x)
    alone = torch.stack([dist.log_prob(row[: row.tolist().index(1) + 1]) for row in x])
    torch.testing.assert_close(together, alone, rtol=1e-14, atol=0)
    with torch.no_grad():  # scored in pieces
        torch.testing.assert_close(dist.log_prob(x), together, rtol=1e-14, atol=0)


@pytest.mark.parametrize(
    "row",
    [
        [2, 2, 2, 2, 1],  # too long
        [2, 2, 2, 2],  # no end
        [0, 1, 0, 0],  # padding before the end
        [1, 2, 0, 0],  # something behind it
        [1, 1, 0, 0],
        [VOCAB, 1, 0, 0],  # no such token
        [-1, 1, 0, 0],
        [0, 0, 0, 0],
    ],
)
def test_what_is_no_string_has_mass_zero(dist, row):
    scores = dist.log_prob(torch.tensor([row, [2, 1, *[0] * (len(row) - 2)]]))
    assert scores[0] == -torch.inf
    assert scores[1] == dist.log_prob(torch.tensor([2, 1]))


@pytest.mark.parametrize("prompt", [None, [[0, 0, 0]], [[0, 0, 4]], [[2, 3, 2]]])
def test_samples_agree_with_scores(prompt):
    torch.manual_seed(0)
    given = None if prompt is None else torch.tensor(prompt)
    dist = TokenSequence(Markov(), MAX_LENGTH, given)
    n = 20_000
    x = dist.sample((n,)).reshape(n, -1)
    assert x.shape[1] == MAX_LENGTH + 1
    found, count = x.unique(dim=0, return_counts=True)
    p = dist.log_prob(found).exp()
    assert (p > 0).all()
    if len(found) > 1:
        z = (count / n - p) / (p * (1 - p) / n).sqrt()
        assert z.abs().max() < 4.5


def test_each_prompt_has_its_own_continuations():
    torch.manual_seed(0)
    prompts = torch.tensor([[0, 0], [2, 4], [0, 3]])
    dist = TokenSequence(Markov(), MAX_LENGTH, prompts)
    assert dist.batch_shape == (3,)
    assert dist.event_shape == (MAX_LENGTH + 1,)
    x = dist.sample((7,))
    assert x.shape == (7, 3, MAX_LENGTH + 1)
    assert (x[:, 1] > 1).sum(-1).max() <= 1  # one token is left of three
    scores = dist.log_prob(x)
    for j in range(3):
        torch.testing.assert_close(
            scores[:, j], TokenSequence(Markov(), MAX_LENGTH, prompts[j]).log_prob(x[:, j])
        )


def test_long_samples_follow_the_transitions():
    # Strings end at different times, so that rows leave while others go on.
    torch.manual_seed(0)
    prompts = torch.tensor([[0, 0, 0], [2, 4, 3], [0, 3, 2]])
    dist = TokenSequence(Markov(), 25, prompts)
    x = dist.sample((4000,))
    lengths = (x > 1).sum(-1)
    assert (lengths + (prompts > 0).sum(-1)).max() == 25
    x = torch.cat([begin(prompts).expand(4000, 3, 4), x], -1).reshape(-1, 30)
    now = x[:, 4:] * ((x > 1).cumsum(1)[:, 3:-1] < 25)  # without the ends that are forced
    a, b, c = (u[now > 0] for u in (x[:, 2:-2], x[:, 3:-1], now))
    counts = torch.zeros(VOCAB, VOCAB, VOCAB).index_put((a, b, c), torch.tensor(1.0), True)
    total = counts.sum(-1, keepdim=True)
    p = Markov().table.exp()
    z = (counts - total * p) / (total * p * (1 - p)).clamp(min=1).sqrt()
    assert counts.sum() > 30_000
    assert z[(total > 0).expand_as(z)].abs().max() < 4.5


def test_expands_and_works_in_pyro(dist):
    wide = dist.expand((4,))
    torch.manual_seed(0)
    x = wide.sample()
    assert x.shape == (4, MAX_LENGTH + 1)
    torch.testing.assert_close(wide.log_prob(x), dist.log_prob(x))

    def model():
        with pyro.plate("strings", 4):
            return pyro.sample("x", dist)

    trace = pyro.poutine.trace(model).get_trace()
    torch.testing.assert_close(
        trace.log_prob_sum(), dist.log_prob(trace.nodes["x"]["value"]).sum()
    )


def test_a_prompt_of_full_length_is_refused():
    with pytest.raises(ValueError, match="prompt: the longest has 4 tokens, but max_length=3"):
        TokenSequence(Markov(), MAX_LENGTH, torch.tensor([[2, 2, 2, 2]]))


def test_begin_marks_the_place_before_the_first_token():
    marked = [[0, 0, 1], [0, 1, 3], [1, 4, 3]]
    assert begin(torch.tensor([[0, 0], [0, 3], [4, 3]])).tolist() == marked
    assert begin(torch.tensor([[0, 0], [3, 0], [4, 3]])).tolist() == marked


def test_backoff_table_mixes_down_to_the_unigram():
    unigram = torch.tensor([0, 0.2, 0.3, 0.5], dtype=torch.float64)
    # After 2: half of the mass on 3, the rest to the unigram. After anything else: the unigram.
    order = Order(
        torch.tensor([2 * 4 + 3]),
        torch.tensor([0.5, 0.0], dtype=torch.float64),
        torch.tensor([1.0, 1.0, 0.5, 1.0, 1.0], dtype=torch.float64),
    )
    table = BackoffTable(unigram, [order])
    after_two = torch.tensor([0, 0.1, 0.15, 0.75], dtype=torch.float64)
    logits, state = table.start(torch.tensor([[1, 2], [0, 1]]))
    torch.testing.assert_close(logits.exp(), torch.stack([after_two, unigram]))
    logits, _ = table.step(torch.tensor([3, 2]), state)
    torch.testing.assert_close(logits.exp(), torch.stack([unigram, after_two]))
    logp = table.log_probs(torch.tensor([[0, 1]]), torch.tensor([[2, 3, 1, 0]]))
    torch.testing.assert_close(logp.exp(), torch.tensor([[0.3, 0.75, 0.2, 1.0]]).double())
    x = Categorical(logits=logits).sample((100,))
    assert (x > 0).all()
