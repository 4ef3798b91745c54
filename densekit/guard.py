"""Validation of loaded files: :func:`check_state` rejects states that no ``fit`` can produce.

A file from an untrusted source can contain anything, and its strings become dtypes, columns and
symbols. :mod:`densekit.codecs.state` declares the attributes of codecs and their types; this module
checks their values. :mod:`densekit.budget` bounds the work that a file causes.
"""

import json
import math
import re
from typing import Any, Literal, get_args

import numpy as np
import torch

from densekit.codecs import Codec, Column, ImageCodec, Schema, TableCodec, TextCodec
from densekit.codecs.columns import SECONDS
from densekit.codecs.context import ContextCodec
from densekit.codecs.layout import layout
from densekit.codecs.schema import Kind
from densekit.codecs.state import check_finite
from densekit.codecs.state import check_state as check_attributes
from densekit.params import matches

_LONGEST_DTYPE = 256


def check_state(estimator: Any, size: int) -> None:
    """Raise unless schema and codecs could come from ``fit`` and agree with each other.

    Parameters
    ----------
    estimator : DensityEstimator
        The loaded estimator, with all attributes set.
    size : int
        Bytes of the file, an upper limit of the lengths that its contents may state.

    Raises
    ------
    ValueError
        The message names the attribute and its value.
    """
    _check_fitted(estimator)
    codec, schema, context = estimator.codec_, estimator.schema_, estimator.context_codec_
    kinds = {"table": TableCodec, "image": ImageCodec, "text": TextCodec}
    check_attributes(schema)
    _expect(schema.modality in kinds, f"schema_ is of modality {schema.modality!r}")
    _expect(type(codec) is kinds[schema.modality], f"codec_ is not one for {schema.modality}s")
    known = estimator._capabilities.modalities
    _expect(schema.modality in known, f"{schema.modality} data in a {type(estimator).__name__}")
    _check_codec(codec, size)
    _check_schema(schema, size)
    expected = codec.schema.flat() if estimator._capabilities.flat else codec.schema
    _expect(_same_schema(schema, expected), "schema_ is not that of codec_")
    kind, measure = estimator.density_kind_, estimator.base_measure_
    _expect(kind == estimator._kind_of_scores(schema), f"density_kind_ is {kind!r}")
    _expect(measure == schema.base_measure, f"base_measure_ is {measure!r}")
    expected = estimator._context.codec_class
    _expect(context is None or type(context) is expected, "context_codec_ is of another kind")
    if isinstance(context, ContextCodec):
        check_attributes(context)
        _check_codec(context.table, size)
        labels = context.table.labels
        named = not context.names or list(context.names) == labels
        _expect(named, f"names of the context are {context.names!r}, and its columns {labels!r}")
    elif context is not None:
        _check_codec(context, size)
    _check_features(estimator)


_FITTED: dict[str, Any] = {
    "codec_": Codec,
    "context_codec_": ContextCodec | Codec | None,
    "context_names_": tuple[str, ...],
    "schema_": Schema,
    "dtype_": Literal["float32", "float64"],
    "density_kind_": str,
    "base_measure_": str,
}
"""Attributes that ``fit`` of every estimator sets, with their types. Attributes of a single model are
checked by running it."""


def _check_fitted(estimator: Any) -> None:
    state = vars(estimator)
    for name, hint in _FITTED.items():
        _expect(name in state, f"{name} is lacking")
        _expect(matches(state[name], hint, exact=True), f"{name} is {repr(state[name])[:80]}")
    for name, value in state.items():
        for array in value if isinstance(value, tuple | list) else (value,):
            if isinstance(array, np.ndarray):
                check_finite(name, array)


def _check_features(estimator: Any) -> None:
    """Check that ``feature_names_in_`` and ``n_features_in_`` match the columns of codec and context."""
    state, context = vars(estimator), estimator.context_names_
    known = estimator.context_codec_
    own = known.names if isinstance(known, ContextCodec) else ()
    _expect(own == context, f"context_names_ are {context!r}; the codec has {own!r}")
    if not isinstance(estimator.codec_, TableCodec):
        return
    labels = [*estimator.codec_.labels, *context]
    n, names = state.get("n_features_in_"), state.get("feature_names_in_")
    _expect(
        type(n) is int and n == len(labels), f"n_features_in_ is {n!r}; {len(labels)} are known"
    )
    if names is None:
        _expect(not context, "feature_names_in_ is lacking, and the context is among them")
        return
    valid = isinstance(names, np.ndarray) and names.shape == (len(labels),)
    _expect(valid and set(names.tolist()) == set(labels), f"feature_names_in_ are {names!r}"[:120])


