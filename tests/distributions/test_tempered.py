import itertools

import pytest
import torch

from densekit.distributions.backoff import BackoffTable
from densekit.distributions.sequence import TokenSequence
from densekit.distributions.tempered import Tempered
from tests.distributions.test_sequence import MAX_LENGTH, VOCAB, Markov, strings

CHANGES = [
    {"temperature": 0.5},
    {"temperature": 3.0},
    {"top_k": 2},
    {"top_p": 0.6},
    {"temperature": 0.8, "top_k": 3, "top_p": 0.7},
]


def by_hand(p, temperature=1.0, top_k=None, top_p=None):
    """One row of probabilities by the definition in the papers, with lists."""
    p = [x ** (1 / temperature) for x in p]
    order = sorted((i for i in range(len(p)) if p[i] > 0), key=lambda i: (-p[i], i))
    order = order[:top_k]
    if top_p is not None:
        total = sum(p[i] for i in order)
        mass = [0, *itertools.accumulate(p[i] / total for i in order)]
        order = [i for i, before in zip(order, mass, strict=False) if before < top_p]
    total = sum(p[i] for i in order)
    return [p[i] / total if i in order else 0.0 for i in range(len(p))]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_each_row_is_what_the_papers_say(change):
    logits, _ = Markov().start(torch.tensor([[1], [2], [3], [4]]))
    found, _ = Tempered(Markov(), **change).start(torch.tensor([[1], [2], [3], [4]]))
    wanted = torch.tensor([by_hand(row, **change) for row in logits.exp().tolist()])
    torch.testing.assert_close(found.softmax(-1), wanted.double(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_it_is_a_mass_that_its_draws_have(change):
    dist = TokenSequence(Tempered(Markov(), **change), MAX_LENGTH)
    every = strings()
    mass = dist.log_prob(every).exp()
    torch.testing.assert_close(mass.sum(), torch.tensor(1.0, dtype=mass.dtype))
    torch.manual_seed(0)
    drawn = dist.sample((4000,))
    index = (drawn.unsqueeze(1) == every).all(-1).float().argmax(1)
    share = torch.bincount(index, minlength=len(every)) / 4000
    assert ((share - mass).abs() < 4.5 * (mass * (1 - mass) / 4000).sqrt() + 1e-9).all()


def test_no_change_is_the_model():
    plain, same = (TokenSequence(m, MAX_LENGTH) for m in (Markov(), Tempered(Markov())))
    torch.testing.assert_close(same.log_prob(strings()), plain.log_prob(strings()))


def test_the_likeliest_alone_draws_one_string():
    drawn = TokenSequence(Tempered(Markov(), top_k=1), MAX_LENGTH).sample((50,))
    assert (drawn == drawn[0]).all()


def test_ties_keep_as_many_as_were_asked_for():
    even = BackoffTable(torch.tensor([0.0, 0.25, 0.25, 0.25, 0.25]), [])
    logits, _ = Tempered(even, top_k=2).start(torch.tensor([[1]]))
    assert logits.softmax(-1).tolist() == [[0, 0.5, 0.5, 0, 0]]
    assert len(logits[0]) == VOCAB
