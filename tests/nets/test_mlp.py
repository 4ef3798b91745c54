import pytest
import torch

from densekit.nets.mlp import ACTIVATIONS, MLP, activation_layer, join_context


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_every_activation_gives_a_differentiable_net(name):
    net = MLP(3, (8, 4), 2, activation=name)
    x = torch.randn(5, 7, 3, requires_grad=True)
    net(x).sum().backward()
    assert net(x).shape == (5, 7, 2)
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0


def test_without_hidden_layers_it_is_affine():
    net = MLP(4, (), 3)
    x, y = torch.randn(6, 4), torch.randn(6, 4)
    torch.testing.assert_close(
        net(0.3 * x + 0.7 * y), 0.3 * net(x) + 0.7 * net(y), atol=1e-6, rtol=1e-5
    )


def test_zero_last_starts_at_zero_and_can_still_learn():
    net = MLP(3, (8,), 2, zero_last=True)
    y = net(torch.randn(5, 3))
    assert (y == 0).all()
    (y - 1).square().sum().backward()
    assert net.layers[-1].weight.grad.abs().sum() > 0


def test_no_inputs_gives_a_learned_constant():
    net = MLP(0, (8,), 2)
    y = net(torch.zeros(5, 0))
    assert y.shape == (5, 2)
    assert torch.equal(y, y[:1].expand(5, 2))


def test_dropout_acts_in_training_only():
    net = MLP(3, (64,), 2, dropout=0.5)
    x = torch.randn(5, 3)
    assert not torch.equal(net(x), net(x))
    net.eval()
    assert torch.equal(net(x), net(x))


def test_unknown_activation_names_the_value_and_the_choices():
    with pytest.raises(ValueError, match=r"activation='swish'.*silu"):
        activation_layer("swish")


def test_beside_appends_each_context_to_its_row():
    x, context = torch.randn(4, 3, 2), torch.randn(3, 5)
    both = join_context(x, context)
    assert torch.equal(both[..., :2], x)
    assert all(torch.equal(part, context) for part in both[..., 2:])
    assert join_context(x, None) is x
