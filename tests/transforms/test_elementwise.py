"""Element-wise transforms with parameters that all samples share: they broadcast and change nothing."""

import pytest
import torch

from densekit.transforms.elementwise import ElementwiseTransform
from densekit.transforms.gaussianize import GaussianizeElement
from densekit.transforms.monotone import MonotoneElement

ELEMENTS = {"gaussianize": GaussianizeElement(5), "monotone": MonotoneElement(4)}


def make(name, n_features=3, n_context=0):
    torch.manual_seed(0)
    transform = ElementwiseTransform(n_features, ELEMENTS[name], (8,), n_context).double()
    with torch.no_grad():
        for p in transform.parameters():
            p.add_(0.5 * torch.randn(p.shape, dtype=p.dtype))
    return transform


@pytest.mark.parametrize("name", ELEMENTS)
def test_shared_parameters_are_those_of_each_sample(name):
    transform, x = make(name), 2 * torch.randn(3, 40, dtype=torch.float64)
    z, ladj = transform.to_noise(x)
    each, ladj_each = ELEMENTS[name].forward(x, transform.raw.expand(-1, -1, 40))
    torch.testing.assert_close(z, each, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(ladj, ladj_each.sum(0), atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("n_context", [0, 2])
@pytest.mark.parametrize("name", ELEMENTS)
def test_log_det_is_that_of_autodiff_and_the_inverse_undoes_it(name, n_context):
    transform = make(name, n_context=n_context)
    context = torch.randn(20, 2, dtype=torch.float64) if n_context else None
    given = transform if context is None else transform.condition(context)
    x = 3 * torch.randn(20, 3, dtype=torch.float64)
    z = given.inv(x)
    torch.testing.assert_close(given(z), x, atol=1e-10, rtol=1e-10)
    jacobian = torch.autograd.functional.jacobian(lambda x: given.inv(x).sum(0), x)
    slopes = jacobian.diagonal(dim1=0, dim2=2)  # (20, 3): of each feature by itself
    expected = slopes.log().sum(1)
    torch.testing.assert_close(-given.log_abs_det_jacobian(z, x), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", ELEMENTS)
def test_context_moves_every_feature(name):
    transform, x = make(name, n_context=2), torch.randn(20, 3, dtype=torch.float64)
    context = torch.randn(20, 2, dtype=torch.float64)
    moved = transform.condition(context).inv(x) - transform.condition(context + 1).inv(x)
    assert (moved.abs() > 1e-6).all()
