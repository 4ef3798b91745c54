import torch

from densekit.nets.observed import ObservedNet


def net():
    torch.manual_seed(0)
    found = ObservedNet([1, 3, 2], 4, (16, 16))
    torch.nn.init.normal_(found.net.last)
    return found


def test_what_is_not_observed_is_not_read():
    x, other = torch.randn(2, 6, 10)
    observed = torch.zeros(3, 10, dtype=torch.bool)
    observed[1] = True
    other[1:4] = x[1:4]  # what is read of the column that is observed
    found = net()
    torch.testing.assert_close(found(x, observed), found(other, observed))
    changed = x.clone()
    changed[2] += 1
    assert (found(x, observed) - found(changed, observed)).abs().min() > 0


def test_a_zero_that_is_observed_is_not_a_column_that_is_unknown():
    x, observed = torch.zeros(6, 1), torch.ones(3, 1, dtype=torch.bool)
    assert (net()(x, observed) - net()(x, ~observed)).abs().min() > 0


def test_one_column_s_parameters_are_its_part_of_all():
    x, observed = torch.randn(6, 10), torch.rand(3, 10) < 0.5
    every = net()(x, observed)
    for d in range(3):
        torch.testing.assert_close(net()(x, observed, d), every[:, d])
