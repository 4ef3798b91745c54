"""What a codec learnt of the data, and the two views of an event.

*Typed*: numbers standardised, discrete entries as integer codes ``0 .. K-1``, integers of a table
standardised, text as token ids. *Relaxed*: everything continuous. With ``u`` uniform on [0, 1)

.. math::  z = (\\Phi^{-1}(F_k + u (F_{k+1} - F_k)) - m) / s \\quad\\text{(codes)}, \\qquad
           z = t + w u \\quad\\text{(integers, w = 1/scale)}, \\qquad z = t \\quad\\text{(numbers)}

so that a density :math:`p(z)` bounds the mass from below,
:math:`\\log P(x) \\ge E_u[\\log p(z(u)) + \\log |dz/du|]` (Theis et al. 2016; Ho et al. 2019). The
normal quantile makes codes exactly standard normal if each code k has the share
:math:`F_{k+1} - F_k`: that of the training rows (tables; add-one smoothed, so that no level has
none), 1/K (images, with m and s to standardise).
"""

import functools
import math
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Modality = Literal["table", "image", "text"]
Kind = Literal["real", "integer", "boolean", "ordinal", "categorical", "datetime", "constant"]


@dataclass(frozen=True)
class Column:
    """One column of a table, as the codec read it."""

    name: str
    """Its name; for arrays ``"x0"``, ``"x1"``, ..."""
    kind: Kind
    dtype: str
    """The dtype it came with, as the codec needs it to give the column back."""
    support: tuple[str | float, ...] = ("real",)
    """``("real",)``, ``("positive",)``, ``("interval", low, high)`` or ``("circle", low, high)``."""
    loc: float = 0.0
    scale: float = 1.0
    levels: tuple[str | int | float | bool, ...] = ()
    """The values of a discrete column in code order; of a constant column its one value."""
    origin: int = 0
    """Integers and datetimes (in ticks of ``unit``): taken away first, in exact arithmetic."""
    unit: str = ""
    """Datetimes: NumPy's unit of a tick, ``"D"``, ``"s"``, ``"ms"``, ``"us"`` or ``"ns"``."""
    # Digests of files that were written before leave it out where it is empty (densekit.files).
    spikes: tuple[float, ...] = field(default=(), metadata={"later": True})
    """Numbers and integers: values that many rows share, and that have a mass of their own."""
    seen: tuple[int, ...] = field(default=(), metadata={"later": True})
    seen_rows: tuple[int, ...] = field(default=(), metadata={"later": True})
    """Integers of which values come again and again beside the spikes: all values, in order, and how
    many rows have each."""


