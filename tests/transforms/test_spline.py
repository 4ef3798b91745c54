import pytest
import torch

from densekit.kernels.limits import MIN_BIN, MIN_SLOPE
from densekit.transforms.spline import SplineElement

BINS = (2, 3, 8)


def draw(n_bins, n=400, dtype=torch.float64, spread=1.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = 3 * torch.randn(3, n, generator=g, dtype=dtype)
    raw = spread * torch.randn(3 * n_bins - 1, 3, n, generator=g, dtype=dtype)
    return x, raw


@pytest.mark.parametrize("n_bins", BINS)
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_spline_inverse_undoes_it_also_far_out_and_at_the_knots(n_bins, dtype, atol):
    element = SplineElement(n_bins, 5.0)
    x, raw = draw(n_bins, dtype=dtype, spread=0.5)
    tails = torch.tensor([-1e6, -5.0, -4.999999, 0.0, 4.999999, 5.0, 5.000001, 1e6], dtype=dtype)
    x[:, : len(tails)] = tails
    z, ladj = element.forward(x, raw)
    back, inverse_ladj = element.inverse(z, raw)
    torch.testing.assert_close(back, x, atol=atol, rtol=atol)
    torch.testing.assert_close(inverse_ladj, -ladj, atol=20 * atol, rtol=0)
    forth, _ = element.forward(element.inverse(x, raw)[0], raw)
    torch.testing.assert_close(forth, x, atol=atol, rtol=atol)


@pytest.mark.parametrize("n_bins", BINS)
@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_spline_log_slope_is_that_of_autodiff(n_bins, way):
    x, raw = draw(n_bins, spread=1.5)
    x.requires_grad_()
    y, ladj = getattr(SplineElement(n_bins, 4.0), way)(x, raw)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(ladj, slope.log(), atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("n_bins", BINS)
@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_spline_gradients_by_finite_differences(n_bins, way):
    x, raw = draw(n_bins, n=12)
    element = SplineElement(n_bins, 4.0)
    inputs = (x.requires_grad_(), raw.requires_grad_())
    assert torch.autograd.gradcheck(getattr(element, way), inputs)


def test_spline_refuses_second_derivatives_rather_than_giving_wrong_ones():
    x, raw = draw(4, n=5)
    x.requires_grad_()
    y, _ = SplineElement(4, 4.0).forward(x, raw)
    with pytest.raises(RuntimeError, match="no second derivatives"):
        torch.autograd.grad(y.sum(), x, create_graph=True)


@pytest.mark.parametrize("n_bins", BINS)
def test_spline_is_increasing_and_continuous_with_its_tails(n_bins):
    element = SplineElement(n_bins, 3.0)
    x = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    raw = draw(n_bins, n=1, spread=3.0)[1][:, :1].expand(-1, 1, len(x))
    y, _ = element.forward(x[None], raw)
    assert (y.diff() > 0).all()
    assert torch.equal(y[0][x.abs() >= 3], x[x.abs() >= 3])
    for side in (-3.0, 3.0):
        near = torch.tensor([[side - 1e-9, side + 1e-9]], dtype=torch.float64)
        y, ladj = element.forward(near, raw[..., :2])
        torch.testing.assert_close(y, near, atol=1e-6, rtol=0)
        torch.testing.assert_close(ladj, torch.zeros_like(ladj), atol=1e-4, rtol=0)


@pytest.mark.parametrize("n_bins", [*BINS, 100])
def test_zeros_and_the_start_are_the_identity(n_bins):
    element = SplineElement(n_bins, 5.0)
    x = draw(n_bins)[0]
    for raw in (torch.zeros(element.n_params), element.start()):
        z, ladj = element.forward(x, raw.double()[:, None, None].expand(-1, *x.shape))
        torch.testing.assert_close(z, x, atol=1e-13, rtol=0)
        torch.testing.assert_close(ladj, torch.zeros_like(x), atol=1e-13, rtol=0)


@pytest.mark.parametrize("way", ["forward", "inverse"])
@pytest.mark.parametrize("size", [0.0, 30.0, 1e4])
def test_spline_is_finite_for_any_float32(way, size):
    x = torch.tensor([0.0, -0.0, 1e-45, 4.9999995, 5.0, 1e6, -1e6, 3.4e38, -3.4e38])
    g = torch.Generator().manual_seed(1)
    raw = (size * torch.randn(23, len(x), 50, generator=g)).requires_grad_()
    x = x[:, None].expand(-1, 50).clone().requires_grad_()
    y, ladj = getattr(SplineElement(8, 5.0), way)(x, raw)
    (y.clamp(-10, 10).sum() + ladj.sum()).backward()
    for t in (y, ladj, x.grad, raw.grad):
        assert torch.isfinite(t).all()


def test_spline_keeps_its_promises_about_bins_and_slopes():
    """The steepest and the flattest spline that wild parameters can make."""
    g = torch.Generator().manual_seed(2)
    raw = 50 * torch.randn(23, 1, 1, generator=g, dtype=torch.float64).expand(23, 1, 9001)
    x = torch.linspace(-1, 1, 9001, dtype=torch.float64)[None]
    y, _ = SplineElement(8, 1.0).forward(x, raw)
    assert (y.diff() > 0).all()
    assert MIN_BIN * 8 < 1
    assert 0 < MIN_SLOPE < 1


@pytest.mark.parametrize("way", ["forward", "inverse"])
def test_spline_has_the_values_of_nflows(way):
    theirs = pytest.importorskip("nflows.transforms.splines.rational_quadratic")
    x, raw = draw(8, spread=1.0)
    # nflows' inner slopes are softplus of the raw number itself; ours are shifted to 1 at 0.
    shift = torch.log(torch.expm1(torch.tensor(1 - MIN_SLOPE, dtype=x.dtype)))
    y, ladj = theirs.unconstrained_rational_quadratic_spline(
        x,
        raw[:8].movedim(0, -1),
        raw[8:16].movedim(0, -1),
        raw[16:].movedim(0, -1) + shift,
        inverse=way == "inverse",
        tails="linear",
        tail_bound=4.0,
    )
    ours = getattr(SplineElement(8, 4.0), way)(x, raw)
    torch.testing.assert_close(ours[0], y, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(ours[1], ladj, atol=1e-9, rtol=1e-9)
