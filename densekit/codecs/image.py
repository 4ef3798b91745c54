"""Images: pixels to channel-first events, and back."""

import math
import warnings
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from densekit.codecs.base import Codec
from densekit.codecs.schema import Column, Modality, Schema
from densekit.codecs.support import from_real, to_real
from densekit.containers import as_array, reject_unreadable

_UNIT = Column("pixel", "real", "float64", ("interval", 0.0, 1.0))
_MANY = 1000
"""So many pixels do not have two values of many by chance."""
_BLOCK = 2**22
"""Pixels counted at a time, so that counting needs no second copy of the data."""


class ImageCodec(Codec):
    r"""Images (n, H, W), (n, H, W, C) or flattened to events (n, C, H, W).

    *Integers* 0..255 of any integer dtype (int8: 0..127) are codes with a mass each; the score is
    over counting measure and comes out in bits per dimension as :math:`-\log P / (D \log 2)`.
    Booleans are codes 0 and 1. For models that want numbers, :meth:`Schema.relax` spreads each code
    over its step; the schema's ``shift`` and ``spread`` make every channel standard after that.

    *Floats* in [0, 1] keep an exact density over Lebesgue measure: the normal quantile of the
    value (drawn in by 1e-6 so that 0 and 1 stay finite), standardized per channel. Images that
    were integers divided by 255 are better given as integers: their density has no upper bound.

    Parameters
    ----------
    image_shape : (H, W) or (H, W, C), optional
        Shape of one image where rows come flattened; where they do not, it must agree.
    support : ("interval", 0, top), optional
        The levels that integer pixels can have, where these are not 0..255: a model that must leave
        the others empty pays for it in every pixel. Never inferred: a level that ``fit`` did not
        see may come tomorrow.

    Examples
    --------
    >>> X = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    >>> codec = ImageCodec().fit(X)
    >>> typed, ladj = codec.encode(X)
    >>> typed.shape, ladj.tolist()
    (torch.Size([2, 3, 2, 2]), [0.0, 0.0])
    >>> bool((codec.decode(typed) == X).all())
    True
    """

    modality: ClassVar[Modality] = "image"
    options: ClassVar[tuple[str, ...]] = ("image_shape", "support")

    def __init__(self, image_shape: tuple[int, ...] | None = None, support: Any = None) -> None:
        self.image_shape = image_shape
        self.support = support

    def fit(self, X: Any) -> "ImageCodec":
        """Learn shape, dtype and the location and scale of every channel.

        Raises
        ------
        TypeError
            X is sparse.
        ValueError
            Wrong number of dimensions, a shape other than ``image_shape``, channels first, values
            outside 0..255 or [0, 1], NaN, no rows, or all pixels alike.

        Warns
        -----
        UserWarning
            Integers that have two values only: black and white as two of 256 levels.
        """
        x = self._array(X)
        shape = self._image_shape(x)
        self.row_shape, self.dtype = tuple(x.shape[1:]), str(x.dtype)
        height, width, channels = (*shape, 1)[:3]
        levels = {"b": 2, "f": 0}.get(x.dtype.kind, self._levels())
        if x.dtype == np.int8:
            levels = min(levels, 128)  # A draw above 127 would come back negative.
        _check_range(x, max(levels - 1, 1))
        if x.min() == x.max():
            raise ValueError(
                f"Every pixel of X is {x.flat[0]!r} (shape {x.shape}): there is nothing to learn."
            )
        by_channel = x.reshape(len(x), height * width, channels)
        if levels:
            counts = [_counts(by_channel[:, :, c], levels) for c in range(channels)]
            moments = [_code_moments(n) for n in counts]
            _warn_of_two_levels(np.sum(counts, 0))
        else:
            moments = [_moments(by_channel[:, :, c]) for c in range(channels)]
        self.loc, self.scale = (np.array(m) for m in zip(*moments, strict=True))
        pixels, d = height * width, height * width * channels
        codes = levels > 0
        self.schema = Schema(
            modality="image",
            event_shape=(channels, height, width),
            cardinality=np.full(d, levels),
            ordered=np.full(d, codes),
            width=np.zeros(d),
            shift=np.repeat(self.loc, pixels) if codes else np.zeros(d),
            spread=np.repeat(self.scale, pixels) if codes else np.ones(d),
        )
        return self

    def encode(self, X: Any) -> tuple[Tensor, Tensor]:
        """Images to codes (float32, which holds them exactly) or to standardized floats (float64),
        (n, C, H, W), and the log-Jacobian (n,): -inf where a value is outside the range.

        Raises
        ------
        TypeError, ValueError
            NaN, another shape than ``fit`` saw, floats for integers or the other way round.
        """
        x = self._array(X)
        if x.shape[1:] != self.row_shape:
            raise ValueError(f"images have shape {x.shape[1:]}; fit saw {self.row_shape}.")
        codes = bool(self.schema.cardinality[0])
        if (x.dtype.kind == "f") == codes:
            raise ValueError(
                f"images have dtype {x.dtype}; fit saw {self.dtype}: floats in [0, 1] and "
                "integers in 0..255 have different densities, so convert to what fit saw."
            )
        channels, height, width = self.schema.event_shape
        x = np.moveaxis(x.reshape(len(x), height, width, channels), -1, 1)
        ladj = torch.zeros(len(x), dtype=torch.float64)
        if codes:
            top = int(self.schema.cardinality[0]) - 1
            if x.dtype != np.uint8 or top != 255:
                outside = np.logical_or(x < 0, x > top).any((1, 2, 3))
                ladj[torch.from_numpy(outside)] = -torch.inf
                x = np.where(outside.reshape(-1, 1, 1, 1), 0, x)
            return torch.from_numpy(x.astype(np.float32, order="C")), ladj
        _check_nan(x)
        v, slope = to_real(torch.from_numpy(x.astype(np.float64, order="C")), _UNIT)
        loc, scale = (torch.from_numpy(a).view(-1, 1, 1) for a in (self.loc, self.scale))
        inside = torch.isfinite(v)
        typed = torch.where(inside, (v - loc) / scale, 0.0)
        slope = torch.where(inside, slope - scale.log(), -torch.inf)
        return typed, slope.flatten(1).sum(1)

    def decode(self, typed: Tensor) -> np.ndarray:
        """Events (n, C, H, W) or (n, C H W) to images of the shape and dtype that ``fit`` saw."""
        z = typed.detach().cpu().reshape(len(typed), *self.schema.event_shape)
        if self.schema.cardinality[0]:
            z = z.round().clamp(0, int(self.schema.cardinality[0]) - 1)
        else:
            loc, scale = (torch.from_numpy(a).view(-1, 1, 1) for a in (self.loc, self.scale))
            z = from_real(z.double() * scale + loc, _UNIT)
        x = np.moveaxis(z.numpy(), 1, -1).astype(self.dtype, order="C")
        return x.reshape(len(x), *self.row_shape)

    def _levels(self) -> int:
        """How many levels integer pixels have: 256, or what ``support`` says."""
        if self.support is None:
            return 256
        match self.support:
            case ("interval", 0, int(top)) if 1 <= top <= 255:
                return top + 1
        raise ValueError(
            f"support={self.support!r}: images of integers take ('interval', 0, top) with a top from "
            "1 to 255; images of floats have the support [0, 1] and take none"
        )

    def _array(self, X: Any) -> np.ndarray:
        reject_unreadable(X)
        x = as_array(X)
        if x.dtype.kind not in "biuf":
            raise ValueError(
                f"images must be integers in 0..255 or floats in [0, 1]; got dtype {x.dtype}."
            )
        if x.ndim not in (2, 3, 4) or not x.size:
            raise ValueError(
                "images must be an array (n, H, W), (n, H, W, C) or, with image_shape, "
                f"(n, H * W * C), and not empty; got shape {x.shape}."
            )
        return x

    def _image_shape(self, x: np.ndarray) -> tuple[int, ...]:
        given = self.image_shape
        if given is not None:
            whole = isinstance(given, (tuple, list)) and all(
                isinstance(v, Integral) for v in given
            )
            if not whole or len(given) not in (2, 3) or min(given) < 1:
                raise ValueError(
                    f"image_shape={given!r} must be (H, W) or (H, W, C), integers of at least 1."
                )
            given = tuple(int(v) for v in given)
        if x.ndim == 2:
            if given is None:
                raise ValueError(
                    f"X has shape {x.shape}: pass image_shape=(H, W) or (H, W, C) for flat images."
                )
            if math.prod(given) != x.shape[1]:
                raise ValueError(
                    f"image_shape={given} makes {math.prod(given)} values a row; X has shape "
                    f"{x.shape}."
                )
            return given
        if given is not None and given != x.shape[1:]:
            raise ValueError(
                f"image_shape={given}, but X has shape {x.shape}: leave image_shape out."
            )
        if x.ndim == 4 and x.shape[1] in (1, 3, 4) and x.shape[3] > 4:
            raise ValueError(
                f"X has shape {x.shape}, which looks like channels first; images are "
                "(n, H, W, C): use np.moveaxis(X, 1, -1)."
            )
        return tuple(x.shape[1:])


