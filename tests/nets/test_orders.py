import pytest
import torch

from densekit.nets.masked import MaskedNet
from densekit.nets.orders import ManyMasks, draw_orders

D, P = 5, 3
READS = [1, 3, 1, 2, 4]


def spread(module):
    """The module with all weights drawn anew, the last layer's too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return module.double()


def many(reads=READS, hidden=(24, 24, 16), n_context=0, n_masks=4, shuffle=True, direct=True):
    torch.manual_seed(0)
    net = spread(MaskedNet(D, P, hidden, n_context, reads=reads, direct=direct))
    return ManyMasks(net, draw_orders(D, range(D), n_masks), shuffle).double()


def read(d, x):
    """Arbitrary numbers for a feature."""
    return torch.stack([torch.sin((k + 1) * x + d) for k in range(READS[d])])


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize("mask", range(4))
def test_parameters_of_a_feature_depend_on_all_before_it_in_the_order_alone(mask, direct):
    net = many(direct=direct)
    x = torch.randn(sum(READS), 1, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda v: net(v, mask=mask)[..., 0], x)[..., 0]
    reached = jacobian.abs().sum(0)
    by_feature = torch.stack([part.sum(1) for part in reached.split(READS, 1)], 1)
    place = net.orders[mask].argsort()
    assert torch.equal(by_feature > 0, place[:, None] > place)


@pytest.mark.parametrize("mask", range(4))
@pytest.mark.parametrize("n_context", [0, 2])
@pytest.mark.parametrize("direct", [False, True])
def test_solving_meets_the_parameters_that_one_pass_gives(mask, n_context, direct):
    net = many(n_context=n_context, direct=direct)
    context = torch.randn(n_context, 7, dtype=torch.float64) if n_context else None
    met = {}

    def step(d, raw):
        met[d] = raw
        return raw.sum(0).tanh()

    with torch.no_grad():
        x = net.solve(step, 7, context, read, mask)
        whole = net(torch.cat([read(d, row) for d, row in enumerate(x)]), context, mask)
    assert list(met) == net.orders[mask].tolist()
    for d, raw in met.items():
        torch.testing.assert_close(raw, whole[:, d])
        torch.testing.assert_close(x[d], raw.sum(0).tanh())


def test_gradients_reach_the_shared_weights_under_every_mask():
    net = many()
    x = torch.randn(sum(READS), 6, dtype=torch.float64)
    for mask in range(net.n_masks):
        net.zero_grad()
        net(x, mask=mask).square().sum().backward()
        assert all(p.grad.abs().sum() > 0 for p in [*net.net.weights, net.net.last])


def test_the_natural_order_alone_is_the_network_itself():
    net = many(n_masks=1, shuffle=False)
    x = torch.randn(sum(READS), 6, dtype=torch.float64)
    assert net.plain
    assert torch.equal(net(x), net.net(x))


def test_an_order_renames_the_features_of_the_natural_one():
    net = many(reads=None, n_masks=2, shuffle=False)
    x, order = torch.randn(D, 6, dtype=torch.float64), net.orders[1]
    # The same network whose weights were renamed by hand.
    by_hand = MaskedNet(D, P, (24, 24, 16), direct=True).double()
    state = dict(net.net.state_dict())
    state["weights.0"] = state["weights.0"][:, order]
    state["last"], state["last_bias"] = state["last"][:, order], state["last_bias"][:, order]
    state["direct"] = state["direct"][:, order][:, :, order]
    by_hand.load_state_dict(state)
    torch.testing.assert_close(net(x, mask=1)[:, order], by_hand(x[order]))


def test_other_degrees_make_another_network_of_the_same_weights():
    net = many()
    net.orders[1] = net.orders[0]
    x = torch.randn(sum(READS), 6, dtype=torch.float64)
    assert (net(x, mask=0) - net(x, mask=1)).abs().max() > 0.1


def test_orders_are_permutations_and_the_first_is_the_one_given():
    orders = draw_orders(6, [5, 0, 4, 1, 3, 2], 20)
    assert orders[0].tolist() == [5, 0, 4, 1, 3, 2]
    assert torch.equal(orders.sort(1).values, torch.arange(6).expand(20, 6))
    assert len({tuple(o) for o in orders.tolist()}) > 10
