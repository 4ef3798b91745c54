import itertools

import pytest
import torch
from scipy import stats

from densekit.distributions.chain import Chain
from densekit.distributions.columnwise import ColumnLaws
from densekit.nets.masked import MaskedNet
from densekit.nets.orders import ManyMasks, draw_orders

CARD = [2, 3, 2, 20]
EVERY = torch.tensor(list(itertools.product(*map(range, CARD))), dtype=torch.float64)


def chain(n_masks=3, context=None, masks=None):
    torch.manual_seed(0)
    laws = ColumnLaws(CARD, [False, False, False, True], [0.0] * 4, n_components=2)
    n_context = 0 if context is None else context.shape[-1]
    net = MaskedNet(4, laws.n_params, (16, 16), n_context, reads=laws.reads)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn_like(p))
    orders = draw_orders(4, range(4), n_masks)
    return Chain(ManyMasks(net, orders, n_masks > 1).double(), laws.double(), context, masks)


@pytest.mark.parametrize("n_masks", [1, 3])
def test_masses_of_all_rows_sum_to_one(n_masks):
    total = chain(n_masks).log_prob(EVERY).exp().sum().item()
    assert total == pytest.approx(1, abs=1e-9)


def test_a_score_is_that_of_the_mean_of_the_masses_under_each_mask():
    whole = chain().log_prob(EVERY).exp()
    each = [chain(masks=[s]).log_prob(EVERY).exp() for s in range(3)]
    torch.testing.assert_close(whole, sum(each) / 3)
    assert (each[0] - each[1]).abs().max() > 1e-3


@pytest.mark.parametrize("n_masks", [1, 3])
def test_draws_have_the_masses(n_masks):
    d, n = chain(n_masks), 20_000
    torch.manual_seed(2)
    x = d.sample((n,))
    place = (x @ torch.tensor([120.0, 40.0, 20.0, 1.0], dtype=torch.float64)).long()
    counts = place.bincount(minlength=len(EVERY)).double()
    expected = n * d.log_prob(EVERY).exp().detach()
    often = expected > 10
    pools = [torch.cat([c[often], c[~often].sum()[None]]).numpy() for c in (counts, expected)]
    assert stats.chisquare(*pools).pvalue > 1e-4


def test_each_row_of_a_context_has_its_own_law():
    context = torch.randn(2, 3, dtype=torch.float64)
    d = chain(context=context)
    assert (d.batch_shape, d.event_shape) == ((2,), (4,))
    scores = d.log_prob(EVERY[:, None])
    torch.testing.assert_close(scores.exp().sum(0).detach(), torch.ones(2, dtype=torch.float64))
    for c in range(2):
        alone = chain(context=context[c : c + 1])
        torch.testing.assert_close(scores[:, c], alone.log_prob(EVERY))
    assert d.sample((5,)).shape == (5, 2, 4)
    assert d.expand((6, 2)).log_prob(EVERY[0]).shape == (6, 2)


def test_drawing_leaves_no_gradient_and_the_weights_alone():
    d = chain()
    before = [p.clone() for p in d.net.parameters()]
    assert not d.sample((4,)).requires_grad
    assert all(map(torch.equal, before, d.net.parameters()))
