"""Probe rows: a few rows with their scores, kept in a file and checked when it is loaded.

A file that loads but does not score as it did is worse than one that does not load. The rows are
drawn from the model (text: strings of random symbols, since a draw has no bound on its cost), and are
scored on the CPU, whatever the model was fitted on and will run on. A model without a density has
draws of a fixed seed in the place of scores.
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
"""Relative, and absolute in nats: libraries and processors round differently."""
_UNABLE = (ValueError, RuntimeError, ArithmeticError, NotImplementedError)
"""What a model raises that cannot be drawn from or scored: it is saved without probe rows."""


def make(estimator: Any) -> dict[str, Any] | None:
    """Probe rows of a fitted estimator, as plain values and arrays; None, with a warning, where the
    model cannot be drawn from or scored, or only with more work than a save may take."""
    # As fitted: of parameters that were set since there is nothing to warn here.
    twin = estimator._as_fitted()._on_device("cpu")
    try:
        with Budget(_MOST_OPERATIONS, _entries(twin)) as budget:
            probe = _rows(twin)
            before = budget.spent
            probe |= _outcome(twin, probe)
        probe["operations"] = budget.spent - before
    except _UNABLE as error:
        warnings.warn(
            f"{type(estimator).__name__} is saved without probe rows, so that load cannot check its "
            f"scores ({type(error).__name__}: {error})",
            UserWarning,
            stacklevel=4,
        )
        return None
    return probe


def check(estimator: Any, probe: dict[str, Any] | None) -> None:
    """Raise ValueError unless an estimator on the CPU makes of its probe rows what it made of them
    when it was saved."""
    if probe is None:
        _try(estimator)
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
    # Another release of torch may draw other numbers from a seed, and then there is nothing to check.
    elif np.allclose(found["noise"], probe["noise"]):
        near = _close(found["draws"], probe["draws"], estimator.dtype_)
        # A draw within rounding of the edge between two codes may fall on either side.
        spare = max(1, near.size // 100) if estimator.schema_.quantized.any() else 0
        if (~near).sum() > spare:
            raise ValueError("it does not draw what it drew when it was saved")


def _try(estimator: Any) -> None:
    """Raise unless an estimator that was saved without probe rows fails as it did then, or does not."""
    with contextlib.suppress(*_UNABLE), Budget(_MOST_OPERATIONS, _entries(estimator)):
        _outcome(estimator, _rows(estimator))


def _close(found: Any, stored: Any, dtype: str) -> np.ndarray:
    found, stored = np.asarray(found, float), np.asarray(stored, float)
    if found.shape != stored.shape:
        raise ValueError(f"its probe rows have shape {found.shape}, and had {stored.shape}")
    tolerance = _TOLERANCE[dtype]
    return np.isclose(found, stored, rtol=tolerance, atol=tolerance, equal_nan=True)


def _entries(estimator: Any) -> int:
    """Entries that one tensor may have: many times what the model holds, and never less than a fixed
    number."""
    held = [v.size for v in vars(estimator).values() if isinstance(v, np.ndarray)]
    if hasattr(estimator, "module_"):
        held += [t.numel() for t in estimator.module_.state_dict().values()]
    return max(_MOST_ENTRIES, 64 * sum(held))


def _rows(estimator: Any) -> dict[str, Any]:
    """The rows, as typed events (text: as strings), and the context that goes with them."""
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
    """What the rows are written from, where a model writes from strings."""
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
    """Contexts are not kept by a fit, so these are made up: each code in turn, integers at their
    middle, numbers about theirs."""
    if schema is None or schema.modality == "text":
        return None
    row = np.arange(_ROWS)[:, None]
    codes, numbers = row % np.maximum(schema.cardinality, 1), (row - 1.5) / 1.5
    return np.where(schema.cardinality > 0, codes, np.where(schema.width > 0, 0.0, numbers))


def _strings(codec: TextCodec) -> list[str]:
    """Random symbols, each one token at most."""
    rng = np.random.default_rng(_SEED)
    between = " " if codec.tokens == "word" else ""
    symbols = codec.symbols.split(" ") if between else list(codec.symbols)
    symbols = symbols or list("abcdefghijklmnopqrstuvwxyz ")
    n = min(_LETTERS, codec.schema.event_shape[0] - 1)
    return [between.join(rng.choice(symbols, n)) for _ in range(_ROWS)]
