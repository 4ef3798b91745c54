"""Transforms of nflows as column transforms.

Requires nflows: ``pip install 'densekit[nflows]'``. The package dates from 2020 and calls
functions that torch has deprecated or removed since. These calls are replaced in the objects
passed here, not in nflows itself.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densekit.transforms.columns import ColumnTransform, to_columns

try:
    from nflows import transforms as nflows_transforms
except ImportError as error:
    raise ImportError(
        "transforms of nflows need the package nflows: pip install 'densekit[nflows]'"
    ) from error


class FromNflows(ColumnTransform):
    r"""A transform of nflows on vectors or images.

    In nflows forward maps data to noise, and inverse maps noise to data:

    .. math:: z = \mathtt{forward}(x; c), \qquad x = \mathtt{inverse}(z; c)

    Parameters
    ----------
    transform : nflows.transforms.Transform
        Its weights are trained in place. Layers that call functions which torch no longer has
        (``LULinear``, ``NaiveLinear``, ``QRLinear``, ``OneByOneConvolution``), and ``ActNorm``, whose
        first values would replace the tensors that are trained, are replaced by layers of densekit
        that share their weights. Caches of weights are switched off.
    shape : int or sequence of int
        Shape of a row: D, or (channels, height, width) of an image, whose D entries in this order
        are the columns. The transform may map an image to another shape, such as that of a squeeze
        or a vector; the noise is that, flattened.
    n_context : int
        C; the transform takes contexts of shape (N, C).

    Raises
    ------
    NotImplementedError
        When it is evaluated in a direction that nflows lacks.

    Examples
    --------
    >>> from nflows.transforms import SqueezeTransform
    >>> transform = FromNflows(SqueezeTransform(), (1, 2, 4))
    >>> transform.inv(torch.arange(8.0)).tolist()
    [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]
    """

    def __init__(
        self,
        transform: nflows_transforms.Transform,
        shape: int | Sequence[int],
        n_context: int = 0,
    ) -> None:
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        super().__init__(math.prod(self.shape), n_context)
        self.transform = _with_current_layers(transform, {})
        for module in self.transform.modules():
            if isinstance(module, nflows_transforms.linear.Linear):
                module.use_cache(False)
        self.noise_shape = self._shape_of_noise()

    def _shape_of_noise(self) -> tuple[int, ...]:
        if len(self.shape) == 1:
            return self.shape
        # In evaluation mode, because in training mode the first rows may initialize a layer's weights.
        training_modes = {module: module.training for module in self.transform.modules()}
        self.transform.eval()
        with torch.no_grad():
            like = next(self.transform.parameters(), torch.zeros(()))
            context = like.new_zeros(1, self.n_context) if self.n_context else None
            z, _ = self.transform(like.new_zeros(1, *self.shape), context)
        for module, training in training_modes.items():
            module.training = training
        return tuple(z.shape[1:])

    def _run(self, function: Any, rows: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        try:
            result, ladj = function(rows, None if context is None else context.t())
        except (NotImplementedError, nflows_transforms.InverseNotAvailable) as error:
            needed = "sample" if function == self.transform.inverse else "learn or score"
            raise NotImplementedError(
                f"{type(self.transform).__name__} of nflows has no {function.__name__}, which is needed "
                f"to {needed}: use a transform with both directions, or its InverseTransform if the "
                "other direction is enough"
            ) from error
        return to_columns(result.flatten(1)), ladj.to(rows)

    def to_noise(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Data to noise, and log|dz/dx|."""
        rows = x.t().reshape(-1, *self.shape).contiguous()
        return self._run(self.transform.forward, rows, context)

    def to_data(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|."""
        rows = z.t().reshape(-1, *self.noise_shape).contiguous()
        return self._run(self.transform.inverse, rows, context)


class _Triangles:
    """``LULinear`` without ``torch.triangular_solve``."""

    def inverse_no_cache(self: Any, inputs: Tensor) -> tuple[Tensor, Tensor]:
        lower, upper = self._create_lower_upper()
        half = torch.linalg.solve_triangular(
            lower, (inputs - self.bias).t(), upper=False, unitriangular=True
        )
        outputs = torch.linalg.solve_triangular(upper, half, upper=True).t()
        return outputs, -self.logabsdet() * inputs.new_ones(len(inputs))


class _LULinear(_Triangles, nflows_transforms.LULinear):
    pass


class _OneByOneConvolution(_Triangles, nflows_transforms.OneByOneConvolution):
    pass


class _QRLinear(nflows_transforms.QRLinear):
    """``QRLinear`` without ``torch.triangular_solve``."""

    def inverse_no_cache(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        rotated, _ = self.orthogonal.inverse(inputs - self.bias)
        outputs = torch.linalg.solve_triangular(self._create_upper(), rotated.t(), upper=True).t()
        return outputs, -self.logabsdet() * inputs.new_ones(len(inputs))


class NaiveLinear(nflows_transforms.NaiveLinear):
    """The ``NaiveLinear`` of nflows without ``torch.solve`` and ``torch.qr``, which torch has
    removed.

    nflows calls ``torch.qr`` when it creates one with the default
    ``orthogonal_initialization=True``; create this one instead. Layers created without it can be
    those of nflows.

    Parameters
    ----------
    features : int
        D.
    orthogonal_initialization : bool
        Start with a random rotation.

    Examples
    --------
    >>> layer = FromNflows(NaiveLinear(3), 3)
    >>> bool(layer.to_noise(torch.randn(3, 5))[1].abs().max() < 1e-5)
    True
    """

    def __init__(self, features: int, orthogonal_initialization: bool = True) -> None:
        super().__init__(features, orthogonal_initialization=False)
        if orthogonal_initialization:
            rotation, _ = torch.linalg.qr(torch.randn(features, features))
            with torch.no_grad():
                self._weight.copy_(rotation)

    def inverse_no_cache(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Noise to data, and log|dx/dz|; inputs (N, D)."""
        outputs = torch.linalg.solve(self._weight, (inputs - self.bias).t()).t()
        return outputs, -self.logabsdet() * inputs.new_ones(len(inputs))


class _ActNorm(nflows_transforms.ActNorm):
    """``ActNorm`` that initializes its weights in place.

    nflows replaces their storage, on the CPU, and the running average of the weights would not see
    the new one.
    """

    def _initialize(self, inputs: Tensor) -> None:
        over = [axis for axis in range(inputs.dim()) if axis != 1]
        with torch.no_grad():
            has_several_rows = inputs.numel() > inputs.shape[1]
            scale = inputs.std(over, correction=int(has_several_rows))
            # A constant feature or a single row is not scaled.
            scale = torch.where(scale > 0, scale, torch.ones_like(scale))
            self.log_scale.copy_(-scale.log())
            self.shift.copy_(-inputs.mean(over) / scale)
            self.initialized.fill_(True)


_REPLACEMENTS: dict[type, type] = {
    nflows_transforms.LULinear: _LULinear,
    nflows_transforms.OneByOneConvolution: _OneByOneConvolution,
    nflows_transforms.QRLinear: _QRLinear,
    nflows_transforms.NaiveLinear: NaiveLinear,
    nflows_transforms.ActNorm: _ActNorm,
}
"""Classes of nflows, and those whose layers replace them."""


def _with_current_layers(module: nn.Module, replaced: dict[nn.Module, nn.Module]) -> nn.Module:
    """A module with layers of nflows replaced, in its children too. A layer that is used twice is
    replaced by one layer."""
    if module not in replaced:
        kind = _REPLACEMENTS.get(type(module))
        replaced[module] = module if kind is None else _sharing_weights(module, kind)
        # Not named_children: it leaves out the second name of a layer that is used twice.
        for name, child in list(module._modules.items()):
            if child is not None:
                setattr(replaced[module], name, _with_current_layers(child, replaced))
    return replaced[module]


def _sharing_weights(layer: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """A layer of a subclass with the weights, children and settings of another one."""
    new = kind.__new__(kind)
    nn.Module.__init__(new)
    # Tables of its own, of the same tensors: a child that is replaced here stays in the other layer.
    for name, value in vars(layer).items():
        new.__dict__[name] = value.copy() if isinstance(value, dict) else value
    return new
