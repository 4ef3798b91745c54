import pytest
import torch
from nflows.transforms import ActNorm, OneByOneConvolution

from densekit.transforms.linear import Diagonal, LULinear
from densekit.transforms.pixelwise import Pixelwise


def images(n=4, shape=(3, 2, 5)):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.filterwarnings("ignore")  # nflows calls what torch has deprecated
def test_a_linear_map_of_the_channels_is_the_1x1_convolution_of_nflows():
    theirs = OneByOneConvolution(3).double()
    theirs.initialized = torch.tensor(True)
    ours = LULinear(3).double()
    with torch.no_grad():
        for p in (theirs.lower_entries, theirs.upper_entries, theirs.bias):
            p.normal_()
        theirs.permutation._permutation.copy_(torch.arange(3))
        lower, upper = theirs._create_lower_upper()
        ours.lower.copy_(lower.tril(-1))
        ours.upper.copy_(upper.triu(1))
        ours.log_diagonal.copy_(upper.diagonal().log())
        ours.shift.copy_(theirs.bias[:, None])
    conv, x = Pixelwise(ours, 10), images()
    want, ladj = theirs(x)
    z = conv.inv(x.flatten(1))
    torch.testing.assert_close(z, want.flatten(1), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(
        -conv.log_abs_det_jacobian(z, x.flatten(1)), ladj, atol=1e-12, rtol=1e-12
    )
    back, ladj = theirs.inverse(want)
    torch.testing.assert_close(conv(z), back.flatten(1), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(conv.to_data(z.t())[1], ladj, atol=1e-12, rtol=1e-12)


def test_a_diagonal_of_the_channels_is_the_actnorm_of_nflows():
    theirs, x = ActNorm(3).double(), images()
    want, ladj = theirs(x)  # its first batch gives it scales and shifts
    ours = Diagonal(3).double()
    with torch.no_grad():
        ours.log_scale.copy_(theirs.log_scale[:, None])
        ours.shift.copy_(theirs.shift[:, None])
    norm = Pixelwise(ours, 10)
    z = norm.inv(x.flatten(1))
    torch.testing.assert_close(z, want.flatten(1), atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(norm.to_noise(x.flatten(1).t())[1], ladj, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(norm(z), x.flatten(1), atol=1e-12, rtol=1e-12)
