"""Probe rows: a few rows with their scores, stored in a file and compared when it is loaded.

A loaded model that silently scores differently is worse than an error. The rows are drawn from the
model; for text they are random symbols, since the cost of a draw has no bound. Rows are scored on the
CPU, whichever device the model was fitted on. A model without a density stores draws at a fixed seed
instead of scores.
"""

import contextlib
import warnings
from typing import Any

import numpy as np
import torch

from densekit.budget import Budget
from densekit.codecs import Schema, TextCodec
from densekit.runtime import seeded

_ROWS, _LETTERS, _SEED = 4, 12, 0
_MOST_OPERATIONS, _MOST_ENTRIES = 100_000, 2**24
_TOLERANCE = {"float32": 1e-3, "float64": 1e-6}
"""Relative tolerance, and absolute tolerance in nats, since rounding differs between processors."""
_MODEL_ERRORS = (ValueError, RuntimeError, ArithmeticError, NotImplementedError)
"""Errors of a model that cannot be sampled or scored; it is saved without probe rows."""


def make(estimator: Any) -> dict[str, Any] | None:
    """Make the probe rows of a fitted estimator.

    Returns
    -------
    dict or None
        Plain values and arrays. None, with a warning, if the model cannot be sampled and scored within
        the limit of work."""
    # Parameters that were set after fit must not warn here, so use those of the fit.
    twin = estimator._as_fitted()._on_device("cpu")
    try:
        with Budget(_MOST_OPERATIONS, _entries(twin)) as budget:
            probe = _rows(twin)
            before = budget.spent
            probe |= _outcome(twin, probe)
        probe["operations"] = budget.spent - before
    except _MODEL_ERRORS as error:
        warnings.warn(
            f"{type(estimator).__name__} is saved without probe rows, so that load cannot check its "
            f"scores ({type(error).__name__}: {error})",
            UserWarning,
            stacklevel=4,
        )
        return None
    return probe


def check(estimator: Any, probe: dict[str, Any] | None) -> None:
    """Raise ValueError unless an estimator on the CPU reproduces the scores or draws of its probe rows
    from the time it was saved."""
    if probe is None:
        _run_unprobed(estimator)
        return
    estimator = estimator._as_fitted()
    operations = int(min(_MOST_OPERATIONS, max(0, probe["operations"])))
    with Budget(max(2 * operations + 1000, 50_000), _entries(estimator)):
        found = _outcome(estimator, probe)
    if probe["kind"] != estimator.density_kind_:
        raise ValueError(f"its scores were {probe['kind']!r} and are {estimator.density_kind_!r}")
    if "scores" in found:
        if not _close(found["scores"], probe["scores"], estimator.dtype_).all():
            raise ValueError(
                f"its probe rows score {found['scores'].tolist()} and scored "
                f"{np.asarray(probe['scores']).tolist()} when it was saved"
            )
    # Another release of torch may draw other numbers from a seed: then draws cannot be compared.
    elif np.allclose(found["noise"], probe["noise"]):
        near = _close(found["draws"], probe["draws"], estimator.dtype_)
        # A draw within rounding error of the edge between two codes may get either code.
        n_allowed = max(1, near.size // 100) if estimator.schema_.quantized.any() else 0
        if (~near).sum() > n_allowed:
            raise ValueError("it does not draw what it drew when it was saved")


def _run_unprobed(estimator: Any) -> None:
    """Run an estimator that has no probe rows within the limit of work. Errors of models pass."""
    with contextlib.suppress(*_MODEL_ERRORS), Budget(_MOST_OPERATIONS, _entries(estimator)):
        _outcome(estimator, _rows(estimator))


def _close(found: Any, stored: Any, dtype: str) -> np.ndarray:
    found, stored = np.asarray(found, float), np.asarray(stored, float)
    if found.shape != stored.shape:
        raise ValueError(f"its probe rows have shape {found.shape}, and had {stored.shape}")
    tolerance = _TOLERANCE[dtype]
    return np.isclose(found, stored, rtol=tolerance, atol=tolerance, equal_nan=True)


def _entries(estimator: Any) -> int:
    """Limit of the entries of one tensor: a multiple of those of the model, at least a fixed number."""
    sizes = [v.size for v in vars(estimator).values() if isinstance(v, np.ndarray)]
    if hasattr(estimator, "module_"):
        sizes += [t.numel() for t in estimator.module_.state_dict().values()]
    return max(_MOST_ENTRIES, 64 * sum(sizes))


def _rows(estimator: Any) -> dict[str, Any]:
    """The rows as typed events, for text as strings, and their context."""
    codec = estimator.codec_
    if isinstance(codec, TextCodec):
        return {"rows": _strings(codec), "context": _sources(estimator)}
    context = _typed_context(estimator._context_schema)
    with torch.no_grad(), seeded(_SEED):
        typed = _draw(estimator, context)
    return {"rows": typed.astype(np.float32), "context": context}


def _outcome(estimator: Any, probe: dict[str, Any]) -> dict[str, Any]:
    kind, context = estimator.density_kind_, probe["context"]
    if not hasattr(estimator, "score_samples"):
        with torch.no_grad(), seeded(_SEED):
            draws = _draw(estimator, context)
            return {"kind": kind, "draws": draws, "noise": torch.randn(8).numpy()}
    rows = probe["rows"]
    if isinstance(rows, np.ndarray):
        rows = estimator.codec_.decode(torch.tensor(rows, dtype=torch.float64))
    given = _context_rows(estimator, context)
    return {"kind": kind, "scores": estimator.score_samples(rows, context=given)}


def _draw(estimator: Any, context: np.ndarray | None) -> np.ndarray:
    encoded = estimator._context_of_draws(_context_rows(estimator, context))
    typed: np.ndarray = torch.cat(list(estimator._sample_events(_ROWS, encoded))).numpy()
    return typed


def _sources(estimator: Any) -> list[str] | None:
    """Source strings of a model whose context is text; None for other models."""
    codec = estimator.context_codec_
    if not isinstance(codec, TextCodec) or estimator._context.optional:
        return None
    return _strings(codec)


def _context_rows(estimator: Any, typed: Any) -> Any:
    if typed is None or isinstance(typed, list):
        return typed
    shape = estimator.context_codec_.schema.event_shape
    return estimator._context.decode(torch.tensor(typed).reshape(-1, *shape))


def _typed_context(schema: Schema | None) -> np.ndarray | None:
    """Artificial contexts, since a fit stores none: each code in turn, integers at their center, and
    numbers around theirs."""
    if schema is None or schema.modality == "text":
        return None
    row = np.arange(_ROWS)[:, None]
    codes, numbers = row % np.maximum(schema.cardinality, 1), (row - 1.5) / 1.5
    return np.where(schema.cardinality > 0, codes, np.where(schema.width > 0, 0.0, numbers))


def _strings(codec: TextCodec) -> list[str]:
    """Random strings, each symbol of which is at most one token."""
    rng = np.random.default_rng(_SEED)
    between = " " if codec.tokens == "word" else ""
    symbols = codec.symbols.split(" ") if between else list(codec.symbols)
    symbols = symbols or list("abcdefghijklmnopqrstuvwxyz ")
    n = min(_LETTERS, codec.schema.event_shape[0] - 1)
    return [between.join(rng.choice(symbols, n)) for _ in range(_ROWS)]
