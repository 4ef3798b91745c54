"""A flow of whatever transforms a function returns."""

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar

from torch import Tensor, nn
from torch.distributions.transforms import Transform

from densekit.base import Capabilities
from densekit.codecs.schema import Schema
from densekit.distributions.flow import FlowModule
from densekit.neural import Events, NeuralDensity
from densekit.params import Interval
from densekit.transforms.adapt import as_columns, try_out
from densekit.transforms.autoregressive import AutoregressiveTransform
from densekit.transforms.columns import ColumnTransform, Stack
from densekit.transforms.linear import LULinear
from densekit.transforms.pyro import title
from densekit.transforms.spline import SplineElement


def spline_transforms(n_features: int, n_context: int = 0) -> list[ColumnTransform]:
    """Two spline autoregressive transforms with an LU-linear one between: what ``TransformFlow()``
    is made of, and an example of a factory.

    Examples
    --------
    >>> [type(t).__name__ for t in spline_transforms(3)]
    ['AutoregressiveTransform', 'LULinear', 'AutoregressiveTransform']
    """
    last, first = (
        AutoregressiveTransform(n_features, SplineElement(), (64, 64), n_context, reverse=reverse)
        for reverse in (False, True)
    )
    return [first, LULinear(n_features), last]


class TransformFlow(NeuralDensity):
    r"""A flow of any list of transforms: Pyro's, torch's, nflows' and densekit's, mixed as you like.

    The change of variables of Rezende and Mohamed, Variational Inference with Normalizing Flows (2015):

    .. math:: x = T_k(\cdots T_1(z)), \quad z \sim N(0, I), \qquad
              \log p(x) = \log N(z; 0, I) - \sum_i \log\left|\det \frac{dT_i}{dz_{i-1}}\right|

    as ``TransformedDistribution(Normal(0, 1), [T_1, ..., T_k])`` has it, over standardized columns.

    Parameters
    ----------
    transforms : callable, optional
        A *factory*, ``transforms(n_features, n_context)``, or ``transforms(n_features)`` where no
        context is used; the second argument is given where it has no default or is called
        ``n_context``. It returns the list :math:`[T_1, \ldots, T_k]`, made anew at every call:
        noise to data in Pyro's order, whichever library they are of. None is
        ``spline_transforms``.

    Notes
    -----
    A transform takes vectors of ``n_features`` numbers. Image layers of nflows go in as
    ``densekit.transforms.nflows.FromNflows(layer, (channels, height, width))``, those of Pyro
    between two of torch's ``ReshapeTransform``. With a context one of the transforms at least reads
    it: a ``ConditionalTransform`` of Pyro, one of nflows or densekit made for ``n_context`` numbers.

    Learning needs the way from data to noise. ``fit`` refuses transforms that have not got it, and
    those of another dimension, that do not invert, or that leave a part of the real line out;
    without the other way the flow scores, and ``sample`` is a NotImplementedError. Pyro's
    autoregressive transforms are slow in the way that is not theirs (their network runs once per
    feature): ``.inv`` of one learns fast and samples slowly.

    A file holds no functions: ``save`` leaves the factory out, and :func:`densekit.load` is given
    it, ``load(path, parameters={"transforms": factory})``. The file's probe rows tell whether it was
    the right one. A pickle holds the factory by its name, as pickles do.

    Events are vectors (D,), images too. On continuous columns the score is exact; integers, codes
    and pixels are dequantized, and it is a lower bound.

    Examples
    --------
    >>> import numpy as np
    >>> from pyro.distributions import transforms as T
    >>> def factory(n_features):
    ...     return [T.affine_autoregressive(n_features, [16]).inv, T.permute(n_features)]
    >>> X = np.random.default_rng(0).normal(size=(64, 2))
    >>> flow = TransformFlow(transforms=factory, max_steps=5).fit(X)
    >>> flow.sample(3).shape, flow.score_samples(X).shape
    ((3, 2), (64,))
    """

    transforms: Callable[..., Any] | None = None
    learning_rate: Annotated[float, Interval(gt=0)] = 3e-3

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact",
        view="relaxed",
        modalities=("table", "image"),
        context="features",
        weights=True,
    )

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        made = self._make(schema, context_schema)
        return FlowModule(Stack(reversed(made.values())))

    def _make(self, schema: Schema, context_schema: Schema | None) -> dict[str, ColumnTransform]:
        """What the factory returns, noise to data, as transforms of columns by their names."""
        n_context = 0 if context_schema is None else context_schema.n_features
        made = {}
        for i, t in enumerate(_call(self.transforms, schema.n_dims, n_context)):
            name = f"transforms[{i}], {title(t)}"
            try:
                made[name] = as_columns(t, schema.n_dims, n_context)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name}, cannot be used: {error}") from error
        return made

    def _fit(self, events: Events, context: Tensor | None, weights: Tensor | None = None) -> None:
        # Before the first step, on transforms that are then thrown away.
        one, other = (self._make(self.schema_, self._context_schema) for _ in range(2))
        learned = [{p for t in made.values() for p in t.parameters()} for made in (one, other)]
        if not learned[0]:
            raise ValueError(f"{', '.join(one)} have no parameters: there is nothing to learn")
        if learned[0] & learned[1]:
            raise ValueError(
                f"transforms={self.transforms!r} returns the same transforms at every call, and with "
                "them the weights of the last fit: make them inside the function"
            )
        n_context = 0 if context is None else context.shape[1]
        try_out(one, self.schema_.n_dims, n_context, self._torch_dtype)
        super()._fit(events, context, weights)


def _call(factory: Callable[..., Any] | None, n_features: int, n_context: int) -> Sequence[Any]:
    """What the factory makes, of two arguments or of one, as it wants them."""
    factory = spline_transforms if factory is None else factory
    if isinstance(factory, nn.Module | Transform):
        raise TypeError(
            f"transforms is a {type(factory).__name__}, and would take its weights into every copy: "
            "give a function that makes it, transforms=lambda n_features: [...]"
        )
    taken = list(inspect.signature(factory).parameters.values())
    second = [p for p in taken if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][1:2]
    both = any(p.default is p.empty or p.name == "n_context" for p in second) or any(
        p.kind is p.VAR_POSITIONAL for p in taken
    )
    made = factory(n_features, n_context) if both else factory(n_features)
    if not isinstance(made, list | tuple) or not made:
        raise TypeError(
            f"transforms={factory!r} returned {made!r}, of type {type(made).__name__}: it must return "
            "a list of transforms, one at least, noise to data"
        )
    return made
