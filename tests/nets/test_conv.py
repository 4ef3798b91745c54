import pytest
import torch
from torch import nn

from densekit.nets.conv import ConvNet


def make(n_in=2, n_out=3, size=(4, 5), hidden_sizes=(6, 6, 4), n_context=0):
    torch.manual_seed(0)
    net = ConvNet(n_in, n_out, size, hidden_sizes, n_context, "tanh").double()
    with torch.no_grad():
        net.last.normal_()
        net.last_bias.normal_()
    return net


def conv(weight, bias):
    """torch's own layer with our weights."""
    layer = nn.Conv2d(weight.shape[1], len(weight), weight.shape[2:], padding="same").double()
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias.view(-1))
    return layer


def test_conv_net_is_the_formula_in_torchs_layers():
    net, images = make(), torch.randn(7, 2, 4, 5, dtype=torch.float64)
    h = conv(net.first, net.bias[0])(torch.asinh(images))
    h = h + conv(net.hidden[0][:, :, None, None], net.bias[1])(torch.tanh(h))
    h = conv(net.hidden[1][:, :, None, None], net.bias[2])(torch.tanh(h))
    want = conv(net.last, net.last_bias)(torch.tanh(h))
    torch.testing.assert_close(net(images.flatten(1).t()), want.flatten(1).t())


@pytest.mark.parametrize("n_context", [0, 2])
def test_conv_net_gives_the_same_with_and_without_gradients(n_context, monkeypatch):
    net = make(n_context=n_context)
    x, c = torch.randn(40, 50, dtype=torch.float64), torch.randn(2, 50, dtype=torch.float64)
    given = c if n_context else None
    monkeypatch.setattr("densekit.nets.conv._MAX_HIDDEN", 700)  # five images at a time
    with torch.no_grad():
        pieces = net(x, given)
    torch.testing.assert_close(pieces, net(x, given), atol=1e-12, rtol=1e-12)


def test_conv_net_sees_its_neighbors_and_no_further():
    net = make(1, 1, (9, 9), (4,))
    x = torch.zeros(81, 1, dtype=torch.float64)
    moved = x.clone()
    moved[40] = 1.0  # the middle
    changed = (net(moved) != net(x)).view(9, 9)
    assert changed[2:7, 2:7].all()
    assert changed.sum() == 25


def test_conv_net_of_a_single_column_of_pixels_looks_up_and_down_only():
    assert make(1, 1, (5, 1)).first.shape[2:] == (3, 1)
    assert make(1, 1, (1, 1)).last.shape[2:] == (1, 1)


def test_conv_net_without_input_depends_on_the_context_alone():
    net = make(n_in=0, n_context=2)
    c = torch.randn(2, 3, dtype=torch.float64)
    y = net(torch.zeros(0, 3, dtype=torch.float64), c)
    assert y.shape == (60, 3)
    assert (y[:, 0] != y[:, 1]).any()
    plain = make(n_in=0)(torch.zeros(0, 3, dtype=torch.float64))
    assert (plain == plain[:, :1]).all()


def test_conv_net_starts_at_zero_and_names_missing_layers():
    assert not ConvNet(2, 3, (4, 4), (8,))(torch.randn(32, 5)).any()
    with pytest.raises(ValueError, match="hidden_sizes"):
        ConvNet(2, 3, (4, 4), ())
