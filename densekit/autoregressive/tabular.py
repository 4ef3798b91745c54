"""Mixed tables in any order of their columns."""

import warnings
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

import torch
from pyro.distributions import TorchDistribution
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from densekit.base import Capabilities
from densekit.codecs.conditions import read_conditions
from densekit.codecs.laws import laws_of
from densekit.codecs.schema import Schema
from densekit.distributions.anyorder import AnyOrder
from densekit.distributions.columnwise import warn_of_many_categories
from densekit.distributions.spiked import SpikedLaws
from densekit.nets.mlp import ACTIVATIONS
from densekit.nets.observed import ObservedNet
from densekit.nets.orders import draw_orders
from densekit.neural import Events, NeuralDensity
from densekit.params import Interval, OneOf


class TabularAutoregressive(NeuralDensity):
    r"""One network for every order of the columns: mixed rows, missing cells, any columns given.

    The network reads whichever columns are known, and puts out the law of each of the others (Uria,
    Murray and Larochelle, A Deep and Tractable Density Estimator, 2014; Hoogeboom et al.,
    Autoregressive Diffusion Models, 2022). It minimises, over random orders :math:`\sigma` and places
    k in them,

    .. math:: E_{\sigma, k} \frac{D}{D - k} \sum_{d > k}
              -\log p(x_{\sigma(d)} \mid x_{\sigma(1)}, \dots, x_{\sigma(k)})
              = E_\sigma[-\log p_\sigma(x)]

    and a score is :math:`\log \frac{1}{S} \sum_s p_{\sigma_s}(x)` over ``n_orders`` = S fixed orders. It
    is exact, in nats per row in the units of X: a mass over categories, integers and atoms, a density
    over other numbers. Integers that a hundredth of ``atom_share`` of the rows share (thirty at least)
    have a mass of their own on top of that of their neighbors; of integers that come again and again,
    though none is common, all values that ``fit`` saw have one.

    A missing cell (NaN, None, NaT) is marginalised: it is neither known to the network nor scored, in
    ``fit`` and in ``score_samples``. With ``given`` columns the others are scored given these, and
    ``sample`` takes any columns as a context: they come first in every order. The conditionals of
    different orders come from one network and agree only as far as it has learnt: the score of some
    cells is the density of the same order with the others at its end.

    Parameters
    ----------
    hidden_sizes : tuple of int
        Hidden layers; neighbours of equal width are joined by a residual sum.
    n_orders : int
        S. A score costs S passes for each column, a draw one; the first order is that of the columns,
        the others are random.
    n_components : int
        Logistics of each mixture.
    activation : str
        See `densekit.nets.mlp.ACTIVATIONS`.
    dropout : float
        Probability with which a hidden unit is left out while training.
    min_scale : float
        Smallest scale of a component, in standard deviations of the column.

    Notes
    -----
    Events are vectors (E,). Cells are taken to be missing at random: whether they are says nothing
    that the other cells do not say. Text and images are other models' affair.

    Warns
    -----
    UserWarning
        Before the memory is taken that a column of more than 10,000 categories needs.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from densekit import TabularAutoregressive
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame({"sex": rng.choice(["f", "m"], 200), "height": rng.normal(170, 9, 200)})
    >>> X.loc[:9, "height"] = np.nan
    >>> est = TabularAutoregressive(hidden_sizes=(16,), max_steps=5, random_state=0).fit(X)
    >>> est.score_samples(X, given=["sex"]).shape, est.density_kind_, est.base_measure_
    ((200,), 'exact', 'product')
    >>> drawn = est.sample(50, context={"sex": "f", "height": (160, 170)}, random_state=0)
    >>> set(drawn["sex"]), bool(drawn["height"].between(160, 170).all())
    ({'f'}, True)
    """

    hidden_sizes: Annotated[tuple[int, ...], Interval(ge=1)] = (256, 256, 256)
    n_orders: Annotated[int, Interval(ge=1)] = 4
    n_components: Annotated[int, Interval(ge=1)] = 8
    activation: Annotated[str, OneOf(*sorted(ACTIVATIONS))] = "silu"
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.1
    min_scale: Annotated[float, Interval(gt=0)] = 1e-3

    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact", view="typed", modalities=("table",), missing=True
    )
    _instead_of_context: ClassVar[str] = (
        "fit(X) without one, then score_samples(X, given=[columns]) and sample(n, context={column: "
        "value}) condition on any columns"
    )
    _seen_as = None  # the distribution of an estimator that stands in for this one

    def _build(self, schema: Schema, context_schema: Schema | None) -> nn.Module:
        laws = SpikedLaws(
            **laws_of(schema, common=True),
            n_components=self.n_components,
            min_scale=self.min_scale,
        )
        net = ObservedNet(
            laws.reads,
            laws.n_params,
            self.hidden_sizes,
            self.activation,
            self.dropout,
            laws.start(),
        )
        orders = draw_orders(laws.n_dims, list(range(laws.n_dims)), self.n_orders)
        return TabularModule(net, laws, orders)

    def _fit(self, events: Events, context: Tensor | None) -> None:
        batch = max(self.batch_size, self._capabilities.score_batch)
        warn_of_many_categories(self.schema_.columns, batch, self._torch_dtype)
        super()._fit(events, context)

    def _loss(self, module: Any, events: Tensor, context: Tensor | None) -> Tensor:
        """An estimate of minus the mean log-density under a random order, from one pass."""
        return -module.weighed(events).mean()

    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        return self._seen_as or super()._distribution(context)

    def _as(self, distribution: AnyOrder, codec: Any) -> Self:
        """This estimator with another distribution and codec: light, and for one call."""
        other = object.__new__(type(self))
        other.__dict__.update(vars(self), _seen_as=distribution, codec_=codec)
        return other

    def score_samples(
        self,
        X: Any,
        *,
        context: Any = None,
        given: Sequence[Any] | None = None,
        return_std: bool = False,
    ) -> Any:
        """Log-density of each row, or of the rest of it given some columns.

        Parameters
        ----------
        X : rows
            Missing cells (NaN, None, NaT) are marginalised, given ones too.
        context : None
            There is none; see ``given``.
        given : list of column names, or of column numbers of an array, optional
            Score the other columns given these: log p(others | given), in the units of the others.
        return_std : bool
            Also return the standard errors, which are zero.

        Raises
        ------
        ValueError
            ``given`` names a column that is not there, or all of them; or a row's value in a given
            column is one that ``fit`` did not see, so that there is nothing to condition on.
        """
        if given is None or context is not None:
            return super().score_samples(X, context=context, return_std=return_std)
        check_is_fitted(self)
        numbers = self.codec_.numbers(given, "given")
        if len(numbers) == len(self.schema_.varying):
            raise ValueError(
                f"given={list(given)!r} has all columns that vary: nothing is left to score"
            )
        twin = self._as(self.module_(given=numbers), self.codec_.given(given))
        return twin.score_samples(X, return_std=return_std)

    def sample(
        self,
        n_samples: int = 1,
        *,
        context: Any = None,
        random_state: Any = None,
        return_info: bool = False,
    ) -> Any:
        """Draw rows like those that ``fit`` saw, without missing cells.

        Parameters
        ----------
        n_samples : int
        context : mapping, optional
            What columns are: ``{"sex": "Female", "age": (30, 40), "race": ["Black", "White"]}``. A value
            is fixed, and a tuple is an interval, both ends included (None: open); a list is some
            values to choose from. Rows are exact draws under all values and one interval or list.
            Further ones go by importance weighting (`densekit.distributions.anyorder`).
        random_state : int, RandomState, Generator or None
            Its own seed: None draws anew at every call.
        return_info : bool
            Also return ``{"effective_sample_size": ...}``.

        Raises
        ------
        TypeError, ValueError
            See `densekit.codecs.conditions.read_conditions`.

        Warns
        -----
        UserWarning
            The effective sample size is below ``n_samples``: the intervals and lists hardly ever come
            together, and draws repeat each other in these columns.
        """
        if context is None:
            rows = super().sample(n_samples, random_state=random_state)
            return (rows, {"effective_sample_size": float(n_samples)}) if return_info else rows
        check_is_fitted(self)
        asked = read_conditions(self.codec_, context)
        distribution = self.module_(conditions=asked.entries)
        twin = self._as(distribution, self.codec_.given((), asked.ends))
        rows = super(TabularAutoregressive, twin).sample(n_samples, random_state=random_state)
        size = distribution.effective_sample_size
        if size < n_samples:
            warnings.warn(
                f"the conditions {context!r} hardly ever come together: {n_samples} draws have an "
                f"effective sample size of {size:.1f}; draw under fewer or wider ones",
                UserWarning,
                stacklevel=2,
            )
        return (rows, {"effective_sample_size": size}) if return_info else rows


