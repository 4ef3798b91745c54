"""MADE, the masked autoencoder for distribution estimation."""

from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn

from densekit.base import Capabilities
from densekit.codecs.laws import laws_of
from densekit.codecs.schema import Schema
from densekit.distributions.chain import Chain
from densekit.distributions.columnwise import ColumnLaws, warn_of_many_categories
from densekit.distributions.spiked import SpikedLaws
from densekit.nets.masked import MaskedNet
from densekit.nets.mlp import ACTIVATIONS
from densekit.nets.orders import ManyMasks, draw_orders
from densekit.neural import Events, NeuralDensity
from densekit.params import Interval, OneOf

_MAX_DIRECT_WEIGHTS = 2**22
"""Largest number of direct weights with ``direct=None``; for images they would outnumber all others."""
_N_VALIDATION_MASKS = 4
"""Number of masks under which training scores held-out rows."""


class MADE(NeuralDensity):
    r"""MADE, a masked autoencoder that models each column given the columns before it.

    The weights of a network are masked such that one pass computes the conditional distributions
    of all columns. The density is the average over ``n_masks`` = S orders of the columns, whose
    masks share one set of weights:

    .. math:: p(x) = \frac{1}{S} \sum_{s=1}^S \prod_d p(x_{o_s(d)} \mid x_{o_s(1)}, \dots,
              x_{o_s(d-1)}, c)

    Each column has the distribution of its type (`densekit.distributions.columnwise`): categories
    and booleans have probabilities, floats have a mixture of ``n_components`` logistics or
    normals, integers and pixels have a discretized mixture. The score is exact for all of them and
    for mixed rows, in nats per row: a probability of categories and integers and a density of
    floats in the units of X.

    Parameters
    ----------
    hidden_sizes : tuple of int
        Widths of the hidden layers. Consecutive layers of equal width have residual connections.
    n_masks : int
        Number of orders and masks, among which training alternates. A score is the logarithm of
        the mean density over all of them and takes ``n_masks`` passes; each row is sampled in one
        of the orders.
    order : {"columns", "random"} or tuple
        The first order: that of the columns, a random one, or a tuple that contains each column
        once, by number or by name (for images: each entry of the image with its channel first, by
        number). The other orders are random.
    n_components : int
        Number of components of each mixture.
    component : {"logistic", "normal"}
        Distribution of the components.
    direct : bool, optional
        Add direct connections from each column to those after it, as the paper does. None adds
        them if they have at most four million weights.
    activation : str
        One of `densekit.nets.mlp.ACTIVATIONS`.
    dropout : float
        Probability with which training drops a hidden unit.
    min_scale : float
        Smallest scale of a component, in standard deviations of the column. It bounds the
        likelihood on a column that repeats its values.

    Raises
    ------
    ValueError
        In ``fit``, if ``order`` does not contain each column once.

    Notes
    -----
    Events are vectors of shape (D,); images are flattened. Before training, categories have their
    frequencies in the training rows. Sampling computes one column after another and every hidden
    unit once, which costs about as much as one pass. Constant columns are not part of an order.

    References
    ----------
    M. Germain, K. Gregor, I. Murray and H. Larochelle. MADE: Masked Autoencoder for Distribution
    Estimation. ICML 2015. https://arxiv.org/abs/1502.03509

    Examples
    --------
    >>> import numpy as np
    >>> from densekit import MADE
    >>> X = np.random.default_rng(0).integers(0, 2, size=(64, 5))
    >>> est = MADE(hidden_sizes=(16,), n_masks=2, max_steps=5).fit(X)
    >>> est.sample(3).shape, est.density_kind_, est.base_measure_
    ((3, 5), 'exact', 'counting')
    """

    hidden_sizes: Annotated[tuple[int, ...], Interval(ge=1)] = (256,)
    n_masks: Annotated[int, Interval(ge=1)] = 16
    order: Annotated[str | tuple[Any, ...], OneOf("columns", "random")] = "columns"
    n_components: Annotated[int, Interval(ge=1)] = 8
    component: Annotated[str, OneOf("logistic", "normal")] = "logistic"
    direct: bool | None = None
    activation: Annotated[str, OneOf(*sorted(ACTIVATIONS))] = "silu"
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.3
    min_scale: Annotated[float, Interval(gt=0)] = 1e-3
    learning_rate: Annotated[float, Interval(gt=0)] = 1e-2
    weight_decay: Annotated[float, Interval(ge=0)] = 0.1

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact",
        view="typed",
        modalities=("table", "image"),
        context="features",
        weights=True,
    )

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        n_context = 0 if context_schema is None else context_schema.n_features
        laws = SpikedLaws(
            **laws_of(schema),
            n_components=self.n_components,
            component=self.component,
            min_scale=self.min_scale,
        )
        n_direct = laws.n_params * laws.n_dims * sum(laws.reads)
        net = MaskedNet(
            laws.n_dims,
            laws.n_params,
            self.hidden_sizes,
            n_context,
            activation=self.activation,
            dropout=self.dropout,
            reads=laws.reads,
            direct=n_direct <= _MAX_DIRECT_WEIGHTS if self.direct is None else self.direct,
        )
        with torch.no_grad():
            net.last_bias.add_(laws.start()[..., None])
        orders = draw_orders(laws.n_dims, self._first_order(schema), self.n_masks)
        return MADEModule(ManyMasks(net, orders, shuffle_units=self.n_masks > 1), laws)

    def _fit(self, events: Events, context: Tensor | None, weights: Tensor | None = None) -> None:
        batch = max(self.batch_size, self._capabilities.score_batch)
        warn_of_many_categories(self.schema_.columns, batch, self._torch_dtype)
        super()._fit(events, context, weights)

    def _first_order(self, schema: Schema) -> list[int]:
        if self.order == "columns":
            return list(range(len(schema.places)))
        if self.order == "random":
            order: list[int] = torch.randperm(len(schema.places)).tolist()
            return order
        names = [c.name for c in schema.columns] or list(map(str, range(schema.n_dims)))
        try:
            places = [
                names.index(k) if isinstance(k, str) else range(len(names))[k] for k in self.order
            ]
        except (ValueError, IndexError, TypeError):
            places = []
        if sorted(places) != list(range(len(names))):
            raise ValueError(
                f"order={self.order!r} must contain each of the {len(names)} columns once, by number or "
                f"by name ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
            )
        kept = [j for j, c in enumerate(schema.columns) if c.in_event] or places
        return [kept.index(p) for p in places if p in set(kept)] if schema.columns else places

    def _loss(self, module: Any, events: Tensor, context: Tensor | None) -> Tensor:
        """Minus the log-density: under one random mask in training, under a few fixed ones for
        held-out rows.
        """
        masks = list(range(min(self.n_masks, _N_VALIDATION_MASKS)))
        if module.training and self.n_masks > 1:
            masks = [int(torch.randint(self.n_masks, ()))]
        loss: Tensor = -module(context, masks).log_prob(events)
        return loss


class MADEModule(nn.Module):
    """A masked network with the column distributions that its outputs parametrize."""

    def __init__(self, net: ManyMasks, laws: ColumnLaws) -> None:
        super().__init__()
        self.net, self.laws = net, laws

    def forward(self, context: Tensor | None = None, masks: list[int] | None = None) -> Chain:
        """Return the distribution given a context (n, C) or None: event shape (D,), batch shape () or
        (n,).
        """
        return Chain(self.net, self.laws, context, masks)
