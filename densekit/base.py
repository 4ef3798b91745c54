"""The estimator contract: fit, sample, score_samples, score, save, once for every model."""

import contextlib
import dataclasses
import inspect
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, dataclass_transform

import numpy as np
import torch
from pyro.distributions import TorchDistribution
from sklearn.base import BaseEstimator
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from torch.distributions import Transform

from densekit import clock, codecs, saving
from densekit.codecs.context import ContextCodec, names_columns, part_of, split_columns, texts_of
from densekit.codecs.dequantized import Dequantized, within_reach
from densekit.codecs.ondisk import EncodedRows, RowsInPieces, RowsOnDisk, spooled
from densekit.codecs.parquet import ParquetRows, in_memory
from densekit.codecs.schema import Schema
from densekit.codecs.space import DataDistribution
from densekit.codecs.weights import read_weights, with_weight
from densekit.distributions.montecarlo import Scores, scores_of
from densekit.docstrings import document
from densekit.params import Interval, OneOf, check_integer, check_parameters, same
from densekit.runtime import padded, resolve_device, resolve_dtype, resolve_seed, seeded
from densekit.tags import Capabilities as Capabilities
from densekit.tags import DensityKind, DensityTags

if TYPE_CHECKING:
    import pandas as pd

_CODECS: dict[str, type[codecs.Codec]] = {
    c.modality: c for c in (codecs.TableCodec, codecs.ImageCodec, codecs.TextCodec)
}
_ENCODE_ENTRIES = 2**20
"""Entries encoded at a time when scoring, so that a million rows need no second copy of the data."""


