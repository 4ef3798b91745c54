"""The masked autoencoder for distribution estimation."""

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

_MOST_DIRECT = 2**22
"""Direct connections where ``direct`` is None, at most: those of many pixels would outweigh all else."""
_HELD_OUT_MASKS = 4
"""Masks under which held-out rows are looked at while training."""


class MADE(NeuralDensity):
    r"""Masked autoencoder: one pass of a network gives each column's law, given the columns before it.

    Germain, Gregor, Murray and Larochelle, MADE: Masked Autoencoder for Distribution Estimation
    (2015). Weights from a hidden unit to one that sees fewer columns are masked out, so that

    .. math:: p(x) = \frac{1}{S} \sum_{s=1}^S \prod_d p(x_{o_s(d)} \mid x_{o_s(1)}, \dots,
              x_{o_s(d-1)}, c)

    over ``n_masks`` = S orders of the columns, whose masks share one set of weights. Columns have the
    law of their type (`densekit.distributions.columnwise`): categories and flags their
    probabilities, numbers a mixture of ``n_components`` logistics or normals, integers and pixels
    the masses of a discretized mixture. The score is exact for all of them, mixed rows too: nats per
    row, a mass over codes and integers and a density over numbers in the units of X.

    Parameters
    ----------
    hidden_sizes : tuple of int
        Hidden layers; neighbors of equal width are joined by a residual sum.
    n_masks : int
        Orders, and with them degrees of the hidden units, to train under in turn. A score is the log
        of the mean density over all of them, and costs as many passes; each row is drawn in one of
        them.
    order : {"columns", "random"} or tuple
        The first order: as the columns come, at random, or a tuple that has each column once, by
        number or name (of an image: each entry of the image with its channel first, by number).
        The others are random.
    n_components : int
        Components of each mixture.
    component : {"logistic", "normal"}
        What is mixed.
    direct : bool, optional
        Connect each column with those after it directly, beside the hidden layers, as the paper
        does; None does so where that takes four million weights at most.
    activation : str
        See `densekit.nets.mlp.ACTIVATIONS`.
    dropout : float
        Probability with which a hidden unit is left out while training.
    min_scale : float
        Smallest scale of a component, in standard deviations of the column: keeps the likelihood
        from going to infinity on a column that repeats its values.

    Notes
    -----
    Events are vectors (D,), images too. Untrained, categories have their shares of the training
    rows. Sampling finds the columns one after another and computes every hidden unit once, about
    the arithmetic of one pass. Constant columns are no part of an order.

    Raises
    ------
    ValueError
        ``order`` does not have each column once.

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
            direct=n_direct <= _MOST_DIRECT if self.direct is None else self.direct,
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
                f"order={self.order!r} must have each of the {len(names)} columns once, by number or by "
                f"name ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
            )
        kept = [j for j, c in enumerate(schema.columns) if c.in_event] or places
        return [kept.index(p) for p in places if p in set(kept)] if schema.columns else places

    def _loss(self, module: Any, events: Tensor, context: Tensor | None) -> Tensor:
        """Under one mask at a time while training, under few where rows are held out."""
        masks = list(range(min(self.n_masks, _HELD_OUT_MASKS)))
        if module.training and self.n_masks > 1:
            masks = [int(torch.randint(self.n_masks, ()))]
        loss: Tensor = -module(context, masks).log_prob(events)
        return loss


class MADEModule(nn.Module):
    """A masked network and what its numbers mean; called with the context, (n, C) or None."""

    def __init__(self, net: ManyMasks, laws: ColumnLaws) -> None:
        super().__init__()
        self.net, self.laws = net, laws

    def forward(self, context: Tensor | None = None, masks: list[int] | None = None) -> Chain:
        """Event shape (D,), batch shape () or (n,)."""
        return Chain(self.net, self.laws, context, masks)
