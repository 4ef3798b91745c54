import itertools

import pytest
import torch

from densekit.distributions.beams import beam_search
from densekit.distributions.sequence import TokenSequence

VOCAB, LONGEST = 5, 3


class Chain:
    """What follows depends on the last two tokens, differently for each row's mark."""

    vocab_size, device = VOCAB, torch.device("cpu")

    def __init__(self, seed=0):
        g = torch.Generator().manual_seed(seed)
        self.logits = 2 * torch.randn(VOCAB, VOCAB, VOCAB, generator=g, dtype=torch.float64)
        self.logits[..., 0] = -torch.inf

    def log_probs(self, given, tokens):
        logits, state = self.start(given)
        found = []
        for now in tokens.T:
            found.append(logits.log_softmax(1).gather(1, now[:, None])[:, 0] * (now > 0))
            logits, state = self.step(now, state)
        return torch.nan_to_num(torch.stack(found, 1), nan=0.0)

    def start(self, given):
        state = (torch.zeros_like(given[:, -1]), given[:, -1])
        return self.logits[state], state

    def step(self, tokens, state):
        state = (state[1], tokens)
        return self.logits[state], state

    def keep(self, state, rows):
        return state[0][rows], state[1][rows]


def every_string(never=()):
    symbols = [i for i in range(2, VOCAB) if i not in never]
    strings = [s for n in range(LONGEST + 1) for s in itertools.product(symbols, repeat=n)]
    return torch.tensor([[*s, 1] + [0] * (LONGEST - len(s)) for s in strings])


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("never", [(), (3,)])
def test_enough_beams_find_what_trying_every_string_finds(seed, never):
    model, rows = Chain(seed), every_string(never)
    logp, order = TokenSequence(model, LONGEST).log_prob(rows).sort(descending=True)
    tokens, found = beam_search(model, torch.ones(2, 1).long(), LONGEST, 13, never)
    for i in range(2):
        torch.testing.assert_close(found[i], logp[: len(found[i])])
        assert torch.equal(tokens[i], rows[order[:13]])


def test_one_beam_takes_the_likeliest_token_each_time():
    for seed in range(8):
        model = Chain(seed)
        tokens, logp = beam_search(model, torch.ones(1, 1).long(), LONGEST, 1)
        logits, state = model.start(torch.ones(1, 1).long())
        for t in range(LONGEST):
            best = logits.argmax(1)
            assert tokens[0, 0, t] == best
            if best == 1:
                break
            logits, state = model.step(best, state)
        score = TokenSequence(model, LONGEST).log_prob(tokens[0, 0])
        torch.testing.assert_close(score, logp[0, 0])


def test_more_beams_find_no_worse_and_sometimes_better():
    best = []
    for seed in range(20):
        given = torch.ones(1, 1).long()
        best.append([beam_search(Chain(seed), given, LONGEST, b)[1][0, 0] for b in (1, 3, 13)])
    best = torch.tensor(best)
    assert (best[:, 0] <= best[:, 2]).all()
    assert (best[:, 1] <= best[:, 2]).all()
    assert (best[:, 0] < best[:, 2]).any()


def test_scores_are_those_of_the_strings_and_rows_are_their_own():
    model, given = Chain(3), torch.tensor([[1], [2], [4]])
    tokens, logp = beam_search(model, given, LONGEST, 4)
    for i in range(3):
        alone, found = beam_search(model, given[i : i + 1], LONGEST, 4)
        assert torch.equal(alone[0], tokens[i])
        torch.testing.assert_close(found[0], logp[i])
        assert len({tuple(r) for r in tokens[i].tolist()}) == 4
    scores = TokenSequence(model, LONGEST).log_prob(tokens[0])
    torch.testing.assert_close(scores, logp[0])


def test_more_beams_than_strings_leave_some_without_mass():
    tokens, logp = beam_search(Chain(), torch.ones(1, 1).long(), 1, 9, (2,))
    assert logp[0].isfinite().sum() == 3  # the empty string, 3 and 4
    assert tokens.shape == (1, 9, 2)
    assert logp[0].exp().sum() < 1
