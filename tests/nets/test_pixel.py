"""The network over pixels: its receptive field, and equality with and without the cache."""

import pytest
import torch

from densekit.nets.pixel import PixelNet


def awake(net):
    """Weights at random: at the start the layers add nothing."""
    generator = torch.Generator().manual_seed(0)
    for p in net.parameters():
        p.data = (
            torch.randn(p.shape, generator=generator, dtype=p.dtype) * max(p[0].numel(), 1) ** -0.5
        )
    return net


def sees(net, n_in, size):
    """Whether the features of pixel t change with pixel s, a matrix over the raster."""
    x = torch.randn(1, n_in, *size, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: net(x)[0], x)[:, :, :, 0]
    pixels = size[0] * size[1]
    return jacobian.abs().sum((0, 3)).reshape(pixels, pixels) > 0


@pytest.mark.parametrize("n_in", [1, 3])
@pytest.mark.parametrize("n_layers", [1, 4])
def test_features_see_pixels_before_and_no_other(n_in, n_layers):
    net = awake(PixelNet(n_in, (5, 6), 4, n_layers).double())
    assert not sees(net, n_in, (5, 6)).triu().any()


def test_no_earlier_pixel_within_reach_is_hidden():
    # Three layers reach 3 + 7 rows up, 3 + 7 pixels to the left and more than that to the right.
    seen = sees(awake(PixelNet(1, (8, 9), 4, 3).double()), 1, (8, 9))
    assert torch.equal(seen, torch.ones(72, 72).tril(-1).bool())


def test_one_layer_sees_all_of_its_window():
    seen = sees(awake(PixelNet(1, (9, 15), 4, 1).double()), 1, (9, 15)).view(9, 15, 9, 15)
    window = torch.zeros(9, 15, dtype=torch.bool)
    window[3:7, 2:13] = True  # one row more than the first layer above, and a pixel on each side
    window[7, 3:7] = True
    window[3:7, :2], window[3:7, 13:] = False, False
    assert torch.equal(seen[7, 7] & window, seen[7, 7])
    assert seen[7, 7, 4:7, 4:11].all()
    assert seen[7, 7, 7, 3:7].all()


@pytest.mark.parametrize(("n_in", "size"), [(1, (9, 12)), (3, (5, 4)), (1, (1, 1)), (2, (1, 7))])
@pytest.mark.parametrize("n_context", [0, 2])
def test_kept_rows_give_the_features_of_a_whole_pass(n_in, size, n_context):
    net = awake(PixelNet(n_in, size, 8, 5, n_context))
    x = torch.randn(6, n_in, *size)
    context = torch.randn(6, n_context) if n_context else None
    pixels, seen = iter(x.flatten(2).unbind(2)), []

    def pixel(features):
        seen.append(features)
        return next(pixels)

    drawn = net.draw(pixel, 6, context)
    assert torch.equal(drawn, x)
    torch.testing.assert_close(
        torch.stack(seen, 2).view(6, 8, *size), net(x, context), rtol=1e-5, atol=1e-5
    )


def test_context_and_place_reach_every_pixel():
    net = awake(PixelNet(1, (3, 4), 8, 2, 2))
    x, context = torch.zeros(2, 1, 3, 4), torch.tensor([[0.0, 0.0], [1.0, -1.0]])
    features = net(x, context)
    assert ((features[0] - features[1]).abs().amax(0) > 1e-4).all()
    places = features[0].flatten(1)
    gaps = (places[:, :, None] - places[:, None]).abs().amax(0)
    assert (gaps + torch.eye(12) > 1e-4).all()
