"""Marginals under one order against sums and integrals of the density of full rows."""

import itertools
import math

import pytest
import torch

from densekit.distributions.anyorder import AnyOrder
from densekit.distributions.marginal import OneOrder
from densekit.distributions.spiked import SpikedLaws
from densekit.nets.observed import ObservedNet

# A number with two atoms, a code, a number, an integer with a common value, a flag.
N_COLUMNS, STEP = 5, 0.25
ORDERS = torch.tensor([[0, 1, 2, 3, 4], [3, 0, 4, 2, 1]])


@pytest.fixture(scope="module")
def parts():
    """A network of random weights, so that orders disagree."""
    torch.manual_seed(2)
    laws = SpikedLaws(
        atoms={0: [0.0, 0.0]},
        spikes={3: [0.0]},
        cardinality=[0, 3, 0, 0, 2],
        ordered=[False] * N_COLUMNS,
        width=[0.0, 0.0, 0.0, STEP, 0.0],
        n_components=3,
        min_scale=0.05,
    )
    net = ObservedNet(laws.reads, laws.n_params, (16, 16), start=laws.start())
    torch.nn.init.normal_(net.net.last, std=0.5)
    return net.double().requires_grad_(False), laws.double()


def rows(n=6, seed=0):
    """Events (n, 6): indicator and value of the first column, then the others."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.zeros(n, 6, dtype=torch.float64)
    x[:, 0] = torch.randint(3, (n,), generator=generator)
    x[:, 1] = torch.where(x[:, 0] > 0, 0.0, torch.randn(n, generator=generator).double())
    x[:, 2] = torch.randint(3, (n,), generator=generator)
    x[:, 3] = torch.randn(n, generator=generator)
    x[:, 4] = torch.randint(-4, 5, (n,), generator=generator) * STEP
    x[:, 5] = torch.randint(2, (n,), generator=generator)
    return x


ENTRIES = [[0, 1], [2], [3], [4], [5]]
GRID = torch.linspace(-40, 40, 64_001, dtype=torch.float64)


def values_of(column):
    """All values of a column as entries (m, 1 or 2), and their log-weights."""
    dz = float(GRID[1] - GRID[0])
    match column:
        case 0:
            off = torch.stack([torch.zeros_like(GRID), GRID], 1)
            atoms = torch.tensor([[1.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
            logw = [torch.full((len(GRID),), math.log(dz)), torch.zeros(2)]
            return torch.cat([off, atoms]), torch.cat(logw).double()
        case 2:
            return GRID[:, None], torch.full((len(GRID),), math.log(dz)).double()
        case 3:
            t = torch.arange(-400, 401, dtype=torch.float64) * STEP
            return t[:, None], torch.zeros(len(t)).double()
    k = 3 if column == 1 else 2
    return torch.arange(k).double()[:, None], torch.zeros(k).double()


def summed(dist, row, column):
    points, logw = values_of(column)
    full = row.repeat(len(points), 1)
    full[:, ENTRIES[column]] = points
    return (dist.log_prob(full) + logw).logsumexp(0).item()


def without(x, *columns):
    x = x.clone()
    for c in columns:
        x[:, ENTRIES[c]] = torch.nan
    return x


@pytest.mark.parametrize("column", range(N_COLUMNS))
def test_one_missing_cell_is_summed_or_integrated_out(parts, column):
    dist = AnyOrder(*parts, ORDERS)
    x = rows(4)
    found = dist.scores(without(x, column))
    assert found.exact.all()
    assert found.effective_sample_size.isnan().all()
    expected = [summed(dist, row, column) for row in x]
    torch.testing.assert_close(found.score, torch.tensor(expected).double(), atol=1e-4, rtol=0)
    assert found.std.max() < 1e-4
    network = AnyOrder(*parts, ORDERS, method="network").scores(without(x, column))
    assert not network.exact.any()
    assert (network.score - found.score).abs().max() > 0.02


def test_several_codes_are_summed_together(parts):
    dist = AnyOrder(*parts, ORDERS)
    x = rows(4)
    found = dist.scores(without(x, 1, 4))
    full = x.repeat(6, 1, 1)
    for k, (a, b) in enumerate(itertools.product(range(3), range(2))):
        full[k, :, 2], full[k, :, 5] = a, b
    torch.testing.assert_close(found.score, dist.log_prob(full).logsumexp(0))
    assert found.exact.all()


def test_sampled_marginals_have_errors_that_cover(parts):
    """Two missing cells, of which one is a code: the sum over it of marginals that are integrals."""
    dist = AnyOrder(*parts, ORDERS)
    x = rows(60)
    found = dist.scores(without(x, 1, 2))
    full = x.repeat(3, 1, 1)
    full[:, :, 2] = torch.arange(3).double()[:, None]
    expected = dist.log_prob(without(full.view(-1, 6), 2)).view(3, -1).logsumexp(0)
    z = (found.score - expected) / found.std
    assert not found.exact.any()
    assert 1 < found.effective_sample_size.min() <= found.effective_sample_size.max() <= 64
    assert found.std.min() > 1e-4
    assert z.abs().max() < 5
    assert z.square().mean() < 3
    # More draws are nearer.
    many = AnyOrder(*parts, ORDERS, draws=1024).scores(without(x, 1, 2))
    assert many.std.mean() < found.std.mean() / 2.5
    assert (many.score - expected).abs().mean() < (found.score - expected).abs().mean() / 2


def test_sampled_weights_have_the_marginal_for_their_mean(parts):
    """For one order, the mean over banks of noise has no bias beyond its Monte Carlo error."""
    one = OneOrder(*parts, ORDERS[0].tolist())
    x = without(rows(3), 0, 2, 3)
    present = one.laws.present(x.t())
    zeros = torch.where(x.isnan(), 0.0, x).t().contiguous()
    torch.manual_seed(0)
    bank = torch.rand(8192, N_COLUMNS, 3, dtype=torch.float64)
    logw = one.importance(zeros, present, one.hidden(present), bank)
    sizes = logw.exp()
    error = sizes.std(0) / math.sqrt(len(bank))
    # By draws from the order itself: the mean of the rest of the product.
    plain = []
    for _ in range(4):
        _, logp, before, _ = one.propose(
            zeros.repeat_interleave(4096, 1),
            present.repeat_interleave(4096, 1),
            one.hidden(present).repeat_interleave(4096, 1),
            parts[1].sample,
            torch.ones(3 * 4096, dtype=torch.bool),
        )
        plain.append((logp - before).exp().view(3, -1))
    plain = torch.cat(plain, 1)
    both = torch.hypot(error, plain.std(1) / math.sqrt(plain.shape[1]))
    assert ((sizes.mean(0) - plain.mean(1)).abs() < 4.5 * both).all()
    assert (both / plain.mean(1)).max() < 0.1


def test_a_missing_cell_that_comes_last_costs_nothing(parts):
    """In an order that ends with it the marginal is the product of the others."""
    dist = AnyOrder(*parts, ORDERS[:1])
    found = dist.scores(without(rows(4), 3, 4))
    assert found.exact.all()
    assert (found.std == 0).all()
    one = OneOrder(*parts, ORDERS[0].tolist())
    x = rows(4)
    present = torch.ones(5, 4, dtype=torch.bool)
    torch.testing.assert_close(found.score, one.prefix(x.t(), present, 3))


def test_a_score_depends_neither_on_its_batch_nor_on_the_call(parts):
    dist = AnyOrder(*parts, ORDERS)
    x = without(rows(24), 2)
    x[::2] = without(x[::2], 0)
    x[::3] = without(x[::3], 1, 3)
    together = dist.scores(x)
    alone = [AnyOrder(*parts, ORDERS).scores(row[None]) for row in x]
    for k in range(3):
        torch.testing.assert_close(
            together[k], torch.cat([a[k] for a in alone]), rtol=1e-9, atol=1e-12, equal_nan=True
        )


@pytest.mark.parametrize("given", [[1], [0, 4], [2, 3]])
def test_given_closes_the_chain(parts, given):
    x = rows(30)
    rest = AnyOrder(*parts, ORDERS, given).scores(x)
    whole, part = (
        AnyOrder(*parts, ORDERS).scores(v)
        for v in (x, without(x, *(c for c in range(5) if c not in given)))
    )
    torch.testing.assert_close(rest.score + part.score, whole.score)
    assert torch.equal(rest.exact, part.exact)


def test_completed_rows_follow_the_law_given_the_others(parts):
    """The flag and the code of one row, the number missing too: shares against exact marginals."""
    n = 30_000
    dist = AnyOrder(*parts, ORDERS)
    network = AnyOrder(*parts, ORDERS, method="network")
    codes = torch.tensor(list(itertools.product(range(3), range(2)))).double()
    many = rows(60, 5).repeat(6, 1, 1)
    many[:, :, [2, 5]] = codes[:, None]
    many = without(many.view(-1, 6), 2)
    laws = [d.log_prob(many).view(6, -1).softmax(0) for d in (dist, network)]
    apart = (laws[0] - laws[1]).abs().amax(0)
    x = rows(60, 5)[apart.argmax()][None]
    torch.manual_seed(0)
    drawn, size = dist.complete(without(x, 1, 4, 2).repeat(n, 1))
    assert not drawn.isnan().any()
    assert (drawn[:, [0, 1, 4]] == x[:, [0, 1, 4]]).all()
    assert 1 < size.mean() <= 16
    expected = laws[0][:, apart.argmax()]
    share = torch.stack([(drawn[:, [2, 5]] == code).all(1).double().mean() for code in codes])
    torch.testing.assert_close(share, expected, atol=0.011, rtol=0)
    assert apart.max() > 0.022
    _, ones = network.complete(without(x, 1, 4, 2))
    assert (ones == 1).all()
