"""The estimator contract: fit, sample, score_samples, score, save, once for every model."""

import contextlib
import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch.distributions import Transform

from densekit import clock, codecs, saving, scoring
from densekit.codecs.dequantized import Dequantized
from densekit.codecs.schema import Schema
from densekit.codecs.space import DataDistribution
from densekit.codecs.weights import read_weights
from densekit.containers import ParquetRows, RowsOnDisk
from densekit.contexts import one_per_draw
from densekit.distributions.montecarlo import Scores, scores_of
from densekit.params import check_integer, check_parameters
from densekit.rows import TakesRows
from densekit.runtime import padded, resolve_device, resolve_seed, seeded
from densekit.tags import Capabilities as Capabilities
from densekit.tags import DensityKind, DensityTags

if TYPE_CHECKING:
    import pandas as pd


def _has_density(estimator: "DensityEstimator") -> bool:
    if estimator._capabilities.scores:
        return True
    raise AttributeError(
        f"{type(estimator).__name__} has no density, so it cannot score. Compare samples instead "
        "(densekit.metrics), or fit a model whose densekit.capabilities(...).scores is True."
    )


class DensityEstimator(TakesRows, ABC):
    """Abstract base class of generative models as scikit-learn estimators.

    A model defines ``_capabilities``, what it can do; ``_fit``, how it learns; and ``_distribution``,
    the fitted distribution.

    Attributes
    ----------
    density_kind_ : {"exact", "lower_bound", "estimate", "none"}
        Kind of the scores of ``score_samples``.
    base_measure_ : {"lebesgue", "counting", "product"}
        Measure that the scores are densities with respect to.
    built_with_ : dict
        Parameters of the last ``fit``. Parameters of drawing and scoring take effect when they are set.
        Other parameters that are set after ``fit`` cause a UserWarning when the model is used, and
        take effect in the next ``fit``.
    """

    _relaxes_itself: ClassVar[bool] = False
    """Whether ``_fit`` dequantizes; otherwise a relaxed model gets events that are dequantized once."""
    _instead_of_y: ClassVar[str] = ""
    """Remedy in the error for a y that is a mistake; empty if a y is ignored."""
    _learns_in_batches: ClassVar[bool] = False
    """Whether ``_fit`` also accepts ``EncodedRows``, events that are read from disk."""
    _kind_if_inexact: ClassVar[DensityKind] = "lower_bound"
    """Kind of scores that the distribution reports as not exact."""

    if TYPE_CHECKING:
        # Set by fit. Declared for type checkers only, so that the constructor does not take them.
        density_kind_: DensityKind = dataclasses.field(init=False)
        base_measure_: str = dataclasses.field(init=False)

    # What a model file provides.

    @abstractmethod
    def _fit(self, events: Any, context: Tensor | None) -> None:
        """Learn from events (n, \\*event_shape); set attributes with a trailing underscore.

        Where the capabilities have ``weights`` it is ``_fit(events, context, weights=None)``: the
        weights of the rows, (n,) in float64 and all positive, or None where all are one.
        """

    @abstractmethod
    def _distribution(self, context: Tensor | None) -> TorchDistribution:
        """The fitted distribution over events, with batch shape (n,) given n contexts."""

    # What users call.

    def fit(
        self, X: Any, y: Any = None, *, context: Any = None, sample_weight: Any = None
    ) -> Self:
        """Learn the density of the rows of X.

        Parameters
        ----------
        X : array, DataFrame, images or list of str
            A ``pyarrow.parquet.ParquetFile``, a ``pyarrow.dataset`` of such files and a
            ``numpy.memmap`` of numbers are not loaded by models that train by batches.
        y : ignored
            Present for compatibility with scikit-learn. `Seq2Seq` raises an error.
        context : array, DataFrame, list of column names of X, list of prompts or of sources
            Learn p(x | context) instead. Only for models with a kind of context.
        sample_weight : array of shape (n,), optional
            Weights of the rows: a weight of 2 has the effect of a repeated row, and 0 that of a missing
            one. Only for models with the capability ``weights``.

        Raises
        ------
        ValueError, TypeError
            The message names the parameter or column, its value and the remedy. The estimator is
            unchanged.
        """
        if y is not None and self._instead_of_y:
            raise ValueError(f"{type(self).__name__} takes no y; {self._instead_of_y}")
        with self._undone_on_failure(), clock.running():
            self._fit_rows(X, context, sample_weight)
        return self

    @available_if(_has_density)
    def score_samples(
        self, X: Any, *, context: Any = None, return_std: bool = False, return_info: bool = False
    ) -> Any:
        """Compute the log-density of each row, in nats and in the units of X.

        Returns
        -------
        scores : (n,), in ``dtype``
            Exact, a bound or an estimate, see ``density_kind_``; -inf outside the support.
        std : (n,), only with ``return_std``
            Standard error of each score; zeros where exact.
        info : DataFrame, only with ``return_info``, in place of ``std``
            For each row ``std``; ``kind``, the kind of its score; and ``effective_sample_size``, the
            number of equally weighted draws with the precision of those behind the score, NaN if the
            score uses no weighted draws.
        """
        self._check_fitted()
        X = codecs.for_scoring(X)
        if (pieces := ParquetRows.of(X)) is not None:
            found = scoring.score_pieces(self, pieces, context, return_info)
        else:
            X, context = self._check_rows(X, context, reset=False)
            encoded = self._encode_context(context, codecs.n_rows(X))
            found = scoring.score_rows(self, X, encoded, return_info)
        scores, std, *more = found
        if not return_info:
            return (scores, std) if return_std else scores
        return scores, scoring.describe_scores(self, std, *more)

    @available_if(_has_density)
    def score(
        self, X: Any, y: Any = None, *, context: Any = None, sample_weight: Any = None
    ) -> float:
        """Compute the mean log-density of the rows of X, in nats.

        With ``sample_weight`` (n,) it is the weighted mean, without rows of weight zero."""
        scores = np.asarray(self.score_samples(X, context=context), dtype=np.float64)
        if sample_weight is None:
            return float(scores.mean())
        weights = read_weights(sample_weight, len(scores))
        return float(np.average(scores[weights > 0], weights=weights[weights > 0]))

    def sample(self, n_samples: int = 1, *, context: Any = None, random_state: Any = None) -> Any:
        """Draw rows with the container, columns, dtypes and shape of the rows of ``fit``.

        Parameters
        ----------
        n_samples : int
        context : like the context of ``fit``, optional
            One row for all draws, or one row per draw. With ``n_samples=1``, several rows give one
            draw each.
        random_state : int, RandomState, Generator or None
            Seed of the draws; None draws differently in every call.
        """
        self._check_fitted()
        check_integer("n_samples", n_samples, 1)
        kind = self._context
        given = kind.check_for_draws(kind.take(context))
        encoded = self._encode_context(given, None)
        if encoded is not None:
            encoded = one_per_draw(encoded, n_samples)
            n_samples = len(encoded)
        device = torch.device(self.device_)
        with torch.no_grad(), seeded(resolve_seed(random_state), device):
            typed = torch.cat(list(self._sample_events(int(n_samples), encoded)))
        return kind.join(self.codec_.decode(typed), given, int(n_samples))

    @property
    def measure_(self) -> codecs.Measure:
        """Measure of the scores, column by column. Scores are comparable if ``density_kind_`` and
        ``measure_`` are equal."""
        check_is_fitted(self)
        return self.schema_.measure

    def describe_columns(self) -> "pd.DataFrame":
        """Describe the columns of a table, one row each: kind, support, step, atoms and levels in
        values of the data, and the measure of the scores.

        >>> import numpy as np
        >>> from densekit import Gaussian
        >>> Gaussian().fit(np.arange(40.0).reshape(20, 2)).describe_columns()["step"].tolist()
        [2, 1]
        """
        check_is_fitted(self)
        if self.schema_.modality != "table":
            raise AttributeError(f"{self.schema_.modality} data has no columns to describe")
        frame = self.codec_.description.to_frame()
        frame["measure"] = [str(c) for c in self.measure_.columns]
        return frame

    @property
    def distribution_(self) -> TorchDistribution:
        """The fitted density as a Pyro distribution.

        For a table of numbers it is over the rows of X, otherwise over typed events (see ``schema_``).

        >>> import pyro, numpy as np
        >>> from densekit import Gaussian
        >>> est = Gaussian().fit(np.random.default_rng(0).normal(size=(50, 2)))
        >>> pyro.sample("x", est.distribution_).shape
        torch.Size([2])
        """
        self._check_fitted()
        if self.context_codec_ is not None and not self._context.optional:
            raise AttributeError(
                f"this {type(self).__name__} was fitted with a context: it is one distribution per "
                "context; use condition(context)"
            )
        return DataDistribution.wrap(self._over_typed(None), self.schema_, self._torch_dtype)

    @property
    def transform_(self) -> Transform:
        """Transform from standard normal noise to rows of X, for flows of tables of real numbers.

        Other densities raise an AttributeError. Given a context, the transform is
        ``condition(context).from_noise``.

        >>> import numpy as np
        >>> from densekit import Gaussian
        >>> est = Gaussian().fit(np.random.default_rng(0).normal(5, 1, size=(50, 2)))
        >>> est.transform_(torch.zeros(2)).numpy().round(3).tolist() == est.mean_.round(3).tolist()
        True
        """
        law = self.distribution_
        if not isinstance(law, DataDistribution):
            raise AttributeError("transform_ exists for tables of real numbers without atoms only")
        return law.from_noise

    def condition(self, context: Any) -> TorchDistribution:
        """The Pyro distribution given n rows of context, with batch shape (n,)."""
        self._check_fitted()
        given = self._context_of_draws(context)
        if given is None:
            raise ValueError("condition needs a context; without one use distribution_")
        return DataDistribution.wrap(self._over_typed(given), self.schema_, self._torch_dtype)

    def save(self, path: str | Path) -> None:
        """Write the fitted estimator to one file, which holds no executable code.

        The file has a few rows drawn from the model with their scores, which :func:`densekit.load`
        checks. Writing is atomic. Callbacks, random generators and functions that the model is made of
        are left out; such functions must be passed to :func:`densekit.load`.

        Raises
        ------
        TypeError
            The class is not defined at the top level of a module, so it cannot be found by name.

        Warns
        -----
        UserWarning
            The model cannot be sampled or scored, or only at great cost, so the file has no rows to
            check.

        See Also
        --------
        densekit.load
        """
        saving.save(self, path)

    # From fit to the model's hook.

    @contextlib.contextmanager
    def _undone_on_failure(self) -> Iterator[None]:
        """Restore the attributes of the estimator if the ``with`` block raises."""
        before = dict(vars(self))
        try:
            yield
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise

    def _forget_fit(self) -> None:
        """Delete the attributes that an earlier ``fit`` set."""
        for name in [k for k in vars(self) if k.endswith("_") and not k.startswith("_")]:
            delattr(self, name)

    def _fit_rows(self, X: Any, context: Any, sample_weight: Any) -> None:
        """Check rows, context and weights, learn their codecs, and fit the model to the events."""
        check_parameters(self)
        self._check_takes_weights(sample_weight)
        self._forget_fit()
        device, seed = resolve_device(self.device), resolve_seed(self.random_state)
        self.device_, self.dtype_ = str(device), self.dtype
        codec, rows, context = self._rows_and_codec(X, context)
        rows, context, weights = self._weigh(rows, context, sample_weight)
        if weights is not None and len(weights) < 2:
            raise ValueError(
                "sample_weight is zero in all rows of X but one: at least 2 need a positive weight"
            )
        options = self._context.options(context)
        if weights is not None and "weights" in inspect.signature(codec.fit).parameters:
            options["weights"] = weights
        self.codec_ = codec.fit(rows, **options)
        self.schema_ = codec.schema.flat() if self._capabilities.flat else codec.schema
        with self._encoded(codec, rows) as typed:
            n = len(typed)
            if context is not None:
                self.context_codec_ = self._context.learn(context, n, weights)
            encoded = self._encode_context(context, n)
            with seeded(seed, device):
                self._fit(self._events_to_fit(typed), encoded, *self._weights(weights))
        self.__dict__.update(saving.in_row_order(vars(self)))
        self._record_parameters()
        # Last, since they say that it is fitted.
        self.base_measure_ = self.schema_.base_measure
        self.density_kind_ = self._kind_of_scores(self.schema_)

    def _rows_and_codec(self, X: Any, context: Any) -> tuple[codecs.Codec, Any, Any]:
        """A new codec for the rows of X, the rows, and their context apart from them. Rows on disk
        stay there where the model learns in batches."""
        in_pieces = ParquetRows.of(X) if self._learns_in_batches else None
        on_disk = RowsOnDisk.of(X) if self._learns_in_batches else None
        X = X if in_pieces is None else in_pieces.head()
        X, context = self._check_rows(X, context, reset=True)
        codec = self._codec_for(X)
        if in_pieces is not None:
            if self.context_names_:
                context = in_pieces.only(self.context_names_).read()
            return codec, in_pieces.without(self.context_names_), context
        if on_disk is not None and codec.modality == "table":
            return codec, on_disk, context
        return codec, X, context

    def _events_to_fit(self, typed: Any) -> Any:
        """Events for ``_fit``, dequantized where a relaxed model does not do that itself."""
        events = self._events(typed)
        relaxes = self._capabilities.view == "relaxed" and not self._relaxes_itself
        # Noise that nothing needs would move the seed on by the number of rows.
        if relaxes and self.schema_.quantized.any():
            events, _ = self.schema_.relax(events, torch.rand_like(events))
        return events

    def _kind_of_scores(self, schema: Schema) -> DensityKind:
        kind = self._capabilities.density
        dequantized = self._capabilities.view == "relaxed" and bool(schema.quantized.any())
        return "lower_bound" if kind == "exact" and (dequantized or not schema.exact) else kind

    # Scoring and sampling in batches.

    def _over_typed(self, context: Tensor | None) -> TorchDistribution:
        """What was learned, over typed events: what is scored, drawn from, and handed out."""
        dist = self._as_fitted()._distribution(context)
        if self._capabilities.view == "relaxed" and self.schema_.quantized.any():
            return Dequantized(dist, self.schema_, self.dequantization_draws)
        return dist

    def _score_events(self, typed: Tensor, context: Tensor | None) -> Iterator[Scores]:
        """Scores of successive batches."""
        batch = self._capabilities.score_batch
        shared = self._over_typed(None) if context is None else None
        for i in range(0, len(typed), batch):
            n = len(typed[i : i + batch])
            given = None if context is None else padded(context[i : i + batch])
            dist = self._over_typed(given) if shared is None else shared
            found = scores_of(dist, padded(typed[i : i + batch]))
            yield Scores(*(None if v is None else v[:n] for v in found))  # type: ignore[arg-type]

    def _sample_events(self, n: int, context: Tensor | None) -> Iterator[Tensor]:
        batch = self._capabilities.sample_batch
        shared = self._over_typed(None) if context is None else None
        for i in range(0, n, batch):
            m = min(batch, n - i)
            given = None if context is None else context[i : i + m]
            dist = self._over_typed(given) if shared is None else shared
            events = dist.sample((m,) if given is None else ())
            if events.is_floating_point():
                events = events.double().reshape(m, *self.codec_.schema.event_shape)
            yield events.cpu()

    def __sklearn_is_fitted__(self) -> bool:
        return "density_kind_" in vars(self)

    def __sklearn_tags__(self) -> DensityTags:
        return DensityTags.beside(super().__sklearn_tags__(), self._capabilities)