class TabularModule(nn.Module):
    """A network, what its numbers mean, and the orders in which rows are scored."""

    orders: Tensor

    def __init__(self, net: ObservedNet, laws: SpikedLaws, orders: Tensor) -> None:
        super().__init__()
        self.net, self.laws = net, laws
        self.register_buffer("orders", orders)

    def forward(
        self,
        context: Tensor | None = None,
        given: Sequence[int] = (),
        conditions: dict[int, Any] | None = None,
    ) -> AnyOrder:
        """Event shape that of the laws, batch shape ()."""
        return AnyOrder(self.net, self.laws, self.orders, given, conditions)

    def weighed(self, events: Tensor) -> Tensor:
        """For each event (N, D) an unbiased estimate of its log-density under a random order, (N,): the
        cells after a random place of the order, each given those before the place."""
        x = events.t().contiguous()
        present = self.laws.present(x)
        x = torch.where(x.isnan(), 0.0, x)
        n_cells = present.sum(0)
        u = torch.rand_like(present, dtype=x.dtype)
        place = u.masked_fill(~present, 2.0).argsort(0).argsort(0)
        # Places are spread evenly over the batch, whose rows are shuffled.
        spread = (torch.arange(x.shape[1], device=x.device) + torch.rand_like(x[0])) / x.shape[1]
        k = (spread * n_cells).long().clamp_max(n_cells - 1)
        known = present & (place < k)
        logp = self.laws.log_prob(self.net(self.laws.read_all(x), known), x, left_out=True)
        rest = torch.where(present & ~known, logp, 0.0).sum(0)
        return rest * n_cells / (n_cells - k).clamp_min(1)