@dataclass(frozen=True, eq=False)
class Schema:
    """The shape and the types of an event.

    The per-dimension arrays run over the flattened event, ``prod(event_shape)`` long (empty for
    text, where ``vocab_size`` says all).
    """

    modality: Modality
    event_shape: tuple[int, ...]
    cardinality: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    """K where the entry is a code 0..K-1, else 0."""
    ordered: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    """Whether the order of the codes means something (pixels, ordinals, booleans)."""
    width: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """The step between neighbouring integers in event units (1/scale), 0 for numbers and codes."""
    shift: np.ndarray = field(default_factory=lambda: np.zeros(0))
    spread: np.ndarray = field(default_factory=lambda: np.ones(0))
    """Standardisation of relaxed codes: m and s above."""
    edges: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    """F above, (n_dims, greatest K + 1), a row per entry, filled up with ones; empty: k / K."""
    names: tuple[str, ...] = ()
    columns: tuple[Column, ...] = ()
    """Tables: every column of the data, constant ones included, in the user's order."""
    vocab_size: int = 0
    """Text: number of token ids; 0 is padding, 1 the end of a string, 2 an unknown symbol."""
    exact: bool = True
    """False where a typed event has less mass than the row it stands for (BPE tokens)."""
    constants: bool = False
    """Whether columns were left out because they never vary (a point mass each)."""

    @property
    def n_dims(self) -> int:
        """Number of entries of one event."""
        return math.prod(self.event_shape)

    @functools.cached_property
    def quantised(self) -> np.ndarray:
        """Which entries have a mass and not a density: codes and integers."""
        return (self.cardinality > 0) | (self.width > 0)

    @property
    def circles(self) -> dict[int, Column]:
        """Columns whose support is a circle, by the number of their entry."""
        return {j: c for j, c in enumerate(self.varying) if c.support[0] == "circle"}

    @property
    def varying(self) -> list[Column]:
        """Columns that an event has an entry of, in its order."""
        return [c for c in self.columns if c.kind != "constant"]

    @property
    def base_measure(self) -> str:
        """``"lebesgue"``, ``"counting"`` or ``"product"`` (some entries of each)."""
        if self.modality == "text":
            return "counting"
        if not self.quantised.any():
            spiked = any(c.spikes for c in self.columns)
            return "product" if self.constants or spiked else "lebesgue"
        return "counting" if self.quantised.all() else "product"

    def flat(self) -> "Schema":
        """The same schema with events as vectors, for models that know no shape."""
        return replace(self, event_shape=(self.n_dims,))

    # The views. Tensors are cached per device and dtype: they are read at every step of training.

    @functools.cached_property
    def _tensors(self) -> dict[tuple[torch.device, torch.dtype], tuple[Tensor, ...]]:
        return {}

    def _on(self, like: Tensor) -> tuple[Tensor, ...]:
        key = (like.device, like.dtype)
        if key not in self._tensors:
            arrays = (self.cardinality, self.width, self.shift, self.spread)
            flat = [torch.tensor(a, dtype=like.dtype, device=like.device) for a in arrays]
            edges = torch.tensor(self.edges, dtype=like.dtype, device=like.device)
            self._tensors[key] = (*(t.reshape(self.event_shape) for t in flat), edges)
        return self._tensors[key]

    def __getstate__(self) -> dict[str, object]:
        return {k: v for k, v in vars(self).items() if k not in ("_tensors", "quantised")}

    def relax(self, typed: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Typed events (n, \\*event_shape) and noise in [0, 1) of that shape (or (1, ...)) to
        relaxed events and log|dz/du|, (n,)."""
        if not self.quantised.any():
            return typed, typed.new_zeros(len(typed))
        card, width, shift, spread, edges = self._on(typed)
        codes = card > 0
        low, share = self._place(typed, card, edges)
        # Floats inside (0, 1) that the normal quantile maps to finite values.
        tiny = torch.finfo(typed.dtype).eps / 2
        v = (low + share * noise).clamp(tiny, 1 - tiny)
        q = torch.special.ndtri(torch.where(codes, v, 0.5))
        z = torch.where(codes, (q - shift) / spread, typed + width * noise)
        log_phi = -0.5 * q * q - 0.5 * math.log(2 * math.pi)
        code_ladj = torch.log(share / spread) - log_phi
        ladj = torch.where(codes, code_ladj, torch.where(width > 0, width, 1.0).log())
        return z, ladj.expand_as(z).flatten(1).sum(1)

    def _place(self, typed: Tensor, card: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Where in (0, 1) each code begins, and its share."""
        if not len(edges):
            share = 1 / card.clamp_min(1)
            return typed * share, share.expand_as(typed)
        k = torch.minimum(typed.clamp_min(0), (card - 1).clamp_min(0)).long()
        flat, dim = k.reshape(-1, self.n_dims), torch.arange(self.n_dims, device=k.device)
        low, high = edges[dim, flat], edges[dim, flat + 1]
        share = torch.where(card.reshape(-1) > 0, high - low, 1.0)
        return low.reshape(typed.shape), share.reshape(typed.shape)

    def unrelax(self, events: Tensor) -> Tensor:
        """Relaxed events back to typed ones; a value past the last code becomes the last code."""
        if not self.quantised.any():
            return events
        card, width, shift, spread, edges = self._on(events)
        v = torch.special.ndtr(events * spread + shift)
        if len(edges):
            # The code is the number of inner edges that lie at or below v.
            flat = v.reshape(-1, self.n_dims).t().contiguous()
            place = torch.searchsorted(edges[:, 1:-1].contiguous(), flat, right=True)
            codes = place.t().reshape(v.shape).to(v.dtype)
        else:
            codes = (v * card).floor()
        codes = torch.minimum(codes.clamp_min(0), (card - 1).clamp_min(0))
        safe = torch.where(width > 0, width, 1.0)
        integers = torch.floor(events / safe) * safe
        return torch.where(card > 0, codes, torch.where(width > 0, integers, events))

    @property
    def n_features(self) -> int:
        """Width of :meth:`features`."""
        one_hot = (self.cardinality > 2) & ~self.ordered
        return int(np.where(one_hot, self.cardinality, 1).sum())

    def features(self, typed: Tensor) -> Tensor:
        """Typed events as network input, (n, n_features): numbers as they are, ordered and binary
        codes scaled to [-1, 1], other codes one-hot."""
        x = typed.reshape(len(typed), -1)
        card = torch.as_tensor(self.cardinality, dtype=x.dtype, device=x.device)
        x = torch.where(card > 0, 2 * x / (card - 1).clamp_min(1) - 1, x)
        one_hot = np.flatnonzero((self.cardinality > 2) & ~self.ordered)
        if not len(one_hot):
            return x
        flat = typed.reshape(len(typed), -1)
        parts, start = [], 0
        for j in one_hot:
            codes = flat[:, j].long().clamp(0, int(self.cardinality[j]) - 1)
            parts += [x[:, start:j], torch.nn.functional.one_hot(codes, int(self.cardinality[j]))]
            start = int(j) + 1
        return torch.cat([p.to(x.dtype) for p in [*parts, x[:, start:]]], 1)
