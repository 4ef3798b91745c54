"""ImageCodec: shapes and dtypes, standardized channels, range, and errors."""

import math

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from densekit.codecs import ImageCodec

few = settings(max_examples=30, deadline=None)
shapes = st.sampled_from([(3, 2, 4), (3, 2, 4, 1), (2, 3, 2, 3)])
RNG = np.random.default_rng(0)


@few
@given(
    shapes.flatmap(
        lambda s: st.one_of(
            hnp.arrays(np.uint8, s),
            hnp.arrays(np.int32, s, elements=st.integers(0, 255)),
            hnp.arrays(np.bool_, s),
        )
    )
)
def test_pixels_come_back_exactly(X):
    if X.min() == X.max():
        return
    codec = ImageCodec().fit(X)
    typed, ladj = codec.encode(X)
    height, width, channels = (*X.shape[1:], 1)[:3]
    assert typed.shape == (len(X), channels, height, width)
    assert (ladj == 0).all()
    back = codec.decode(typed)
    assert back.dtype == X.dtype
    np.testing.assert_array_equal(back, X)
    np.testing.assert_array_equal(codec.decode(typed.flatten(1)), X)
    assert typed[0, 0, 1, 0] == X[0, 1, 0].ravel()[0]
    assert codec.schema.base_measure == "counting"


@few
@given(shapes.flatmap(lambda s: hnp.arrays(np.float64, s, elements=st.floats(0, 1))))
def test_floats_come_back(X):
    if X.min() == X.max():
        return
    codec = ImageCodec().fit(X)
    typed, ladj = codec.encode(X)
    assert torch.isfinite(typed).all()
    assert torch.isfinite(ladj).all()
    back = codec.decode(typed)
    assert back.dtype == X.dtype
    # Values within 1e-6 of an edge are decoded as the edge.
    np.testing.assert_allclose(back, X, atol=1.1e-6)
    assert codec.schema.base_measure == "lebesgue"


def test_float_jacobian_is_the_slope_of_the_encoding():
    X = RNG.uniform(0.01, 0.99, size=(20, 3, 4, 2))
    codec = ImageCodec().fit(X)
    h = 1e-7
    slopes = (codec.encode(X + h)[0] - codec.encode(X - h)[0]) / (2 * h)
    expected = slopes.log().flatten(1).sum(1)
    torch.testing.assert_close(codec.encode(X)[1], expected, rtol=0, atol=1e-4)


def test_uniform_floats_have_density_one_under_the_standard_normal():
    # Phi^-1 of a uniform is standard normal, so the density of X is 1 up to the inset of 1e-6.
    X = RNG.uniform(size=(4000, 2, 2))
    codec = ImageCodec().fit(X)
    typed, ladj = codec.encode(X)
    v = typed * torch.from_numpy(codec.scale).view(-1, 1, 1) + codec.loc[0]
    logp = (-0.5 * v**2 - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)
    exact = logp + ladj + 4 * math.log(codec.scale[0])
    assert exact.abs().max() < 1e-4


def test_relaxed_channels_are_standardized():
    X = np.stack(
        [RNG.binomial(255, p, size=(300, 8, 8)) for p in (0.02, 0.5, 0.97)], axis=-1
    ).astype(np.uint8)
    codec = ImageCodec().fit(X)
    typed, _ = codec.encode(X)
    noise = torch.rand(typed.shape, generator=torch.Generator().manual_seed(0)).double()
    z, _ = codec.schema.relax(typed.double(), noise)
    assert (z.mean((0, 2, 3)).abs() < 0.02).all()
    assert ((z.std((0, 2, 3)) - 1).abs() < 0.02).all()


def test_flat_images():
    X = RNG.integers(0, 256, size=(5, 24), dtype=np.uint8)
    codec = ImageCodec(image_shape=(2, 4, 3)).fit(X)
    typed, _ = codec.encode(X)
    assert typed.shape == (5, 3, 2, 4)
    np.testing.assert_array_equal(codec.decode(typed), X)
    np.testing.assert_array_equal(typed[1, 2].numpy(), X[1].reshape(2, 4, 3)[:, :, 2])


def test_draws_stop_at_the_ends_of_the_range():
    codec = ImageCodec().fit(np.array([[[0, 255]]], dtype=np.uint8))
    assert codec.decode(torch.tensor([[[[-3.0, 255.4]]]])).tolist() == [[[0, 255]]]
    codec = ImageCodec().fit(np.array([[[0.25, 0.75]]], dtype=np.float32))
    assert codec.decode(torch.tensor([[[[-99.0, 99.0]]]])).tolist() == [[[0.0, 1.0]]]


