import pytest
import torch

from densekit.nets.amortized import Amortized


def test_without_a_context_the_numbers_are_learned_themselves():
    start = torch.tensor([1.0, -2.0, 0.5])
    numbers = Amortized(start, (8,))
    assert [p.shape for p in numbers.parameters()] == [(3, 1)]
    assert torch.equal(numbers(), start[:, None])
    with torch.no_grad():
        numbers.values.zero_()
    assert start[0] == 1, "the start is copied, not aliased"


def test_a_context_starts_at_the_same_numbers_and_can_change_them():
    start = torch.tensor([1.0, -2.0, 0.5])
    numbers = Amortized(start, (8,), n_context=2)
    context = torch.randn(2, 7)
    assert torch.equal(numbers(context), start[:, None].expand(-1, 7))
    numbers(context).square().sum().backward()
    with torch.no_grad():
        for p in numbers.parameters():
            p.sub_(0.1 * p.grad)
    assert (numbers(context).std(1) > 0).all()


def test_a_context_that_is_missing_is_named():
    with pytest.raises(ValueError, match="context=None"):
        Amortized(torch.zeros(2), (8,), n_context=1)()
