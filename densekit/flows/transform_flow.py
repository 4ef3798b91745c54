"""A flow made of the transforms that a user's function returns."""

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
from densekit.transforms.adapt import as_columns, check_transforms
from densekit.transforms.autoregressive import AutoregressiveTransform
from densekit.transforms.columns import ColumnTransform, Stack
from densekit.transforms.linear import LULinear
from densekit.transforms.pyro import title
from densekit.transforms.spline import SplineElement


def spline_transforms(n_features: int, n_context: int = 0) -> list[ColumnTransform]:
    """Make the default transforms of :class:`TransformFlow`: spline, LU-linear, spline.

    The function is also an example of a factory.

    Parameters
    ----------
    n_features : int
        Number of features D.
    n_context : int
        Number of context features.

    Returns
    -------
    list of ColumnTransform
        Two autoregressive spline transforms with an LU-linear transform between them, noise to
        data.

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
    r"""A flow made of any list of transforms of Pyro, torch, nflows or densekit.

    Its density is the change of variables

    .. math:: x = T_k(\cdots T_1(z)), \quad z \sim N(0, I), \qquad
              \log p(x) = \log N(z; 0, I) - \sum_i \log\left|\det \frac{dT_i}{dz_{i-1}}\right|

    over standardized columns, as in ``TransformedDistribution(Normal(0, 1), [T_1, ..., T_k])``.

    Parameters
    ----------
    transforms : callable, optional
        A *factory*: ``transforms(n_features, n_context)``, or ``transforms(n_features)`` if it
        uses no context. The second argument is passed if it has no default or is called
        ``n_context``. Every call must return a new list :math:`[T_1, \ldots, T_k]` of transforms,
        noise to data as in Pyro, whichever library they come from. None uses
        `densekit.flows.transform_flow.spline_transforms`.

    Raises
    ------
    TypeError
        In ``fit``, if the factory is not a function or does not return a list of transforms.
    ValueError
        In ``fit``, if a transform has the wrong dimension, does not invert, does not cover the
        real line, has no map from data to noise, or if no transform has parameters.
    NotImplementedError
        In ``sample``, if a transform has no map from noise to data.

    Notes
    -----
    A transform takes vectors of ``n_features`` numbers. Wrap an image layer of nflows as
    ``densekit.transforms.nflows.FromNflows(layer, (channels, height, width))``, and put an image
    layer of Pyro between two of torch's ``ReshapeTransform``. With a context, at least one
    transform must use it: a ``ConditionalTransform`` of Pyro, or a transform of nflows or densekit
    made for ``n_context`` features.

    Pyro's autoregressive transforms run their network once per feature in one of the two
    directions. The ``.inv`` of one trains fast and samples slowly.

    Saved files contain no functions. ``save`` omits the factory, and :func:`densekit.load` takes
    it as ``load(path, parameters={"transforms": factory})``; the rows that the file keeps with
    their scores show whether it is the right one. A pickle stores the factory by name.

    Events are vectors of shape (D,); images are flattened. Scores are exact on continuous columns.
    Integers, categories and pixels are dequantized, and their score is a lower bound.

    References
    ----------
    D. J. Rezende and S. Mohamed. Variational Inference with Normalizing Flows. ICML 2015.
    https://arxiv.org/abs/1505.05770

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
        made = self._make_transforms(schema, context_schema)
        return FlowModule(Stack(reversed(made.values())))

    def _make_transforms(
        self, schema: Schema, context_schema: Schema | None
    ) -> dict[str, ColumnTransform]:
        """Call the factory and adapt its transforms; the keys name them in error messages."""
        n_context = 0 if context_schema is None else context_schema.n_features
        made = {}
        for i, t in enumerate(_call_factory(self.transforms, schema.n_dims, n_context)):
            name = f"transforms[{i}], {title(t)}"
            try:
                made[name] = as_columns(t, schema.n_dims, n_context)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name}, cannot be used: {error}") from error
        return made

    def _fit(self, events: Events, context: Tensor | None, weights: Tensor | None = None) -> None:
        # The factory is checked before the first training step, on transforms that are not kept.
        first, second = (
            self._make_transforms(self.schema_, self._context_schema) for _ in range(2)
        )
        weights_of = [
            {p for t in made.values() for p in t.parameters()} for made in (first, second)
        ]
        if not weights_of[0]:
            raise ValueError(f"{', '.join(first)} have no parameters: there is nothing to learn")
        if weights_of[0] & weights_of[1]:
            raise ValueError(
                f"transforms={self.transforms!r} returns the same transforms at every call, with the "
                "weights of the previous fit: create them inside the function"
            )
        n_context = 0 if context is None else context.shape[1]
        check_transforms(first, self.schema_.n_dims, n_context, self._torch_dtype)
        super()._fit(events, context, weights)


def _call_factory(
    factory: Callable[..., Any] | None, n_features: int, n_context: int
) -> Sequence[Any]:
    """Call the factory with ``n_features``, and with ``n_context`` if its signature asks for it."""
    factory = spline_transforms if factory is None else factory
    if isinstance(factory, nn.Module | Transform):
        raise TypeError(
            f"transforms is a {type(factory).__name__}, whose weights every clone of the estimator "
            "would share: pass a function that creates it, transforms=lambda n_features: [...]"
        )
    parameters = list(inspect.signature(factory).parameters.values())
    second = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][1:2]
    takes_context = any(p.default is p.empty or p.name == "n_context" for p in second) or any(
        p.kind is p.VAR_POSITIONAL for p in parameters
    )
    made = factory(n_features, n_context) if takes_context else factory(n_features)
    if not isinstance(made, list | tuple) or not made:
        raise TypeError(
            f"transforms={factory!r} returned {made!r}, of type {type(made).__name__}: it must return "
            "a non-empty list of transforms, noise to data"
        )
    return made
