"""Autoregressive density of mixed tables over all orders of the columns."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from densekit import codecs
from densekit.base import Capabilities
from densekit.codecs.conditions import read_conditions, settle
from densekit.codecs.filling import combine, fill, read_row_per_draw, read_rows
from densekit.codecs.labels import by_label
from densekit.codecs.laws import laws_of
from densekit.codecs.schema import Schema
from densekit.containers import container_of
from densekit.distributions.anyorder import AnyOrder
from densekit.distributions.columnwise import warn_of_many_categories
from densekit.distributions.rarity import warn_if_rare
from densekit.distributions.spiked import SpikedLaws
from densekit.distributions.tabular import TabularModule
from densekit.nets.mlp import ACTIVATIONS
from densekit.nets.observed import ObservedNet
from densekit.nets.orders import draw_orders
from densekit.neural import Events, NeuralDensity
from densekit.params import Interval, OneOf, check_integer
from densekit.runtime import resolve_seed, seeded
from densekit.tags import DensityKind

_UNLIKELY = math.log(1e-6)
"""Log-probability of a condition below which ``sample`` warns."""
_PIECE = 2**16
"""Rows summarized at a time."""


class TabularAutoregressive(NeuralDensity):
    r"""Order-agnostic autoregressive density of mixed tables, also with missing or given cells.

    The network reads the known columns and outputs the conditional distribution of each other column
    (Uria, Murray and Larochelle, `A Deep and Tractable Density Estimator
    <https://arxiv.org/abs/1310.1757>`_, 2014; Hoogeboom et al., `Autoregressive Diffusion Models
    <https://arxiv.org/abs/2110.02037>`_, 2022). It minimizes, over random orders :math:`\sigma` and
    positions k,

    .. math:: E_{\sigma, k} \frac{D}{D - k} \sum_{d > k}
              -\log p(x_{\sigma(d)} \mid x_{\sigma(1)}, \dots, x_{\sigma(k)})
              = E_\sigma[-\log p_\sigma(x)]

    and a score is :math:`\log \frac{1}{S} \sum_s p_{\sigma_s}(x)` over ``n_orders`` = S fixed orders. It
    is exact for a full row, in nats in the units of X: a mass over categories, integers and atoms, a
    density over other numbers. Integers that a hundredth of ``atom_share`` of the rows share (thirty at
    least) have a mass of their own on top of that of their neighbors; of integers that come again and
    again, though none is common, all values that ``fit`` saw have one.

    A missing cell (NaN, None, NaT) is neither known to the network nor scored in ``fit``. In a score it
    is integrated out of the density of full rows, and columns that are ``given`` make it
    :math:`\log p(x) - \log p(x_{given})`: exactly where only one cell is missing, or only a few
    categories, else by importance sampling with a standard error (``return_info=True``). The
    network's own law of some cells given others would be another one, since its conditional laws agree
    only as far as it has learned: ``method="network"`` scores and draws by it, faster. ``sample`` takes
    any columns as a context, and ``impute`` fills what is missing.

    Parameters
    ----------
    hidden_sizes : tuple of int
        Hidden layers; neighbors of equal width are joined by a residual sum.
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
    n_draws : int
        Draws behind the score of a row with several missing cells, in each order.

    Attributes
    ----------
    event_range_ : array (2, D)
        Smallest and largest entry of each column of an event, without atoms.
    exact_rows_ : bool
        Whether the scores of all rows of ``fit`` are exact.

    Notes
    -----
    Events are vectors (E,). Cells are assumed to be missing at random, given the other cells.

    Warns
    -----
    UserWarning
        A column has more than 10,000 categories, and needs the stated memory.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from densekit import TabularAutoregressive
    >>> rng = np.random.default_rng(0)
    >>> X = pd.DataFrame({"sex": rng.choice(["f", "m"], 200), "height": rng.normal(170, 9, 200)})
    >>> X.loc[:9, "height"] = np.nan
    >>> est = TabularAutoregressive(hidden_sizes=(16,), max_steps=5, random_state=0).fit(X)
    >>> est.score_samples(X, given=["sex"]).shape, est.density_kind_, est.base_measure_
    ((200,), 'lower_bound', 'product')
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
    n_draws: Annotated[int, Interval(ge=2)] = 64

    _at_once: ClassVar[tuple[str, ...]] = ("n_orders", "n_draws")
    _capabilities: ClassVar[Capabilities] = Capabilities(
        density="exact", view="typed", modalities=("table",), missing=True, weights=True
    )
    _instead_of_context: ClassVar[str] = (
        "fit(X) without one, then score_samples(X, given=[columns]) and sample(n, context={column: "
        "value}) condition on any columns"
    )
    _law_of_call = None  # the distribution of an estimator that stands in for this one

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

    def _fit(self, events: Events, context: Tensor | None, weights: Tensor | None = None) -> None:
        batch = max(self.batch_size, self._capabilities.score_batch)
        warn_of_many_categories(self.schema_.columns, batch, self._torch_dtype)
        super()._fit(events, context, weights)

    def _after_training(self, events: Events, *, continued: bool) -> None:
        pieces = events.split(_PIECE) if isinstance(events, Tensor) else events.pieces()
        found = [self.module_.summary(piece) for piece in pieces]
        before: Any = vars(self).get("event_range_") if continued else None
        if before is not None:  # A warm start goes on from other rows.
            found.append((before[0], before[1], vars(self)["exact_rows_"]))
        low, high = (np.stack([f[side] for f in found]) for side in (0, 1))
        self.event_range_: np.ndarray = np.stack([np.fmin.reduce(low), np.fmax.reduce(high)])
        self.exact_rows_ = all(f[2] for f in found)

    def _restore(self, weights: dict[str, np.ndarray]) -> None:
        seen = vars(self).get("event_range_")
        shape = (2, len(self.schema_.varying))
        if seen is not None and (not isinstance(seen, np.ndarray) or seen.shape != shape):
            raise ValueError(f"event_range_ is no array of shape {shape}")
        super()._restore(weights)

    def _kind_of_scores(self, schema: Schema) -> DensityKind:
        return "exact" if vars(self).get("exact_rows_", True) else "lower_bound"

    def _loss(self, module: Any, events: Tensor, context: Tensor | None) -> Tensor:
        """An estimate of minus the mean log-density under a random order, from one pass."""
        loss: Tensor = -module.weighed(events)
        return loss

    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        return self._law_of_call or self._law()

    def _law(self, **asked: Any) -> AnyOrder:
        law: AnyOrder = self.module_(draws=self.n_draws, n_orders=self.n_orders, **asked)
        return law

    def _standing_in(self, distribution: AnyOrder, codec: Any) -> Self:
        """A shallow copy with another distribution and codec, for one call."""
        return self._copy_with(_law_of_call=distribution, codec_=codec)

    def score_samples(
        self,
        X: Any,
        *,
        context: Any = None,
        given: Sequence[Any] | None = None,
        method: str = "marginal",
        return_std: bool = False,
        return_info: bool = False,
    ) -> Any:
        r"""Log-density of each row, of the cells that it has, or of the rest of it given some columns.

        Parameters
        ----------
        X : rows
            Missing cells (NaN, None, NaT) are integrated out, given ones too.
        context : None
            There is none; see ``given``.
        given : list of column names, or of column numbers of an array, optional
            Score the other columns given these: :math:`\log p(x) - \log p(x_{given})`, in the units of
            the others.
        method : {"marginal", "network"}
            What is scored where cells are missing, or columns given. ``"marginal"``: marginals of the
            density of full rows, as :mod:`densekit.distributions.marginal` finds them. ``"network"``:
            what the network says of the cells of a row from each other, in the orders of the columns,
            given ones first. That costs what a full row costs, and agrees with the marginals as far as
            the network's conditional laws agree with each other.
        return_std : bool
            Also return the standard errors.
        return_info : bool
            Return ``(scores, info)``; of each row ``info`` has ``std``, ``effective_sample_size`` and
            ``kind``: ``"exact"`` where nothing is missing before a cell that is known, in all orders;
            where what is missing there is summed over; and where it is one number whose integral
            changes by less than 1e-4 nats on half the grid (``std`` is that change). Else
            ``"lower_bound"``, the log of a mean whose expectation is the density, and with ``given``
            ``"estimate"``. With ``"network"``, ``"estimate"`` wherever it is not the marginal.

        Raises
        ------
        ValueError
            ``given`` names a column that is not there, or all of them; or a row's value in a given
            column is one that ``fit`` did not see, so that there is nothing to condition on.
        """
        _check_method(method)
        wanted = {"return_std": return_std, "return_info": return_info}
        if context is not None or (given is None and method == "marginal"):
            return super().score_samples(X, context=context, **wanted)
        check_is_fitted(self)
        given = [] if given is None else given
        numbers = self.codec_.numbers(given, "given")
        if len(numbers) == len(self.schema_.varying):
            raise ValueError(
                f"given={list(given)!r} has all columns that vary: nothing is left to score"
            )
        distribution = self._law(given=numbers, method=method)
        twin = self._standing_in(distribution, self.codec_.given(given))
        if numbers or method == "network":
            twin = twin._copy_with(_kind_if_inexact="estimate")
        return super(TabularAutoregressive, twin).score_samples(X, **wanted)

    def sample(
        self,
        n_samples: int = 1,
        *,
        context: Any = None,
        method: str = "marginal",
        random_state: Any = None,
        return_info: bool = False,
    ) -> Any:
        """Draw rows like those that ``fit`` saw, without missing cells.

        Parameters
        ----------
        n_samples : int
        context : mapping or DataFrame, optional
            A mapping says what columns are in all draws: ``{"sex": "Female", "age": (30, 40), "race":
            ["Black", "White"]}``. A scalar is a value, a tuple an interval, both ends included (None:
            open), and a list a set of values to choose from. A DataFrame has a row of values for each
            draw (or one for all): missing cells and columns are drawn.
        method : {"marginal", "network"}
            The law that draws under a context are of. ``"marginal"``: the density of full rows, given
            the context. Candidates of the network's law are chosen by weight, among four for each
            draw (sixteen where four are worth less than one), or of a DataFrame among sixteen for each
            row: exact as the candidates get many, and nearly where their effective sample size
            is many times the number of draws. ``"network"``: what the network says of the other
            columns, the context's first, as it stands; exact draws of that law under values and one
            interval or list, of further ones by weight among sixteen candidates.
        random_state : int, RandomState, Generator or None
            Its own seed: None draws anew at every call.
        return_info : bool
            Also return a dict: ``effective_sample_size`` of the candidates, of a DataFrame one for each
            row; and, of a mapping, ``log_probability``: of what it asks for, in nats, a density in the
            units of X over the numbers that it fixes.

        Raises
        ------
        TypeError, ValueError
            See `densekit.codecs.conditions.read_conditions`.

        Warns
        -----
        UserWarning
            The intervals and lists have a probability below 1e-6, given the values; a column, given the
            values of the others, has what the context asks of it with a probability (of a value of a
            column of numbers: density per standard deviation) below 1e-6; or what is asked is outside
            the range of all rows of ``fit``. Or the effective sample size is below ``n_samples``: draws
            repeat each other.
        """
        _check_method(method)
        if context is None:
            rows = super().sample(n_samples, random_state=random_state)
            info = {"effective_sample_size": float(n_samples), "log_probability": 0.0}
            return (rows, info) if return_info else rows
        check_is_fitted(self)
        check_integer("n_samples", n_samples, 1)
        seed = resolve_seed(random_state)
        if codecs.is_frame(context):
            rows, size = self._sample_each(n_samples, context, method, seed)
            return (rows, {"effective_sample_size": size}) if return_info else rows
        rows, info = self._sample_under(n_samples, context, method, seed)
        return (rows, info) if return_info else rows

    def _sample_under(
        self, n_samples: int, context: Any, method: str, seed: int
    ) -> tuple[Any, dict[str, float]]:
        """Draws under one mapping, with the values of ``return_info``."""
        asked = read_conditions(self.codec_, context)
        distribution = self._law(conditions=asked.entries, method=method)
        twin = self._standing_in(distribution, self.codec_.given((), asked.ends))
        rows = super(TabularAutoregressive, twin).sample(n_samples, random_state=seed)
        exact = settle(self.codec_, asked, rows, np.random.default_rng(seed))
        if exact:
            all_ = np.zeros(n_samples, bool)
            rows = combine(rows, exact, dict.fromkeys(exact, all_), {k: k for k in exact})
        log_p, size = distribution.log_probability, distribution.effective_sample_size
        reason = distribution.improbable(vars(self).get("event_range_"), _UNLIKELY)
        names = [column.name for column in self.schema_.varying]
        warn_if_rare(context, reason, names, size, n_samples, stacklevel=4)
        log_p += asked.log_jacobian
        return rows, {"effective_sample_size": size, "log_probability": log_p}

    def _sample_each(
        self, n_samples: int, context: Any, method: str, seed: int
    ) -> tuple[Any, np.ndarray]:
        """One draw for each row of a DataFrame, or all of them for its only row."""
        context, events, missing = read_row_per_draw(self.codec_, context, n_samples)
        rows, size = self._complete(events, method, seed)
        labels = getattr(context, "column_names", None) or list(context.columns)
        names = by_label({v: v for v in labels}, self.codec_.labels, "context")
        return combine(rows, context, missing, names), size

    def _complete(self, events: Tensor, method: str, seed: int) -> tuple[Any, np.ndarray]:
        """Events with their missing entries drawn, decoded to rows, and effective sample sizes."""
        with seeded(seed, torch.device(self.device_)):
            found, size = self._law(method=method).complete(events.to(self.device_))
        return self.codec_.decode(found), size.cpu().numpy()

    def impute(self, X: Any, *, method: str = "marginal", random_state: Any = None) -> Any:
        """Fill each missing cell with a draw given the cells that its row has.

        Parameters
        ----------
        X : array or DataFrame
            Rows like those of ``fit``, with missing cells (NaN, None, NaT).
        method : {"marginal", "network"}
            As of :meth:`sample`: for each row one of sixteen candidates is chosen by weight, or there is
            one.
        random_state : int, RandomState, Generator or None

        Returns
        -------
        rows
            As X: the same container, and every cell that was there as it was. Columns with missing
            cells have the dtype that ``fit`` saw; an array has its own.

        Raises
        ------
        TypeError, ValueError
            X is of another container than the rows of ``fit``; a value that ``fit`` did not see, or
            beyond the support of its column.

        Examples
        --------
        >>> import numpy as np
        >>> from densekit import TabularAutoregressive
        >>> X = np.random.default_rng(0).normal(size=(200, 3))
        >>> est = TabularAutoregressive(hidden_sizes=(16,), max_steps=5, random_state=0).fit(X)
        >>> X[:5, 1] = np.nan
        >>> filled = est.impute(X, random_state=0)
        >>> bool(np.isnan(filled).any()), bool((filled[5:] == X[5:]).all())
        (False, True)
        """
        _check_method(method)
        self._check_fitted()
        X, _ = self._check_rows(codecs.for_scoring(X), None, reset=False)
        if container_of(X) != self.codec_.container:
            raise TypeError(
                f"X is of {container_of(X)}, and fit saw rows of "
                f"{self.codec_.container}: convert one of them"
            )
        events, missing = read_rows(self.codec_, X, "X")
        rows, _ = self._complete(events, method, resolve_seed(random_state))
        return fill(X, rows, missing)


def _check_method(method: Any) -> None:
    if method not in ("marginal", "network"):
        raise ValueError(f"method={method!r} must be 'marginal' or 'network'")
