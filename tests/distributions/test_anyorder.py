import itertools

import pytest
import torch

from densekit.codecs.conditions import Condition
from densekit.distributions.anyorder import AnyOrder
from densekit.distributions.spiked import SpikedLaws
from densekit.nets.observed import ObservedNet

CARDINALITY = [2, 3, 2]
EVERY = torch.tensor(list(itertools.product(range(2), range(3), range(2))), dtype=torch.float64)


@pytest.fixture(scope="module")
def parts():
    """A network of random weights, so that orders disagree."""
    torch.manual_seed(2)
    laws = SpikedLaws({}, cardinality=CARDINALITY, ordered=[False] * 3, width=[0.0] * 3)
    net = ObservedNet(laws.reads, laws.n_params, (16, 16))
    torch.nn.init.normal_(net.net.last, std=3.0)
    return net.double(), laws.double()


ORDERS = torch.tensor([[0, 1, 2], [2, 0, 1]])


def test_a_mean_over_orders_sums_to_one_whatever_is_given(parts):
    for given in ([], [1], [0, 2]):
        mass = AnyOrder(*parts, ORDERS, given).log_prob(EVERY).exp().detach()
        rows = {}
        for row, m in zip(EVERY[:, given].tolist(), mass.tolist(), strict=True):
            rows[tuple(row)] = rows.get(tuple(row), 0) + m
        assert all(total == pytest.approx(1) for total in rows.values())


def test_one_order_is_the_product_of_its_conditionals(parts):
    net, laws = parts
    whole = AnyOrder(net, laws, ORDERS[1:])
    missing = EVERY.clone()
    missing[:, 1] = torch.nan  # the last of this order
    last = AnyOrder(net, laws, ORDERS[1:], given=[0, 2]).log_prob(EVERY)
    torch.testing.assert_close(whole.log_prob(missing) + last, whole.log_prob(EVERY))


def test_missing_cells_of_different_rows_do_not_meet(parts):
    dist = AnyOrder(*parts, ORDERS)
    rows = EVERY[:6].clone()
    rows[torch.arange(6), torch.arange(6) % 3] = torch.nan
    together = dist.log_prob(rows)
    alone = torch.stack([dist.log_prob(row[None])[0] for row in rows])
    torch.testing.assert_close(together, alone)


def test_a_missing_cell_is_not_known_to_those_that_come_after_it(parts):
    """A missing cell does not affect the factors of later columns, wherever it is in the order."""
    rows = EVERY.clone()
    rows[:, 0] = torch.nan
    first, last = (
        AnyOrder(*parts, torch.tensor([order]), method="network").log_prob(rows)
        for order in ([0, 1, 2], [1, 2, 0])
    )
    torch.testing.assert_close(first, last)


def test_importance_weights_give_the_law_restricted(parts):
    """Two columns restricted, in one order: p(x) over the rows allowed, normalized."""
    conditions = {0: Condition(values=(0.0, 1.0)), 1: Condition(values=(0.0, 2.0))}
    dist = AnyOrder(*parts, ORDERS[:1], conditions=conditions)
    torch.manual_seed(0)
    drawn = dist.sample((20_000,))
    allowed = EVERY[EVERY[:, 1] != 1]
    logp = AnyOrder(*parts, ORDERS[:1]).log_prob(allowed).detach()
    share = torch.stack([(drawn == row).all(1).double().mean() for row in allowed])
    torch.testing.assert_close(share, logp.softmax(0), atol=0.012, rtol=0)
    masses = logp.exp().view(2, -1).sum(1)  # of each x_0, with what it is restricted to after it
    first = AnyOrder(*parts, ORDERS[:1]).log_prob(
        torch.tensor([[v, torch.nan, torch.nan] for v in (0.0, 1.0)], dtype=torch.float64)
    )
    w = masses / first.detach().exp()  # the weight of a draw by its x_0
    mass = masses.sum().log().item()
    assert dist.log_probability == pytest.approx(mass, abs=0.02)
    worth = (first.exp() * w).sum() ** 2 / (first.exp() * w * w).sum()
    assert worth < 0.6
    assert dist.effective_sample_size == pytest.approx(4 * 20_000 * worth.item(), rel=0.03)


def test_restrictions_weigh_the_orders_too():
    """Orders give the allowed values different masses; p(x) is the mean over orders, then restricted."""
    torch.manual_seed(7)
    laws = SpikedLaws({}, cardinality=[3, 3], ordered=[False] * 2, width=[0.0] * 2)
    net = ObservedNet(laws.reads, laws.n_params, (16, 16))
    torch.nn.init.normal_(net.net.last, std=3.0)
    some = Condition(values=(0.0, 1.0))
    allowed = torch.tensor(list(itertools.product((0.0, 1.0), repeat=2)))
    orders = torch.tensor([[0, 1], [1, 0]])
    apart = [AnyOrder(net, laws, o[None]).log_prob(allowed).detach().exp() for o in orders]
    masses = [p.sum() for p in apart]
    want = sum(apart) / sum(masses)
    assert max(masses) > 1.3 * min(masses)
    assert (want - sum(p / p.sum() for p in apart) / 2).abs().max() > 0.03
    drawn = AnyOrder(net, laws, orders, conditions={0: some, 1: some}).sample((20_000,))
    share = torch.stack([(drawn == row).all(1).double().mean() for row in allowed])
    torch.testing.assert_close(share, want, atol=0.012, rtol=0)


def test_shapes(parts):
    dist = AnyOrder(*parts, ORDERS)
    assert dist.sample((2, 3)).shape == (2, 3, 3)
    assert dist.sample((0,)).shape == (0, 3)
    assert dist.expand((4,)).sample().shape == (4, 3)
    assert dist.expand((4,)).log_prob(EVERY[:1]).shape == (4,)
    assert dist.log_prob(EVERY.view(3, 4, 3)).shape == (3, 4)
