import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch

from densekit.distributions.absorbing import AbsorbingDiffusion

A, B, MASK = 2, 3, 4
STRINGS = [s for n in range(4) for s in itertools.product((A, B), repeat=n)]
LENGTHS = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


class Table:
    """Hidden tokens of strings of A and B: the logit of B is a number for each thing seen and place."""

    vocab_size = 4

    def __init__(self, seed=0):
        g = torch.Generator().manual_seed(seed)
        self.weight = 1.5 * torch.randn(5**4, 4, generator=g, dtype=torch.float64)

    def log_probs(self, seen, tokens):
        logp = torch.where(tokens == B, self._b(seen), -self._b(seen))
        return torch.where(seen == MASK, torch.nn.functional.logsigmoid(logp), 0)

    def logits(self, seen, places):
        b = self._b(seen)[places]
        never = torch.full_like(b, -torch.inf)
        return torch.stack([never, never, torch.zeros_like(b), b], 1)

    def _b(self, seen):
        code = sum(5**i * seen[:, i] for i in range(seen.shape[1]))
        return self.weight[code, : seen.shape[1]]


def row(s):
    return torch.tensor([*s, 1] + [0] * (3 - len(s)))


def diffusion(draws=400, seed=0, **options):
    g = torch.Generator().manual_seed(seed)
    half = draws // 2
    levels = torch.arange(half).repeat_interleave(2) + torch.rand(draws, generator=g)
    noise = torch.rand(draws, 3, generator=g, dtype=torch.float64)
    return AbsorbingDiffusion(Table(), LENGTHS.log(), levels.double() / half, noise, **options)


def hidden_log_prob(s, hide):
    """The sum over hidden positions of log p(x_i | visible tokens)."""
    seen = row(s).clone()
    seen[list(hide)] = MASK
    return Table().log_probs(seen[None], row(s)[None]).sum().item()


def exact_bound(s):
    """By the integral over t of the paper, with every mask enumerated: Gauss-Legendre is exact for a
    polynomial of so small a degree."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    t, w, total = (nodes + 1) / 2, weights / 2, 0.0
    for k in range(1, len(s) + 1):
        for hide in itertools.combinations(range(len(s)), k):
            mass = t ** (k - 1) * (1 - t) ** (len(s) - k)  # over t, once
            total += (w * mass).sum() * hidden_log_prob(s, hide)
    return math.log(LENGTHS[len(s)]) + total


def exact_log_mass(s):
    """Exact log mass under sampling of one token at a time, the mean over orders of the product."""
    found = []
    for order in itertools.permutations(range(len(s))):
        logp = 0.0
        for i, place in enumerate(order):
            seen = row(s).clone()
            seen[list(order[i:])] = MASK
            logp += Table().log_probs(seen[None], row(s)[None])[0, place].item()
        found.append(math.exp(logp))
    return math.log(LENGTHS[len(s)] * sum(found) / len(found))


def test_the_bound_is_the_papers_integral_within_its_error():
    x = torch.stack([row(s) for s in STRINGS])
    exact = torch.tensor([exact_bound(s) for s in STRINGS], dtype=torch.float64)
    off = []
    for seed in range(30):
        bound, error = diffusion(40, seed).log_prob_and_error(x)
        few = torch.tensor([len(s) < 2 for s in STRINGS])
        assert (error[few] < 1e-12).all()
        torch.testing.assert_close(bound[few], exact[few])
        off.append((bound - exact)[~few] / error[~few])
    off = torch.stack(off)
    # Strings share their draws: 30 means, of errors that are themselves of 20 pairs.
    assert (off.mean(0).abs() < 4.5 * 1.1 / math.sqrt(30)).all()
    assert 0.7 < off.square().mean().sqrt() < 1.4


def test_the_bound_is_below_the_log_mass_of_draws():
    gaps = [exact_log_mass(s) - exact_bound(s) for s in STRINGS]
    assert all(abs(g) < 1e-12 for g, s in zip(gaps, STRINGS, strict=True) if len(s) < 2)
    assert min(gaps) > -1e-12
    assert max(gaps) > 0.01  # of this table, which is no joint law
    assert sum(math.exp(exact_log_mass(s)) for s in STRINGS) == pytest.approx(1)
    assert sum(math.exp(exact_bound(s)) for s in STRINGS) < 1


@pytest.mark.parametrize(("n_steps", "n"), [(None, 20_000), (500, 4000)])
def test_draws_have_the_law_that_is_bounded(n_steps, n):
    torch.manual_seed(0)
    drawn = Counter(tuple(r) for r in diffusion(2, n_steps=n_steps).sample((n,)).tolist())
    assert drawn.total() == n
    for s in STRINGS:
        p = math.exp(exact_log_mass(s))
        count = drawn.pop(tuple(row(s).tolist()), 0)
        assert abs(count / n - p) < 4.5 * math.sqrt(p * (1 - p) / n)
    assert not drawn


def test_one_step_draws_tokens_that_do_not_see_each_other():
    torch.manual_seed(0)
    n = 20_000
    drawn = Counter(tuple(r) for r in diffusion(2, n_steps=1).sample((n,)).tolist())
    for s in STRINGS:
        p = LENGTHS[len(s)].item() * math.exp(hidden_log_prob(s, range(len(s))))
        assert abs(drawn[tuple(row(s).tolist())] / n - p) < 4.5 * math.sqrt(p * (1 - p) / n)


def test_gumbel_noise_is_drawn_in_float64(monkeypatch):
    # That of float32 ends at 17, so that tokens of less than a millionth come too seldom.
    drawn, rand_like = [], torch.rand_like
    monkeypatch.setattr(torch, "rand_like", lambda x: drawn.append(x.dtype) or rand_like(x))
    d = diffusion(2)
    d.model.weight = d.model.weight.float()
    d.sample((5,))
    assert set(drawn) == {torch.float64}


def test_what_is_no_string_has_no_mass():
    bad = torch.tensor([[A, A, B, A], [1, A, 1, 0], [0, A, 1, 0], [4, 1, 0, 0], [1, 1, 0, 0]])
    bound, error = diffusion().log_prob_and_error(bad)
    assert (bound == -torch.inf).all()
    assert (error == 0).all()
    assert diffusion().log_prob(torch.tensor([A, A, A, A, 1])) == -torch.inf


def test_shapes():
    d = diffusion(8)
    x = row((A, B)).expand(5, 4)
    assert d.log_prob(x).shape == (5,)
    assert d.expand((2, 5)).log_prob(x).shape == (2, 5)
    assert d.expand((2, 5)).sample((3,)).shape == (3, 2, 5, 4)
    assert d.log_prob(x[0, :3]) == d.log_prob(x)[0]
    assert d.log_prob(x[:0]).shape == (0,)