def test_values_outside_the_range_score_minus_infinity():
    codec = ImageCodec().fit(RNG.integers(0, 256, size=(4, 2, 2)))
    typed, ladj = codec.encode(
        np.array([[[0, 1], [2, 255]], [[0, 0], [256, 0]], [[-1, 0], [0, 0]]])
    )
    assert ladj.tolist() == [0, -math.inf, -math.inf]
    assert (typed[1:] == 0).all()
    codec = ImageCodec().fit(RNG.uniform(size=(4, 2, 2)))
    typed, ladj = codec.encode(np.array([[[0, 1], [0.5, 1]], [[0, 0], [1.5, 0]]]))
    assert np.isneginf(ladj.numpy()).tolist() == [False, True]
    assert torch.isfinite(typed).all()


PIXELS = RNG.integers(0, 256, size=(4, 3, 2), dtype=np.uint8)


@pytest.mark.parametrize(
    ("X", "shape", "words"),
    [
        (np.array([[[0.5, 1.5]]]), None, r"\[0, 1\]; X has values from 0.5 to 1.5: scale"),
        (np.array([[[0, 256]]]), None, r"\[0, 255\]; X has values from 0 to 256"),
        (np.array([[[0.5, np.nan]]]), None, "NaN: 1 missing"),
        (np.full((2, 2, 2), 7), None, "Every pixel of X is .*7"),
        (np.zeros((0, 2, 2), np.uint8), None, r"not empty; got shape \(0, 2, 2\)"),
        (np.zeros(4, np.uint8), None, r"got shape \(4,\)"),
        (np.array([[["a"]]]), None, "dtype <U1"),
        (np.zeros((2, 2, 2), complex), None, "complex128"),
        (PIXELS.reshape(4, 6), None, "pass image_shape"),
        (PIXELS.reshape(4, 6), (2, 2), r"image_shape=\(2, 2\) makes 4.*\(4, 6\)"),
        (PIXELS, (2, 3), r"image_shape=\(2, 3\), but X has shape \(4, 3, 2\)"),
        (PIXELS, (6,), r"image_shape=\(6,\) must be"),
        (np.zeros((2, 3, 8, 8), np.uint8), None, "channels first.*moveaxis"),
    ],
)
def test_images_that_are_refused(X, shape, words):
    with pytest.raises(ValueError, match=words):
        ImageCodec(image_shape=shape).fit(X)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (PIXELS[:, :2], r"shape \(2, 2\); fit saw \(3, 2\)"),
        (PIXELS / 255, "dtype float64; fit saw uint8"),
    ],
)
def test_rows_that_are_refused(rows, words):
    codec = ImageCodec().fit(PIXELS)
    with pytest.raises(ValueError, match=words):
        codec.encode(rows)


def test_sparse_is_refused():
    with pytest.raises(TypeError, match="Sparse"):
        ImageCodec(image_shape=(3, 1)).fit(scipy.sparse.eye(3).tocsr())


def test_fewer_levels_than_256_are_given_as_the_support():
    rng = np.random.default_rng(0)
    X = rng.integers(0, 17, size=(50, 2, 2), dtype=np.uint8)
    codec = ImageCodec(support=("interval", 0, 16)).fit(X)
    assert (codec.schema.cardinality == 17).all()
    typed, ladj = codec.encode(X)
    assert (codec.decode(typed) == X).all()
    assert (ladj == 0).all()
    above = X[:2].copy()
    above[1, 0, 0] = 17
    assert codec.encode(above)[1].tolist() == [0.0, -np.inf]
    with pytest.raises(ValueError, match=r"\[0, 15\]; X has values from 0 to 16"):
        ImageCodec(support=("interval", 0, 15)).fit(X)
    for bad in ("positive", ("interval", 1, 16), ("interval", 0, 256)):
        with pytest.raises(ValueError, match="support="):
            ImageCodec(support=bad).fit(X)


def test_two_levels_of_integers_are_warned_of(recwarn):
    X = RNG.integers(0, 2, (20, 8, 8)).astype(np.uint8)
    for black_and_white in (X, 255 * X):
        with pytest.warns(UserWarning, match="256 levels.*pass booleans"):
            assert ImageCodec().fit(black_and_white).schema.cardinality[0] == 256
    recwarn.clear()
    assert ImageCodec().fit(X == 1).schema.cardinality[0] == 2
    assert ImageCodec(support=("interval", 0, 1)).fit(X).schema.cardinality[0] == 2
    X[0, 0, 0] = 2
    ImageCodec().fit(X)
    assert not recwarn