def _check_nan(x: np.ndarray) -> None:
    if x.dtype.kind == "f" and np.isnan(x).any():
        raise ValueError(
            f"X contains NaN: {int(np.isnan(x).sum())} missing pixels; missing values are not "
            "supported yet by any model: drop these images or fill them."
        )


def _check_range(x: np.ndarray, top: int) -> None:
    _check_nan(x)
    if x.min() < 0 or x.max() > top:
        remedy = (
            "scale them to [0, 1], or round them to uint8 where they are gray levels in 0..255"
            if x.dtype.kind == "f"
            else "scale them to floats in [0, 1], or give the support that they have"
        )
        raise ValueError(
            f"{x.dtype} images must lie in {[0, top]}; X has values from {x.min()} to {x.max()}: "
            f"{remedy}."
        )


def _moments(x: np.ndarray) -> tuple[float, float]:
    v = to_real(torch.from_numpy(x.astype(np.float64)), _UNIT)[0].numpy()
    return float(v.mean()), float(v.std()) or 1.0


def _counts(x: np.ndarray, levels: int) -> np.ndarray:
    """How many pixels have each level."""
    rows = max(1, _BLOCK // max(1, x[0].size))
    counts = np.zeros(levels)
    for i in range(0, len(x), rows):
        counts += np.bincount(x[i : i + rows].ravel(), minlength=levels)
    return counts


def _warn_of_two_levels(counts: np.ndarray) -> None:
    seen = np.flatnonzero(counts)
    if len(counts) > 2 == len(seen) and counts.sum() >= _MANY:
        warnings.warn(
            f"X has the values {seen[0]} and {seen[1]} only, and is read as pixels of {len(counts)} "
            "levels; for images of black and white, with a mass for two levels, pass booleans: "
            f"X == {seen[1]}",
            UserWarning,
            stacklevel=3,
        )


def _code_moments(counts: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of the relaxed codes under uniform noise, exactly."""
    levels = len(counts)
    edges = ndtri(np.arange(levels + 1) / levels)
    phi = np.exp(-0.5 * edges**2) / math.sqrt(2 * math.pi)
    # The moments of a standard normal within each step; x phi(x) vanishes at the two ends.
    tail = np.where(np.isfinite(edges), edges, 0.0) * phi
    first, second = -levels * np.diff(phi), 1 - levels * np.diff(tail)
    share = counts / counts.sum()
    loc = float(share @ first)
    return loc, math.sqrt(float(share @ second) - loc**2)
