"""The causal network: its receptive field, and equality of stepwise and full evaluation."""

import pytest
import torch

from densekit.nets.causal import CausalNet


def make(n_tokens=5, n_context=0):
    torch.manual_seed(0)
    net = CausalNet(n_tokens, 3, 4, width=16, n_layers=2, n_heads=2, n_context=n_context)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return net.double()


@pytest.mark.parametrize("n_context", [0, 2])
@pytest.mark.parametrize("n_tokens", [1, 5])
@pytest.mark.parametrize("grad", [False, True])
def test_solving_sees_the_parameters_of_one_pass(n_tokens, n_context, grad):
    net, x = make(n_tokens, n_context), torch.randn(7, n_tokens, 3, dtype=torch.float64)
    context = torch.randn(7, n_context, dtype=torch.float64) if n_context else None
    seen = []

    def step(t, parameters):
        seen.append(parameters)
        return x[:, t]

    with torch.set_grad_enabled(grad):
        assert torch.equal(net.solve(step, 7, context), x)
        torch.testing.assert_close(torch.stack(seen, 1), net(x, context))


def test_parameters_see_the_tokens_before_and_no_other():
    net, x = make(), torch.randn(1, 5, 3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(net, x)[0, :, :, 0]  # (t, parameter, t', number)
    for t in range(5):
        assert (jacobian[t, :, t:] == 0).all()
        assert (jacobian[t, :, :t] != 0).all()


def test_an_untrained_net_gives_zeros():
    net = CausalNet(5, 3, 4, width=16, n_layers=2, n_heads=2)
    assert (net(torch.randn(7, 5, 3)) == 0).all()


def test_places_differ_where_tokens_do_not():
    out = make()(torch.ones(1, 5, 3, dtype=torch.float64))[0]
    assert len({tuple(row) for row in out.tolist()}) == 5


@pytest.mark.parametrize("far", [1e6, 3e38, torch.inf])
def test_far_inputs_give_parameters_of_ordinary_size(far):
    net = make().float()
    x = torch.zeros(2, 5, 3)
    x[0, 1], x[1, 2] = far, -far
    assert net(x).abs().max() < 100


def test_gradients_reach_every_parameter():
    net = make(n_context=2)
    x, c = torch.randn(7, 5, 3, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)
    net(x, c).square().sum().backward()
    assert all((p.grad != 0).any() for p in net.parameters())
