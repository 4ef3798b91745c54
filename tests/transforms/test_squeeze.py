import math

import pytest
import torch
from nflows.transforms import SqueezeTransform

from densekit.transforms.squeeze import Squeeze, block


@pytest.mark.parametrize("shape", [(1, 4, 6), (3, 2, 2), (2, 28, 28)])
def test_squeeze_by_two_is_that_of_nflows(shape):
    x = torch.randn(5, *shape)
    squeeze = Squeeze(shape)
    theirs = SqueezeTransform()(x)[0]
    assert squeeze.noise_shape == theirs.shape[1:]
    assert torch.equal(squeeze.inv(x.flatten(1)), theirs.flatten(1))


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (2, 3, 3), (1, 5, 7), (1, 9, 25), (3, 6, 1), (1, 5, 4)]
)
def test_squeeze_moves_every_number_and_back(shape):
    x = torch.arange(float(math.prod(shape)))
    squeeze = Squeeze(shape)
    z = squeeze.inv(x)
    assert torch.equal(z.sort().values, x)
    assert torch.equal(squeeze(z), x)
    assert math.prod(squeeze.noise_shape) == len(x)
    assert squeeze.log_abs_det_jacobian(z, x) == 0


def test_squeeze_puts_the_pixels_of_a_block_above_each_other():
    shape, size = (2, 6, 10), (3, 5)
    x = torch.randn(shape)
    z = Squeeze(shape, size).inv(x.flatten()).view(2, 3, 5, 2, 2)
    for c, h, w in torch.cartesian_prod(*map(torch.arange, shape)).tolist():
        assert z[c, h % 3, w % 5, h // 3, w // 5] == x[c, h, w]


def test_an_image_of_any_size_is_squeezed_to_one_pixel():
    for height in range(1, 40):
        for width in range(1, 40):
            h, w, steps = height, width, 0
            while h * w > 1:
                f, g = block(h, w)
                assert (h % f, w % g) == (0, 0)
                assert f * g > 1
                assert f * g == 4 or h % 2 or w % 2
                h, w, steps = h // f, w // g, steps + 1
            assert steps <= 12


def test_squeeze_names_a_block_that_does_not_fit():
    with pytest.raises(ValueError, match=r"size=\(2, 2\).*5 x 4"):
        Squeeze((1, 5, 4), (2, 2))
