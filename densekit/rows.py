"""Rows of the user's data at the border of an estimator: checked, weighed, and made into events."""

import contextlib
import dataclasses
from abc import ABC
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from densekit import codecs, containers
from densekit.codecs.ondisk import EncodedRows, spooled
from densekit.codecs.schema import Schema
from densekit.codecs.weights import read_weights, with_weight
from densekit.containers import RowsInPieces, in_memory
from densekit.contexts import Context, context_of
from densekit.hyperparameters import HyperParameters
from densekit.params import Interval, OneOf
from densekit.runtime import resolve_dtype
from densekit.tags import Capabilities as Capabilities

_CODECS: dict[str, type[codecs.Codec]] = {
    c.modality: c for c in (codecs.TableCodec, codecs.ImageCodec, codecs.TextCodec)
}


class TakesRows(HyperParameters, ABC):
    """An estimator that takes rows of the user's data and makes events of them. Abstract: it knows
    codecs and contexts, and no density.

    Parameters
    ----------
    image_shape : tuple of int, optional
        **Data.** (H, W) or (H, W, C): rows of a two-dimensional array are flattened images.
    support : str or mapping, optional
        For all real columns, or by name: ``"real"``, ``"positive"``, ``"nonnegative"``, ``("at_least",
        low)``, ``("at_most", high)``, ``("interval", low, high)``, or ``("circle", low, high)`` for
        angles; integers and datetimes by name. Real unless given, since a value outside the support
        scores -inf, but for a column whose smallest or largest value is an atom, which ends there. An
        end on which a row is found is an atom, and any other end has no mass.
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
    _defaults_of_older_files: ClassVar[dict[str, Any]] = {"atom_share": None}
    _at_once: ClassVar[tuple[str, ...]] = ("dequantization_draws",)
    _instead_of_context: ClassVar[str] = "densekit.capabilities(estimator).context says which do"
    """What to do where a context is a mistake; ends the error."""

    if TYPE_CHECKING:
        # Set by fit. Declared for type checkers only, so that the constructor does not take them.
        codec_: Any = dataclasses.field(init=False)
        context_codec_: Any = dataclasses.field(init=False)
        context_names_: tuple[str, ...] = dataclasses.field(init=False)
        schema_: Schema = dataclasses.field(init=False)
        device_: str = dataclasses.field(init=False)
        dtype_: str = dataclasses.field(init=False)
        feature_names_in_: np.ndarray = dataclasses.field(init=False)

    # Rows and contexts as users give them.

    @property
    def _context(self) -> Context:
        """What the model conditions on, with what ``fit`` learned of it."""
        return context_of(self)

    @property
    def _context_schema(self) -> Schema | None:
        return None if self.context_codec_ is None else self.context_codec_.schema

    @property
    def _torch_dtype(self) -> torch.dtype:
        return resolve_dtype(self.dtype_)

    def _check_rows(self, X: Any, context: Any, reset: bool) -> tuple[Any, Any]:
        """X and context as the codecs take them, with context columns split off. With ``reset``, as in
        ``fit``, the attributes that describe the columns are set; else X must be like them."""
        if not reset:
            check_is_fitted(self)
        kind = self._context
        X, context = in_memory(X), kind.take(context)
        if reset:
            self.context_codec_, self.context_names_ = None, ()
        else:
            X = kind.join(X, context, codecs.n_rows(X)) if context is not None else X
        X = self._check_table(X, reset) if self._is_table(X, reset) else X
        X, context, names = kind.split(X, context, reset)
        if reset:
            self.context_names_ = names
        if reset and codecs.n_rows(X) < 2:
            raise ValueError(containers.too_few_rows(X))
        return X, context

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
            rows = containers.as_array(X)
            if rows.dtype.kind not in "OU" or not rows.ndim:
                raise
            return validate_data(self, rows, reset=reset, skip_check_array=True)

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

    # Codecs and events.

    def _on_device(self, device: str) -> Self:
        """This estimator on a device: itself where it is there, else a copy whose weights moved."""
        if self.device_ == device:
            return self
        other = self._copy_with()
        other.__setstate__({**self.__getstate__(), "device_": device})  # type: ignore[dict-item]
        return other

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
                f"row {row} of X is outside the support it was given (support={self.support!r}); "
                "drop it or widen the support"
            )
        yield typed

    def _encode_context(self, context: Any, n: int | None) -> Tensor | None:
        """Rows of a context that was checked as the module takes them: as many as given, or ``n``."""
        if context is None:
            return None
        encoded: Tensor = self._events(self._context.encode(context))
        if n is None:
            return encoded
        if len(encoded) not in (1, n):
            raise ValueError(
                f"context has {len(encoded)} rows and X has {n}: give one for all rows, or one a row"
            )
        return encoded.expand(n, *encoded.shape[1:])

    def _context_of_draws(self, context: Any) -> Tensor | None:
        """The context of draws, as users give it, as the module takes it."""
        kind = self._context
        return self._encode_context(kind.check_for_draws(kind.take(context)), None)

    def _events(self, typed: Any) -> Any:
        """Typed events on the device, in the model's dtype (token ids stay integers)."""
        if isinstance(typed, EncodedRows):
            return typed.to(self.device_, self._torch_dtype)
        if not typed.is_floating_point():
            return typed.to(self.device_)
        typed = typed.to(self.device_, self._torch_dtype)
        return typed.flatten(1) if self._capabilities.flat else typed