def _expect(condition: Any, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _is_sequence_of(values: Any, kind: Any) -> bool:
    return isinstance(values, tuple | list) and all(isinstance(v, kind) for v in values)


def _same_schema(a: Schema, b: Schema) -> bool:
    one, other = vars(a), vars(b)
    return all(np.array_equal(one[k], other[k]) for k in one if k not in ("_tensors", "quantized"))


def _check_schema(schema: Schema, size: int) -> None:
    shape = schema.event_shape
    whole = _is_sequence_of(shape, int) and len(shape) > 0 and min(shape) >= 1
    _expect(whole, f"event_shape is {shape!r}")
    if schema.modality == "text":
        vocabulary = schema.vocab_size
        fits = type(vocabulary) is int and 3 <= vocabulary <= size + 259
        _expect(fits and len(shape) == 1, f"vocab_size is {vocabulary!r}")
        return
    n = schema.n_dims
    kinds = {"cardinality": "iu", "ordered": "b", "width": "f", "shift": "f", "spread": "f"}
    for name, kind in kinds.items():
        array = getattr(schema, name)
        _expect(isinstance(array, np.ndarray), f"{name} of the schema is no array")
        valid = array.shape == (n,) and array.dtype.kind in kind
        _expect(valid, f"{name} of the schema is {array.dtype} of shape {array.shape}, not ({n},)")
        _expect(np.isfinite(array).all(), f"{name} of the schema is not finite")
    edges = schema.edges
    _expect(isinstance(edges, np.ndarray) and edges.ndim == 2, "edges of the schema are no matrix")
    _expect(
        edges.shape[0] in (0, n), f"edges of the schema are of shape {edges.shape}, not ({n}, K)"
    )
    _expect((schema.cardinality >= 0).all(), "a cardinality is negative")
    if schema.modality == "table":
        _check_columns(schema)
    else:
        levels = set(schema.cardinality.tolist())
        _expect(len(levels) == 1 and max(levels) <= 256, f"pixels with {levels} levels")


def _check_columns(schema: Schema) -> None:
    _expect(_is_sequence_of(schema.columns, Column), "columns of the schema are no columns")
    for column in schema.columns:
        where = f"column {column.name!r}: "
        _expect(isinstance(column.name, str), f"{where}its name is no string")
        _expect(column.kind in get_args(Kind), f"{where}kind {column.kind!r}")
        _expect(column.unit == "" or column.unit in SECONDS, f"{where}unit {column.unit!r}")
        _expect(_is_support(column.support), f"{where}support {column.support!r}")
        numbers = all(type(v) in (int, float) for v in (column.loc, column.scale))
        moments = numbers and math.isfinite(column.loc) and 0 < column.scale < math.inf
        _expect(moments, f"{where}location {column.loc!r} and scale {column.scale!r}")
        whole = type(column.origin) is int and abs(column.origin) <= 2**64
        _expect(whole, f"{where}its origin is out of range")
        _expect(
            _is_sequence_of(column.levels, str | int | float), f"{where}levels that are no values"
        )
        for name in ("spikes", "atoms"):
            values = getattr(column, name)
            finite = _is_sequence_of(values, int | float) and all(abs(v) < 2**1000 for v in values)
            in_order = finite and list(values) == sorted(set(values))
            _expect(in_order, f"{where}{name} {str(values)[:80]}")
        number = type(column.step) in (int, float) and 0 <= column.step < 2**1000
        _expect(number, f"{where}step {column.step!r}")
        _expect(type(column.open_ends) is bool, f"{where}open_ends {column.open_ends!r}")
        seen, rows = column.seen, column.seen_rows
        whole = all(
            _is_sequence_of(v, int) and max(map(abs, v), default=0) < 2**53 for v in (seen, rows)
        )
        sorted_ = whole and len(seen) == len(rows) and list(seen) == sorted(set(seen))
        _expect(sorted_ and min(rows, default=1) > 0, f"{where}values seen {str(seen)[:80]}")
        strings = {isinstance(v, str) for v in column.levels}
        _expect(len(strings) < 2, f"{where}levels of several types")
    expected = layout(schema.columns)
    same = schema.n_dims == expected.n_dims and schema.pairs == expected.pairs
    same = same and np.array_equal(schema.cardinality, expected.cardinality)
    _expect(same, f"columns do not make the events that the schema says, {schema.event_shape}")
    widest = int(schema.cardinality.max(initial=0))
    enough = schema.edges.shape[1] > widest if widest else True
    _expect(enough, f"edges of the schema are of shape {schema.edges.shape}, too few")


def _is_support(support: Any) -> bool:
    match support:
        case ("real",) | ("positive",):
            return True
        case ("at_least" | "at_most", float(end) | int(end)):
            return math.isfinite(end)
        case ("interval" | "circle", float(low) | int(low), float(high) | int(high)):
            return -math.inf < low < high < math.inf
    return False


def _check_codec(codec: Codec, size: int) -> None:
    check_attributes(codec)
    _expect(codec.schema.modality == codec.modality, "a codec has a schema of another modality")
    _check_schema(codec.schema, size)
    if isinstance(codec, TextCodec):
        _check_text(codec)
    elif isinstance(codec, ImageCodec):
        _check_image(codec, size)
    elif isinstance(codec, TableCodec):
        _check_dtype(codec.dtype, size, packed=codec.container == "pyarrow")
        _expect(
            len(codec.labels) == len(codec.schema.columns), "labels are not those of the columns"
        )
        for column in codec.schema.columns:
            _check_dtype(column.dtype, size)
    # Decoding fails if a dtype does not exist, or if the container cannot hold it.
    with np.errstate(all="ignore"):
        codec.decode(_event_of(codec))


def _event_of(codec: Codec) -> torch.Tensor:
    """One event, for text the last symbol of the vocabulary."""
    if isinstance(codec, TextCodec):
        return torch.tensor([[codec.schema.vocab_size - 1, 1]])
    return torch.zeros(1, *codec.schema.event_shape, dtype=torch.float64)


def _check_image(codec: ImageCodec, size: int) -> None:
    _check_dtype(codec.dtype, size)
    valid = (
        math.prod(codec.row_shape) == codec.schema.n_dims and len(codec.schema.event_shape) == 3
    )
    _expect(valid and min(codec.row_shape) > 0, f"row_shape is {codec.row_shape!r}")
    channels = (codec.schema.event_shape[0],)
    for name in ("loc", "scale"):
        array = getattr(codec, name)
        valid = array.shape == channels and array.dtype.kind == "f"
        _expect(valid, f"{name} of the codec is {array.dtype} of shape {array.shape}")
    _expect((codec.scale > 0).all(), "scale of the codec is not positive")


def _check_text(codec: TextCodec) -> None:
    agrees = codec.schema.event_shape[0] - 1 == codec.longest
    _expect(agrees, f"the codec takes {codec.longest!r} tokens, which its schema does not")
    _check_tokenizer(codec)
    symbols = codec.symbols.split(" ") if codec.tokens == "word" else list(codec.symbols)
    symbols = symbols if codec.symbols else []
    _expect(symbols == sorted(set(symbols)), "symbols of the codec are not in order")
    n = {
        "byte": 256,
        "bpe": len(json.loads(codec.tokenizer or "{}").get("model", {}).get("vocab", ())),
    }
    wanted = 3 + n.get(codec.tokens, len(symbols))
    vocabulary = codec.schema.vocab_size
    _expect(vocabulary == wanted, f"vocab_size is {vocabulary}, and there are {wanted} symbols")
    codec.symbols.encode()  # raises for an unpaired surrogate


def _check_dtype(name: Any, size: int, packed: bool = False) -> None:
    """Check the name of a dtype, or with ``packed`` an Arrow schema in base 64."""
    _expect(isinstance(name, str), f"dtype {name!r}")
    if packed:
        _expect(re.fullmatch(r"[A-Za-z0-9+/=]*", name), "an Arrow schema that is not base 64")
        return
    # A time zone may be given as a path, and ten digits can request strings of gigabytes.
    path = "dateutil/" in name or ".." in name
    wide = re.fullmatch(r"[<>=|]?[SUVa](\d+)", name)
    fits = len(name) <= max(_LONGEST_DTYPE, size) and not path
    _expect(fits and (wide is None or int(wide[1][:12]) <= size), f"dtype {name[:80]!r}")


def _check_tokenizer(codec: TextCodec) -> None:
    """Check that a tokenizer is byte-pair encoding as ``fit`` trains it.

    Other settings could make the tokenizers library run long regular expressions or pad to gigabytes."""
    if codec.tokens != "bpe":
        _expect(codec.tokenizer == "", f"a tokenizer with tokens={codec.tokens!r}")
        return
    spec = json.loads(codec.tokenizer)
    off = ("normalizer", "post_processor", "truncation", "padding")
    plain = all(spec.get(part) is None for part in off) and not spec.get("added_tokens")
    parts = [spec[part]["type"] for part in ("model", "pre_tokenizer", "decoder")]
    valid = plain and parts == ["BPE", "ByteLevel", "ByteLevel"]
    _expect(valid, "the tokenizer is not of the kind that fit trains")
