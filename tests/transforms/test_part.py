import torch

from densekit.transforms.linear import LULinear
from densekit.transforms.part import Part


def test_part_transforms_the_first_features_and_leaves_the_others():
    inner = LULinear(2).double()
    with torch.no_grad():
        inner.log_diagonal.copy_(torch.tensor([0.5, -1.5]))
        inner.shift.fill_(2.0)
    part, x = Part(inner, 5), torch.randn(7, 5, dtype=torch.float64)
    z = part.inv(x)
    assert torch.equal(z[:, 2:], x[:, 2:])
    assert torch.equal(z[:, :2], inner.inv(x[:, :2]))
    torch.testing.assert_close(part(z), x, atol=1e-12, rtol=1e-12)
    assert (part.to_noise(x.t())[1] == -1).all()
    assert (part.to_data(z.t())[1] == 1).all()