def _has_density(estimator: "DensityEstimator") -> bool:
    if estimator._capabilities.scores:
        return True
    raise AttributeError(
        f"{type(estimator).__name__} has no density, so it cannot score. Compare samples instead "
        "(densekit.metrics), or fit a model whose densekit.capabilities(...).scores is True."
    )


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
@dataclass(kw_only=True, eq=False, repr=False)
class DensityEstimator(BaseEstimator, ABC):
    """A generative model as a scikit-learn estimator. Abstract: a model says what it can do
    (``_capabilities``), how it learns (``_fit``) and what it learned (``_distribution``).

    Parameters
    ----------
    image_shape : tuple of int, optional
        **Data.** (H, W) or (H, W, C): rows of a two-dimensional array are flattened images.
    support : str or mapping, optional
        For all real columns, or by name: ``"real"``, ``"positive"``, ``"nonnegative"``, ``("at_least",
        low)``, ``("at_most", high)``, ``("interval", low, high)``, or ``("circle", low, high)`` for
        angles; integers and datetimes by name. Real unless given, since a value outside the support
        scores -inf, but for a column whose smallest or largest value is an atom, which ends there. An
        end on which a row lies is an atom, and any other end has no mass.
    kinds : mapping, optional
        Column to ``"real"``, ``"integer"``, ``"ordinal"``, ``"categorical"``, ``"boolean"``,
        ``"datetime"`` or ``"date"``, where the dtype does not say it.
    atom_share : float, optional
        A value of a column of numbers or datetimes that at least this share of the rows have, and ten
        rows, is an atom: it has a mass of its own. None looks for none, and for no ends.
    step : mapping, optional
        Column to its step, or to None for no rounding: draws are rounded to the grid on which all rows
        of ``fit`` lie.
    derived : mapping, optional
        Column to the column that it is a function of: it is left out of the model, and draws agree.
    columns : Description, optional
        What :func:`densekit.describe` found in all rows: the columns are then not described anew, so
        that scores of folds and models have one measure. It replaces the five above.
    dequantization_draws : int
        Draws of uniform noise per row behind the bound of a continuous model on discrete entries.
    device : str
        **Running.** ``"auto"`` (a GPU where there is one), ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    dtype : {"float32", "float64"}
        What the model computes in, and the dtype of its scores. Data are standardized in float64
        whatever it is.
    random_state : int, RandomState, Generator or None
        Fixes ``fit``. Global generators are never touched.
    verbose : bool or "auto"
        Progress on standard error; ``"auto"`` where that is a terminal.

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
    codec_ : Codec
        Data space to events and back.
    schema_ : Schema
        What the codec learned of the columns.
    n_features_in_ : int
        Number of columns; tables only.
    feature_names_in_ : ndarray of str
        Names of the columns; tables that have them.
    """

    device: str = "auto"
    dtype: Annotated[str, OneOf("float32", "float64")] = "float32"
    random_state: Any = None
    verbose: Annotated[bool | str, OneOf("auto")] = "auto"
    image_shape: tuple[int, ...] | None = None
    support: str | tuple[Any, ...] | Mapping[Any, Any] | None = None
    kinds: Mapping[Any, str] | None = None
    atom_share: Annotated[float, Interval(gt=0, le=1)] | None = 0.05
    step: Mapping[Any, Any] | None = None
    derived: Mapping[Any, Any] | None = None
    columns: codecs.Description | None = None
    dequantization_draws: Annotated[int, Interval(ge=2)] = 16

    _capabilities: ClassVar[Capabilities]
    _before: ClassVar[dict[str, Any]] = {"atom_share": None}
    """What files that lack a parameter were fitted with, where that is not its default."""
    _at_once: ClassVar[tuple[str, ...]] = ("dequantization_draws",)
    """Parameters of drawing and scoring: set after ``fit``, they act at the next call. A model names its
    own; all others need a new fit."""
    _relaxes_itself: ClassVar[bool] = False
    _instead_of_context: ClassVar[str] = "densekit.capabilities(estimator).context says which do"
    _instead_of_y: ClassVar[str] = ""  # where a y is a mistake: what to do
    _learns_in_batches: ClassVar[bool] = False  # whether _fit takes EncodedRows for events too

    if TYPE_CHECKING:
        # What fit sets: declared for type checkers only, so that the constructor knows nothing of it.
        codec_: Any = field(init=False)
        context_codec_: Any = field(init=False)
        context_names_: tuple[str, ...] = field(init=False)
        schema_: Schema = field(init=False)
        device_: str = field(init=False)
        dtype_: str = field(init=False)
        density_kind_: DensityKind = field(init=False)
        base_measure_: str = field(init=False)
        built_with_: dict[str, Any] = field(init=False)
        feature_names_in_: np.ndarray = field(init=False)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        written = cls.__dict__.get("__doc__")
        dataclass(kw_only=True, eq=False, repr=False)(cls)
        document(cls, written)

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
        before = dict(vars(self))
        try:
            with clock.running():
                self._fit_rows(X, context, sample_weight)
        except BaseException:
            self.__dict__.clear()
            self.__dict__.update(before)
            raise
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
            found = self._score_pieces(pieces, context, return_info)
        else:
            X, context = self._check_rows(X, context, reset=False)
            encoded = self._encode_context(context, codecs.n_rows(X))
            found = self._score_rows(X, encoded, return_info)
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

    def _score_rows(self, X: Any, context: Tensor | None, info: bool) -> list[np.ndarray]:
        """Scores and errors of rows that have been checked; with ``info`` effective sample sizes, and
        whether exact: 1, 0, or -1 where that is the same for all rows."""
        n, rows = codecs.n_rows(X), max(1, _ENCODE_ENTRIES // max(1, self.schema_.n_dims))
        out = [np.zeros(n, self.dtype_) for _ in range(4 if info else 2)]
        with torch.no_grad():
            for start in range(0, n, rows):
                typed, ladj = self.codec_.encode(codecs.take(X, start, min(n, start + rows)))
                given = None if context is None else context[start : start + rows]
                events = self._events(typed)
                near = within_reach(events)
                batches = self._score_events(torch.where(near, events, 0), given)
                logp, *others = (torch.cat(p) for p in zip(*map(_columns, batches), strict=True))
                # A row outside the support has ladj = -inf, whatever its stand-in event scores.
                total = logp.double().cpu() + ladj
                total[~near.flatten(1).all(1).cpu()] = -torch.inf
                for column, part in zip(out, [total, *others], strict=False):
                    column[start : start + len(logp)] = part.cpu().numpy()
        return out

    _kind_if_inexact: ClassVar[DensityKind] = "lower_bound"
    """Kind of the rows of which a distribution says that their score is not exact."""

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
        given = self._check_sample_context(context)
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
        rows = self.codec_.decode(typed)
        if given is not None and self.context_names_:
            return self.context_codec_.join(rows, given, n_samples, list(self.feature_names_in_))
        return rows

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
        if self.context_codec_ is not None and self._capabilities.context != "prompt":
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
        given = self._check_sample_context(context)
        if given is None:
            raise ValueError("condition needs a context; without one use distribution_")
        events = self._over_typed(self._encode_context(given, None))
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

    # How fit goes.

    def _fit_rows(self, X: Any, context: Any, sample_weight: Any) -> None:
        check_parameters(self)
        self._check_takes_weights(sample_weight)
        for name in [k for k in vars(self) if k.endswith("_") and not k.startswith("_")]:
            delattr(self, name)
        device, seed = resolve_device(self.device), resolve_seed(self.random_state)
        in_pieces = ParquetRows.of(X) if self._learns_in_batches else None
        rows: Any = RowsOnDisk.of(X) if self._learns_in_batches else None
        X = X if in_pieces is None else in_pieces.head()
        X, context = self._check_rows(X, context, reset=True)
        codec = self._codec_for(X)
        if in_pieces is not None:
            if self.context_names_:
                context = in_pieces.only(self.context_names_).read()
            rows = in_pieces.without(self.context_names_)
        elif rows is None or codec.modality != "table":
            rows = X
        rows, context, weights = self._weigh(rows, context, sample_weight)
        if weights is not None and len(weights) < 2:
            raise ValueError(
                "sample_weight is zero in all rows of X but one: a density needs at least 2 rows of "
                "positive weight"
            )
        self.dtype_ = self.dtype
        prompted = context is not None and self._capabilities.context == "prompt"
        beside: dict[str, Any] = {"prompts": context} if prompted else {}
        if weights is not None and "weights" in inspect.signature(codec.fit).parameters:
            beside["weights"] = weights
        with self._encoded(codec.fit(rows, **beside), rows) as typed:
            self._fit_events(codec, typed, context, weights, device, seed)

    def _fit_events(
        self,
        codec: codecs.Codec,
        typed: Any,
        context: Any,
        weights: np.ndarray | None,
        device: torch.device,
        seed: int,
    ) -> None:
        self.codec_, self.device_ = codec, str(device)
        self.schema_ = codec.schema.flat() if self._capabilities.flat else codec.schema
        encoded = None
        if context is not None:
            if self._capabilities.context == "features":
                self.context_codec_ = ContextCodec(self.context_names_)
                self.context_codec_.fit(context, len(typed), weights)
            elif self._capabilities.context == "text":
                self.context_codec_ = self._new_codec(codecs.TextCodec)
                self.context_codec_.fit(context, "context")
            else:
                self.context_codec_ = codec
            encoded = self._encode_context(context, len(typed))
        with seeded(seed, device):
            events = self._events(typed)
            relaxes = self._capabilities.view == "relaxed" and not self._relaxes_itself
            # Noise that nothing needs would move the seed on by the number of rows.
            if relaxes and self.schema_.quantized.any():
                events, _ = self.schema_.relax(events, torch.rand_like(events))
            self._fit(events, encoded, *self._weights(weights))
        self._record_parameters()
        # Last, since they say that it is fitted.
        self.base_measure_ = self.schema_.base_measure
        self.density_kind_ = self._kind_of_scores(self.schema_)

    @contextlib.contextmanager
    def _encoded(self, codec: codecs.Codec, X: Any) -> Iterator[Any]:
        """Typed events of all rows; on disk where the rows are."""
        if isinstance(X, RowsInPieces) and X.by_place:
            yield EncodedRows(X, codec)
            return
        if isinstance(X, RowsInPieces):
            with spooled(X, codec, self._torch_dtype) as events:
                yield events
            return
        typed, ladj = codec.encode(X)
        if not torch.isfinite(ladj).all():
            row = int((~torch.isfinite(ladj)).nonzero()[0])
            raise ValueError(
                f"row {row} of X lies outside the support it was given (support={self.support!r}); "
                "drop it or widen the support"
            )
        yield typed

    def _codec_for(self, X: Any) -> codecs.Codec:
        modality = codecs.modality_of(X, self.image_shape)
        if modality not in self._capabilities.modalities:
            names = {"text": "text", "table": "tables", "image": "images"}
            takes = " and ".join(names[m] for m in self._capabilities.modalities)
            if takes == "text" and codecs.is_frame(X):
                takes = "text, of a frame one column of strings"
            raise ValueError(
                f"{type(self).__name__} takes {takes}; X looks like {modality} data "
                f"({type(X).__name__}{codecs.shape_in_words(X)}). "
                f"densekit.all_estimators(modality={modality!r}) lists the models that take it"
            )
        return self._new_codec(_CODECS[modality])

    def _new_codec(self, kind: Any) -> Any:
        """A codec with the options that are among the hyper-parameters."""
        known = {**self.get_params(deep=False), "missing": self._capabilities.missing}
        return kind(**{k: known[k] for k in kind.options if k in known})

    def _kind_of_scores(self, schema: Schema) -> DensityKind:
        kind = self._capabilities.density
        dequantized = self._capabilities.view == "relaxed" and bool(schema.quantized.any())
        return "lower_bound" if kind == "exact" and (dequantized or not schema.exact) else kind

    # Rows, weights and contexts at the border.

    def _check_takes_weights(self, sample_weight: Any) -> None:
        if sample_weight is not None and not self._capabilities.weights:
            raise ValueError(
                f"{type(self).__name__} takes no sample_weight; drop it, or fit a model whose "
                "densekit.capabilities(...).weights is True"
            )

    def _weigh(
        self, rows: Any, context: Any, sample_weight: Any
    ) -> tuple[Any, Any, np.ndarray | None]:
        """Rows and contexts of positive weight, and their weights."""
        if sample_weight is None:
            return rows, context, None
        weights = read_weights(sample_weight, codecs.n_rows(rows))
        return with_weight(rows, context, weights)

    def _weights(self, weights: np.ndarray | None) -> tuple[Tensor | None, ...]:
        """What ``_fit`` takes beside events and context, where it takes weights."""
        if not self._capabilities.weights or weights is None:
            return ()
        return (torch.from_numpy(weights).to(self.device_),)

    def _check_rows(self, X: Any, context: Any, reset: bool) -> tuple[Any, Any]:
        """X and context as the codecs take them; context columns split off; attributes set that
        say what came."""
        if not reset:
            check_is_fitted(self)
        X, context = in_memory(X), self._taken(context)
        if reset:
            self.context_codec_, self.context_names_ = None, ()
        kind = self._capabilities.context
        if not reset and context is not None and self.context_names_:
            X = self._with_context(X, context)
        X = self._check_table(X, reset) if self._is_table(X, reset) else X
        names: Any = context if reset else (self.context_names_ or None)
        if kind == "features" and names_columns(X, names):
            X, context = split_columns(X, names)
            if reset:
                self.context_names_ = tuple([names] if isinstance(names, str) else names)
        elif not reset and kind in ("features", "text"):
            fitted = self.context_codec_ is not None
            if fitted != (context is not None):
                have, need = ("without", "with") if fitted else ("with", "without")
                raise ValueError(
                    f"this {type(self).__name__} was fitted {need} a context and is used {have} one; "
                    "pass context= to fit and to every later call, or to none"
                )
        if reset and codecs.n_rows(X) < 2:
            raise ValueError(codecs.frames.too_few_rows(X))
        return X, context

    def _with_context(self, X: Any, context: Any) -> Any:
        """X with its context columns, which may come in X or apart, and not in both."""
        have = getattr(X, "columns", getattr(X, "column_names", ()))
        twice = [c for c in self.context_names_ if c in list(have)]
        if twice:
            raise ValueError(
                f"the context columns {twice} are in X and in context=: leave them out of one"
            )
        order = list(self.feature_names_in_)
        return self.context_codec_.join(X, context, codecs.n_rows(X), order)

    def _is_table(self, X: Any, reset: bool) -> bool:
        if not reset:
            return self.schema_.modality == "table"
        return "table" in self._capabilities.modalities and (
            codecs.modality_of(X, self.image_shape) == "table"
        )

    def _check_table(self, X: Any, reset: bool) -> Any:
        least = 2 if reset else 1
        if codecs.is_frame(X):
            # scikit-learn reads names and widths; the codec checks each column by its kind.
            return validate_data(self, X, reset=reset, skip_check_array=True)
        try:
            return validate_data(
                self,
                X,
                reset=reset,
                dtype="numeric",
                ensure_min_samples=least,
                # The codec's own error names the column, how many, and the remedy.
                ensure_all_finite=False,
                copy=False,
            )
        except (TypeError, ValueError):
            rows = codecs.frames.as_array(X)
            if rows.dtype.kind not in "OU" or not rows.ndim:
                raise
            return validate_data(self, rows, reset=reset, skip_check_array=True)

    def _taken(self, context: Any) -> Any:
        """A context in memory, prompts and sources as a list; an error where the model takes none."""
        kind, context = self._capabilities.context, in_memory(context)
        if context is not None and kind == "none":
            raise ValueError(
                f"{type(self).__name__} models p(x) only and takes no context; "
                f"{self._instead_of_context}"
            )
        if isinstance(context, Mapping) and kind == "features":
            _check_values(context)
        return texts_of(context) if context is not None and kind in ("prompt", "text") else context

    def _check_sample_context(self, context: Any) -> Any:
        context = self._taken(context)
        if self._capabilities.context in ("features", "text"):
            fitted = self.context_codec_ is not None
            if fitted and context is None:
                raise ValueError(
                    f"this {type(self).__name__} models p(x given context): give it context="
                )
            if not fitted and context is not None:
                raise ValueError(
                    f"this {type(self).__name__} was fitted without a context: pass context= to fit "
                    "(a y is ignored)"
                )
        return context

    def _encode_context(self, context: Any, n: int | None) -> Tensor | None:
        if context is None:
            return None
        if (kind := self._capabilities.context) == "prompt":
            encoded = self.codec_.prompts(context).to(self.device_)
        elif kind == "text":
            encoded = self.context_codec_.encode(context, "context")[0].to(self.device_)
        else:
            encoded = self._events(self.context_codec_.encode(context))
        if n is None:
            return encoded
        if len(encoded) not in (1, n):
            raise ValueError(
                f"context has {len(encoded)} rows and X has {n}: give one for all rows, or one a row"
            )
        return encoded.expand(n, -1)

    def _events(self, typed: Any) -> Any:
        """Typed events on the device, in the model's dtype (token ids stay integers)."""
        if isinstance(typed, EncodedRows):
            return typed.to(self.device_, self._torch_dtype)
        if not typed.is_floating_point():
            return typed.to(self.device_)
        typed = typed.to(self.device_, self._torch_dtype)
        return typed.flatten(1) if self._capabilities.flat else typed

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

    def _score_pieces(self, pieces: RowsInPieces, context: Any, info: bool) -> list[np.ndarray]:
        """The same of rows that are read a few at a time."""
        check_is_fitted(self)
        context, n, done = in_memory(context), len(pieces), 0
        out = [np.zeros(n, self.dtype_) for _ in range(4 if info else 2)]
        for X in pieces.pieces():
            piece = slice(done, done := done + len(X))
            given = part_of(context, n, piece.start, piece.stop)
            X, given = self._check_rows(X, given, reset=False)
            found = self._score_rows(X, self._encode_context(given, len(X)), info)
            for column, part in zip(out, found, strict=True):
                column[piece] = part
        return out

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

    # Parameters that were set after fit.

    @classmethod
    def _names_of_fit(cls) -> set[str]:
        """Parameters that say how ``fit`` goes, and nothing of what it makes."""
        return {"random_state", "verbose"}

    def _record_parameters(self) -> None:
        names = sorted(self._names() - self._names_of_fit())
        values = {name: getattr(self, name) for name in names}
        self.built_with_ = {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}

    def _built_otherwise(self) -> dict[str, Any]:
        """Parameters that were set since ``fit`` and need another one, with the values they had."""
        now = {name for base in type(self).__mro__ for name in vars(base).get("_at_once", ())}
        built = vars(self).get("built_with_", {})
        names = sorted(set(built) & self._names() - now)
        return {name: built[name] for name in names if not same(built[name], getattr(self, name))}

    def _as_fitted(self) -> Self:
        """This estimator with the parameters that it was built with: itself, or a light copy."""
        otherwise = self._built_otherwise()
        if not otherwise:
            return self
        other = object.__new__(type(self))
        other.__dict__.update(vars(self), **otherwise)
        return other

    def _check_fitted(self) -> None:
        """Raise NotFittedError, or warn of parameters that wait for a new fit."""
        check_is_fitted(self)
        otherwise = self._built_otherwise()
        if otherwise:
            new = ", ".join(f"{name}={getattr(self, name)!r}" for name in otherwise)
            old = ", ".join(f"{name}={value!r}" for name, value in otherwise.items())
            warnings.warn(
                f"{new} was set after fit, and what is used is the model that was fitted with {old}: "
                f"call fit again, or set {'it' if len(otherwise) == 1 else 'them'} back",
                UserWarning,
                stacklevel=3,
            )

    # Small things.

    @property
    def _torch_dtype(self) -> torch.dtype:
        return resolve_dtype(self.dtype_)

    @property
    def _context_schema(self) -> Schema | None:
        return None if self.context_codec_ is None else self.context_codec_.schema

    @classmethod
    def _names(cls) -> set[str]:
        return {f.name for f in dataclasses.fields(cls)}

    @property
    def _is_verbose(self) -> bool:
        return sys.stderr.isatty() if self.verbose == "auto" else bool(self.verbose)

    @classmethod
    def _as_read(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        """Parameters of a file with what they meant when it was written."""
        return parameters

    def __sklearn_is_fitted__(self) -> bool:
        return "density_kind_" in vars(self)

    def __sklearn_tags__(self) -> DensityTags:
        return DensityTags.beside(super().__sklearn_tags__(), self._capabilities)


def _columns(found: Scores) -> tuple[Tensor, ...]:
    """A batch of scores; of ``exact``, -1 where it does not differ from row to row."""
    exact = found.score.new_full(found.score.shape, -1) if found.exact is None else found.exact
    return (*found[:3], exact)


def _check_values(context: Mapping[Any, Any]) -> None:
    """Raise ValueError where a mapping gives a column anything but one value."""
    for column, value in context.items():
        if isinstance(value, tuple):
            raise ValueError(
                f"context[{column!r}]={value!r} is an interval, and this model conditions on values: "
                "give one, or take TabularAutoregressive, which draws under intervals"
            )
        if not isinstance(value, str | bytes) and np.ndim(value) == 1 and len(value) != 1:
            raise ValueError(
                f"context[{column!r}] is a set of {len(value)} values, and this model conditions on "
                "one: a context of one row for each row of X or each draw is a DataFrame"
            )


document(DensityEstimator, DensityEstimator.__doc__)
