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
from densekit.codecs.ondisk import RowsOnDisk
from densekit.codecs.parquet import ParquetRows
from densekit.codecs.schema import Schema
from densekit.codecs.space import DataDistribution
from densekit.codecs.weights import read_weights
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
    """A generative model as a scikit-learn estimator. Abstract: a model says what it can do
    (``_capabilities``), how it learns (``_fit``) and what it learned (``_distribution``).

    Attributes
    ----------
    density_kind_ : {"exact", "lower_bound", "estimate", "none"}
        What ``score_samples`` returns.
    base_measure_ : {"lebesgue", "counting", "product"}
        What it is a density over.
    built_with_ : dict
        The parameters that ``fit`` made the model with. Those of drawing and scoring act when they are
        set; any other that was set since is a UserWarning where the model is used, and waits for the
        next ``fit``.
    """

    _relaxes_itself: ClassVar[bool] = False
    """Whether ``_fit`` dequantizes; else a relaxed model is given events that were dequantized once."""
    _instead_of_y: ClassVar[str] = ""
    """What to do where a y is a mistake: ends the error. Empty where a y is ignored."""
    _learns_in_batches: ClassVar[bool] = False
    """Whether ``_fit`` takes ``EncodedRows``, which are read from disk, for events too."""
    _kind_if_inexact: ClassVar[DensityKind] = "lower_bound"
    """Kind of the rows of which a distribution says that their score is not exact."""

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
        """What was learned, as a distribution over events; batch shape (n,) with n contexts."""

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
            As in all of scikit-learn's estimators without targets; an error of `Seq2Seq`.
        context : array, DataFrame, list of column names of X, list of prompts or of sources
            Learn p(x given context) instead; only models whose capabilities say so.
        sample_weight : array of shape (n,), optional
            How much each row counts; 2 counts like the row twice, and 0 as if it were not there. Only
            models whose capabilities say so.

        Raises
        ------
        ValueError, TypeError
            Naming the parameter or column, its value and the remedy. The estimator is then as it
            was before the call.
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
        """Log-density of each row: nats, natural logarithm, in the units of X.

        Returns
        -------
        scores : (n,), in ``dtype``
            ``density_kind_`` says whether exact, a bound or an estimate; -inf outside the support.
        std : (n,), only with ``return_std``
            Standard error of each score; zeros where exact.
        info : DataFrame, only with ``return_info``, in place of ``std``
            ``std``, ``kind`` and ``effective_sample_size`` of each row: what its score is, where that
            differs from row to row, and how many equal weights the draws behind it are worth. NaN
            where there are none, or they have no weights.
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
        import pandas as pd

        kind = np.full(len(scores), self.density_kind_, dtype=object)
        sizes, exact = more
        kind[exact == 1], kind[exact == 0] = "exact", self._kind_if_inexact
        return scores, pd.DataFrame(
            {"std": std, "kind": kind, "effective_sample_size": sizes.astype(np.float64)}
        )

    @available_if(_has_density)
    def score(
        self, X: Any, y: Any = None, *, context: Any = None, sample_weight: Any = None
    ) -> float:
        """Mean of ``score_samples`` over the rows of X, in nats; with ``sample_weight`` (n,) the
        weighted mean, in which a row of weight zero does not count, whatever its score."""
        scores = np.asarray(self.score_samples(X, context=context), dtype=np.float64)
        if sample_weight is None:
            return float(scores.mean())
        weights = read_weights(sample_weight, len(scores))
        return float(np.average(scores[weights > 0], weights=weights[weights > 0]))

    def sample(self, n_samples: int = 1, *, context: Any = None, random_state: Any = None) -> Any:
        """Draw rows like those that ``fit`` saw: same container, columns, dtypes and shape.

        Parameters
        ----------
        n_samples : int
        context : like the context of ``fit``, optional
            One row, for all draws, or as many as draws; several rows and ``n_samples=1`` give one
            draw each.
        random_state : int, RandomState, Generator or None
            Its own seed: None draws anew at every call.
        """
        self._check_fitted()
        check_integer("n_samples", n_samples, 1)
        kind = self._context
        given = kind.check_for_draws(kind.take(context))
        encoded = self._encode_context(given, None)
        if encoded is not None:
            m = len(encoded)
            n_samples = m if n_samples == 1 else n_samples
            if m not in (1, n_samples):
                raise ValueError(
                    f"context has {m} rows and n_samples is {n_samples}: give one context row for "
                    "all draws, or one per draw"
                )
            encoded = encoded.expand(n_samples, *encoded.shape[1:])
        device = torch.device(self.device_)
        with torch.no_grad(), seeded(resolve_seed(random_state), device):
            typed = torch.cat(list(self._sample_events(int(n_samples), encoded)))
        return kind.join(self.codec_.decode(typed), given, int(n_samples))

    @property
    def measure_(self) -> codecs.Measure:
        """What a score is a density over, column by column. Scores compare where ``density_kind_`` and
        ``measure_`` are equal."""
        check_is_fitted(self)
        return self.schema_.measure

    def describe_columns(self) -> "pd.DataFrame":
        """What ``fit`` knows of the columns of a table, a row for each: kind, support, step, atoms and
        levels, in values of the data, and the measure of its scores.

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
        """The fitted density as a Pyro distribution: over the rows of X for a table of numbers
        only, else over typed events (codes, token ids; ``schema_`` says what they mean).

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
        """Standard normal noise to rows of X, of a table of real numbers; AttributeError of a density
        that is not made of a transform. Under a context it is ``condition(context).from_noise``.

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
        """The Pyro distribution given one or n rows of context: batch shape (n,)."""
        self._check_fitted()
        given = self._context_of_draws(context)
        if given is None:
            raise ValueError("condition needs a context; without one use distribution_")
        events = self._over_typed(given)
        return DataDistribution.wrap(events, self.schema_, self._torch_dtype)

    def save(self, path: str | Path) -> None:
        """Write the fitted estimator to one file, without anything executable in it.

        The file has a few rows drawn from the model with their scores, which are checked when it is
        loaded. A crash leaves the file that was there or the new one, and never half of one.
        Callbacks and random generators are left out. So are functions that the model is made of,
        which :func:`densekit.load` must then be given.

        Raises
        ------
        TypeError
            A class that is not at the top of a module, so that its name does not lead to it.

        Warns
        -----
        UserWarning
            The model can be neither drawn from nor scored, or only at great cost: the file then
            holds no rows to check.

        See Also
        --------
        densekit.load
        """
        saving.save(self, path)

    # From fit to the model's hook.

    @contextlib.contextmanager
    def _undone_on_failure(self) -> Iterator[None]:
        """Give the estimator back the attributes that it had, where the ``with`` block raises."""
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
                "sample_weight is zero in all rows of X but one: a density needs at least 2 rows of "
                "positive weight"
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
