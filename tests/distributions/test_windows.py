import itertools

import pytest
import torch

from densekit.distributions.backoff import BackoffTable
from densekit.distributions.windows import score_in_windows
from tests.distributions.test_sequence import Markov

START = torch.tensor([[1]])


def row(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([torch.randint(2, 5, (n,), generator=generator), torch.tensor([1])])


@pytest.mark.parametrize(
    ("window", "overlap"), [(1, 0), (4, 0), (4, 1), (4, 3), (5, 2), (100, 50)]
)
@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 17])
def test_it_is_the_sum_over_places_each_with_what_its_window_shows(window, overlap, n):
    x, model, total = row(n), Markov(), 0.0
    for t in range(len(x)):
        k = 0 if t < window else 1 + (t - window) // (window - overlap)
        seen = x[k * (window - overlap) : t]
        given = torch.cat([START, seen[None]], 1)
        total += float(model.log_probs(given, x[t].view(1, 1)))
    assert float(score_in_windows(model, x, window, overlap)) == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize(("window", "overlap"), [(2, 1), (3, 0), (3, 2)])
def test_masses_of_strings_and_the_tail_sum_to_one(window, overlap):
    model, longest = Markov(), 5
    rows = [
        torch.tensor([*body, 1])
        for n in range(longest + 1)
        for body in itertools.product(range(2, 5), repeat=n)
    ]
    mass = sum(float(score_in_windows(model, x, window, overlap).exp()) for x in rows)
    # The tail is what begins with a string of six tokens: the end of each, and what is not the end.
    tail = 0.0
    for body in itertools.product(range(2, 5), repeat=longest + 1):
        closed = score_in_windows(model, torch.tensor([*body, 1]), window, overlap).exp()
        k = 0 if longest + 1 < window else 1 + (longest + 1 - window) // (window - overlap)
        seen = torch.tensor(body)[k * (window - overlap) :]
        end = model.log_probs(torch.cat([START, seen[None]], 1), START).exp()
        tail += float(closed / end)
    assert mass + tail == pytest.approx(1, abs=1e-9)


def test_enough_overlap_is_the_whole_context():
    x = row(40)
    whole = Markov().log_probs(START, x[None]).sum()
    # This model remembers two tokens, the mark among them.
    torch.testing.assert_close(score_in_windows(Markov(), x, 7, 2), whole)
    assert abs(float(score_in_windows(Markov(), x, 7, 1) - whole)) > 1e-3


def test_windows_are_scored_a_few_at_a_time():
    fair = BackoffTable(torch.tensor([0.0, 0.5, 0.25, 0.25], dtype=torch.double), [])
    x = torch.cat([torch.full((60_000,), 2), torch.tensor([1])])
    total = score_in_windows(fair, x, 10, 5)
    torch.testing.assert_close(total, (60_000 * 2 + 1) * torch.tensor(0.5).double().log())
