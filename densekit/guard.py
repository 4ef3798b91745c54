"""What a file may claim: a bound on the work it causes, and checks of what it says of its data.

A file from a stranger can say anything. Numbers in it become the sizes of networks and the number of
steps, names become dtypes: :class:`Budget` stops what would take more than the file's own size
justifies, and :func:`check_state` refuses states that no ``fit`` leaves behind.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from densekit.codecs import Codec, Column, ImageCodec, Schema, TableCodec, TextCodec
from densekit.codecs.columns import SECONDS
from densekit.codecs.context import ContextCodec
from densekit.codecs.layout import layout
from densekit.codecs.schema import Kind

_FREE_ENTRIES = 2**22
"""Entries that may be allocated whatever the size of the file: 32 MB in float64."""
_SETUP_OPERATIONS, _OPERATIONS_PER_WEIGHT = 1000, 60
_LONGEST_DTYPE = 256


class OverBudgetError(ValueError):
    """More operations or memory than a file may ask for."""


class Budget(TorchDispatchMode):
    """Counts torch's operations inside the block, and stops them before they get out of hand.

    Parameters
    ----------
    operations : int
        How many there may be. This bounds time: a loop of a billion rounds ends here.
    entries : int
        Entries that one result may have, and all tensors made from nothing together. An upper
        estimate is made from the arguments, before anything is allocated.

    Attributes
    ----------
    spent : int
        Operations so far.

    Raises
    ------
    OverBudgetError
        Out of the operation that would be one too many, or too large.

    Examples
    --------
    >>> with Budget(operations=10, entries=100):
    ...     torch.zeros(10**9, 10**9)
    Traceback (most recent call last):
    densekit.guard.OverBudgetError: an operation (aten.zeros) makes up to 1e+18 entries; ...
    """

    def __init__(self, operations: int, entries: int) -> None:
        super().__init__()
        self.operations, self.entries = operations, entries
        self.spent = self._made = 0

    @classmethod
    def for_weights(cls, weights: dict[str, np.ndarray]) -> "Budget":
        """What building a module with these weights may take."""
        entries = sum(w.size for w in weights.values())
        operations = _SETUP_OPERATIONS + _OPERATIONS_PER_WEIGHT * len(weights)
        return cls(operations, _FREE_ENTRIES + 4 * entries)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.spent += 1
        if self.spent > self.operations:
            raise OverBudgetError(
                f"it takes more than {self.operations} operations, which is more than such a file "
                "can need"
            )
        exact = _SIZES.get(func.overloadpacket)
        size, from_nothing = (exact(*args), False) if exact else _at_most(args, kwargs)
        self._made += size if from_nothing else 0
        if max(size, self._made) > self.entries:
            raise OverBudgetError(
                f"an operation ({func.overloadpacket}) makes up to {float(size):.4g} entries; with "
                f"those before, more than the {self.entries} that such a file can need"
            )
        return func(*args, **kwargs)


def _at_most(args: Any, kwargs: Any) -> tuple[int, bool]:
    """How many entries the result can have, and whether no tensor goes in."""
    shapes: list[torch.Size] = []
    sizes, numbers = [0], [0]
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            shapes.append(value.shape)
        elif isinstance(value, list | tuple):
            shapes += [v.shape for v in value if isinstance(v, torch.Tensor)]
            if all(type(v) is int for v in value):
                sizes.append(abs(math.prod(value)))
        elif type(value) is int:
            numbers.append(abs(value))
    if not shapes:
        return max(*sizes, *numbers), True
    return max(*sizes, _widest(shapes)), False


def _widest(shapes: list[torch.Size]) -> int:
    """Broadcasting makes the greatest of each axis, and a matrix product no more than that."""
    wide = max(map(len, shapes))
    padded = [(1,) * (wide - len(s)) + tuple(s) for s in shapes]
    return math.prod(max(axis) for axis in zip(*padded, strict=True))


def _picked(x: torch.Tensor, indices: Any) -> int:
    """How many entries ``x[indices]`` can have: the places picked, by the axes that are left whole."""
    whole, shapes, axis = [], [], 0
    for index in indices:
        if index is None:
            whole.append(x.shape[axis])
            axis += 1
        elif index.dtype in (
            torch.bool,
            torch.uint8,
        ):  # a mask picks each of its places once at most
            shapes.append(torch.Size([index.numel()]))
            axis += index.ndim
        else:
            shapes.append(index.shape)
            axis += 1
    return _widest(shapes) * math.prod([*whole, *x.shape[axis:]])


def _padded(x: torch.Tensor, pad: list[int], *_: Any) -> int:
    """How many entries ``x`` has with so many more before and behind, the last axis first."""
    more = [before + behind for before, behind in zip(pad[::2], pad[1::2], strict=True)]
    more = [0] * (x.ndim - len(more)) + more[::-1]
    return math.prod(n + extra for n, extra in zip(x.shape, more, strict=True))


_SIZES: dict[Any, Callable[..., int]] = {
    torch.ops.aten.index: _picked,
    torch.ops.aten.constant_pad_nd: _padded,
    torch.ops.aten.embedding: lambda weight, ids, *_: ids.numel() * weight.shape[-1],
    torch.ops.aten.index_select: lambda x, axis, index: (
        x.numel() // max(1, x.shape[axis]) * index.numel()
    ),
    torch.ops.aten.nll_loss_forward: lambda logp, *_: logp.numel(),
    torch.ops.aten.repeat: lambda x, times: x.numel() * math.prod(times),
    torch.ops.aten.cat: lambda parts, *_: sum(x.numel() for x in parts),
    torch.ops.aten.stack: lambda parts, *_: sum(x.numel() for x in parts),
}
"""What makes more of its tensors than broadcasting would, or far less."""


def check_state(estimator: Any, size: int) -> None:
    """Raise unless schema and codecs are such as ``fit`` makes, and agree with each other.

    Parameters
    ----------
    estimator : DensityEstimator
        Its attributes are set.
    size : int
        Bytes of the file: what is said in it cannot be longer.

    Raises
    ------
    ValueError
        Naming what is wrong.
    """
    codec, schema, context = estimator.codec_, estimator.schema_, estimator.context_codec_
    kinds = {"table": TableCodec, "image": ImageCodec, "text": TextCodec}
    _expect(isinstance(schema, Schema), "schema_ is no schema")
    _expect(schema.modality in kinds, f"schema_ is of modality {schema.modality!r}")
    _expect(type(codec) is kinds[schema.modality], f"codec_ is not one for {schema.modality}s")
    known = estimator._capabilities.modalities
    _expect(schema.modality in known, f"{schema.modality} data in a {type(estimator).__name__}")
    _expect(estimator.dtype_ in ("float32", "float64"), f"dtype_ is {estimator.dtype_!r}")
    _check_codec(codec, size)
    _check_schema(schema, size)
    expected = codec.schema.flat() if estimator._capabilities.flat else codec.schema
    _expect(_alike(schema, expected), "schema_ is not that of codec_")
    kind, measure = estimator.density_kind_, estimator.base_measure_
    _expect(kind == estimator._kind_of_scores(schema), f"density_kind_ is {kind!r}")
    _expect(measure == schema.base_measure, f"base_measure_ is {measure!r}")
    if isinstance(context, ContextCodec):
        _expect(type(context.table) is TableCodec, "the context has no table")
        _expect(_all(context.names, str), "names of the context are no strings")
        _check_codec(context.table, size)
    else:
        _expect(context is None or type(context) is TextCodec, "context_codec_ is no codec")
        if context is not None:
            _check_codec(context, size)
    _expect(_all(estimator.context_names_, str), "context_names_ are no strings")


def _expect(holds: Any, wrong: str) -> None:
    if not holds:
        raise ValueError(wrong)


def _all(values: Any, kind: Any) -> bool:
    return isinstance(values, tuple | list) and all(isinstance(v, kind) for v in values)


def _alike(a: Schema, b: Schema) -> bool:
    one, other = vars(a), vars(b)
    return all(np.array_equal(one[k], other[k]) for k in one if k not in ("_tensors", "quantised"))


def _check_schema(schema: Schema, size: int) -> None:
    shape = schema.event_shape
    whole = _all(shape, int) and len(shape) > 0 and min(shape) >= 1
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
        right = array.shape == (n,) and array.dtype.kind in kind
        _expect(right, f"{name} of the schema is {array.dtype} of shape {array.shape}, not ({n},)")
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
    _expect(_all(schema.columns, Column), "columns of the schema are no columns")
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
        _expect(_all(column.levels, str | int | float), f"{where}levels that are no values")
        for name in ("spikes", "atoms"):
            values = getattr(column, name)
            finite = _all(values, int | float) and all(abs(v) < 2**1000 for v in values)
            in_order = finite and list(values) == sorted(set(values))
            _expect(in_order, f"{where}{name} {str(values)[:80]}")
        number = type(column.step) in (int, float) and 0 <= column.step < 2**1000
        _expect(number, f"{where}step {column.step!r}")
        _expect(type(column.open_ends) is bool, f"{where}open_ends {column.open_ends!r}")
        seen, rows = column.seen, column.seen_rows
        whole = all(_all(v, int) and max(map(abs, v), default=0) < 2**53 for v in (seen, rows))
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
    _expect(isinstance(codec.schema, Schema), "a codec has no schema")
    _expect(codec.schema.modality == codec.modality, "a codec has a schema of another modality")
    _check_schema(codec.schema, size)
    if isinstance(codec, TextCodec):
        _expect(isinstance(codec.symbols, str), "symbols of the codec are no string")
        agrees = codec.schema.event_shape[0] - 1 == codec.longest
        _expect(agrees, f"the codec takes {codec.longest!r} tokens, which its schema does not")
        _check_tokenizer(codec)
        return
    if isinstance(codec, ImageCodec):
        _check_dtype(codec.dtype, size)
        right = _all(codec.row_shape, int) and math.prod(codec.row_shape) == codec.schema.n_dims
        _expect(right, f"row_shape is {codec.row_shape!r}")
    elif isinstance(codec, TableCodec):
        known = ("numpy", "pandas", "polars", "pyarrow")
        _expect(codec.container in known, f"a codec of the container {codec.container!r}")
        _check_dtype(codec.dtype, size, packed=codec.container == "pyarrow")
        right = _all(codec.labels, str | int) and len(codec.labels) == len(codec.schema.columns)
        _expect(right, "labels are not those of the columns")
        for column in codec.schema.columns:
            _check_dtype(column.dtype, size)


def _check_dtype(name: Any, size: int, packed: bool = False) -> None:
    """A dtype as the codecs write them; ``packed`` is an Arrow schema in base 64."""
    _expect(isinstance(name, str), f"dtype {name!r}")
    if packed:
        _expect(re.fullmatch(r"[A-Za-z0-9+/=]*", name), "an Arrow schema that is not base 64")
        return
    # A zone can be named by a path, and a width of gigabytes by ten digits.
    path = "dateutil/" in name or ".." in name
    wide = re.fullmatch(r"[<>=|]?[SUVa](\d+)", name)
    fits = len(name) <= max(_LONGEST_DTYPE, size) and not path
    _expect(fits and (wide is None or int(wide[1][:12]) <= size), f"dtype {name[:80]!r}")


def _check_tokenizer(codec: TextCodec) -> None:
    """Byte pairs as ``fit`` trains them: a library that reads hostile settings could be made to run
    long regular expressions, or to pad to gigabytes."""
    _expect(isinstance(codec.tokenizer, str), "the tokenizer is no string")
    if codec.tokens != "bpe":
        _expect(codec.tokenizer == "", f"a tokenizer with tokens={codec.tokens!r}")
        return
    spec = json.loads(codec.tokenizer)
    off = ("normalizer", "post_processor", "truncation", "padding")
    plain = all(spec.get(part) is None for part in off) and not spec.get("added_tokens")
    parts = [spec[part]["type"] for part in ("model", "pre_tokenizer", "decoder")]
    right = plain and parts == ["BPE", "ByteLevel", "ByteLevel"]
    _expect(right, "the tokenizer is not of the kind that fit trains")
