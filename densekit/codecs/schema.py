"""What a codec learned of the data, and the two views of an event.

*Typed*: numbers standardized, discrete entries as integer codes ``0 .. K-1``, integers of a table
standardized, text as token ids. A column with atoms has two entries: an indicator, a code that is 0
off the atoms and k on atom k, and behind it the value, which is 0 on the atoms. *Relaxed*: everything
continuous. With ``u`` uniform on [0, 1)

.. math::  z &= (\\Phi^{-1}(F_k + u (F_{k+1} - F_k)) - m) / s && \\text{codes, indicators too} \\\\
           z &= t + w u && \\text{integers, } w = 1 / \\text{scale} \\\\
           z &= t && \\text{numbers} \\\\
           z &= \\Phi^{-1}(u) && \\text{the value of a row that sits on an atom}

so that a density :math:`p(z)` bounds the mass from below,
:math:`\\log P(x) \\ge E_u[\\log p(z(u)) + \\log |dz/du|]` (Theis et al. 2016; Ho et al. 2019). The
normal quantile makes codes exactly standard normal if each code k has the share
:math:`F_{k+1} - F_k`: that of the training rows (tables; add-one smoothed, so that no level has
none), 1/K (images, with m and s to standardize).
"""

import functools
import math
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from densekit.codecs.measure import ColumnMeasure, Measure
from densekit.containers.rows import Modality as Modality

Kind = Literal[
    "real", "integer", "boolean", "ordinal", "categorical", "datetime", "constant", "derived"
]
Value = str | int | float | bool
_LATER = {"later": True}
"""Metadata of a field that came after files had been saved: where it is empty, digests leave it out,
so that those of older files hold (`densekit.files`)."""


@dataclass(frozen=True)
class Column:
    """One column of a table, as the codec read it."""

    name: str
    """Its name; for arrays ``"x0"``, ``"x1"``, ..."""
    kind: Kind
    dtype: str
    """The dtype it came with, as the codec needs it to give the column back."""
    support: tuple[str | int | float, ...] = ("real",)
    """``("real",)``, ``("positive",)``, ``("at_least", low)``, ``("at_most", high)``, ``("interval",
    low, high)`` or ``("circle", low, high)``; ends of integers are integers, of datetimes ticks."""
    loc: float = 0.0
    scale: float = 1.0
    levels: tuple[Value, ...] = ()
    """The values of a discrete column in code order; of a constant column its one value; of a derived
    column its value for each level of the column that it is derived from."""
    origin: int = 0
    """Integers and datetimes (in ticks of ``unit``): taken away first, in exact arithmetic."""
    unit: str = ""
    """Datetimes: NumPy's unit of a tick, ``"D"``, ``"s"``, ``"ms"``, ``"us"`` or ``"ns"``."""
    spikes: tuple[float, ...] = field(default=(), metadata=_LATER)
    """Integers: common values that are not atoms, which typed models may give a mass of their own on
    top of that of their neighbors."""
    seen: tuple[int, ...] = field(default=(), metadata=_LATER)
    seen_rows: tuple[int, ...] = field(default=(), metadata=_LATER)
    """Integers of which values come again and again beside the spikes: all values, in order, and how
    many rows have each."""
    atoms: tuple[int | float, ...] = field(default=(), metadata=_LATER)
    """Values with a mass of their own and an indicator, in order; of datetimes ticks."""
    step: int | float = field(default=0, metadata=_LATER)
    """Step of the grid of all values, to which decoding rounds, for datetimes in ticks; 0 for none."""
    open_ends: bool = field(default=False, metadata=_LATER)
    """Whether ends of the support that are not atoms are excluded from it."""
    parent: int | str = field(default="", metadata=_LATER)
    """Label of the column that a derived one is a function of."""

    @property
    def in_event(self) -> bool:
        """Whether an event has an entry of it: a constant or derived column is left out."""
        return self.kind not in ("constant", "derived")

    @property
    def ends(self) -> tuple[int | float | None, int | float | None]:
        """The smallest and the largest value that the support lets it have; None where there is none."""
        match self.support:
            case ("positive",):
                return 0.0, None
            case ("at_least", low):
                return low, None  # type: ignore[return-value]
            case ("at_most", high):
                return None, high  # type: ignore[return-value]
            case ("interval" | "circle", low, high):
                return low, high  # type: ignore[return-value]
        return None, None


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
    """The step between neighboring integers in event units (1/scale), 0 for numbers and codes."""
    shift: np.ndarray = field(default_factory=lambda: np.zeros(0))
    spread: np.ndarray = field(default_factory=lambda: np.ones(0))
    """Standardization of relaxed codes: m and s above."""
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
    pairs: tuple[tuple[int, int], ...] = field(default=(), metadata=_LATER)
    """Of each column with atoms the places of its indicator and of its value."""

    @property
    def n_dims(self) -> int:
        """Number of entries of one event."""
        return math.prod(self.event_shape)

    @functools.cached_property
    def quantized(self) -> np.ndarray:
        """Which entries have a mass and not a density: codes and integers."""
        return (self.cardinality > 0) | (self.width > 0)

    @property
    def circles(self) -> dict[int, Column]:
        """Columns whose support is a circle, by the place of their value."""
        if not self.columns:
            return {}
        pairs = zip(self.varying, self.places, strict=True)
        return {at[-1]: c for c, at in pairs if c.support[0] == "circle"}

    @property
    def varying(self) -> list[Column]:
        """Columns that an event has an entry of, in its order."""
        return [c for c in self.columns if c.in_event]

    @property
    def places(self) -> list[tuple[int, ...]]:
        """Of each varying column the places of its entries: of its indicator, where it has one, and
        of its value or code."""
        values = set(dict(self.pairs).values())
        indicators = dict(self.pairs)
        singles = (j for j in range(self.n_dims) if j not in values)
        return [(j, indicators[j]) if j in indicators else (j,) for j in singles]

    @property
    def base_measure(self) -> str:
        """``"lebesgue"``, ``"counting"`` or ``"product"`` (some entries of each)."""
        if self.modality == "text":
            return "counting"
        if not self.quantized.any():
            return "product" if self.constants else "lebesgue"
        return "counting" if self.quantized.all() else "product"

    @property
    def measure(self) -> Measure:
        """What a score is a density over, column by column."""
        if self.modality == "text":
            return Measure((ColumnMeasure("strings", counting=True),))
        if self.modality == "image":
            counting = bool(self.quantized.all())
            return Measure((ColumnMeasure("pixels", "" if counting else "1", counting),))
        return Measure(tuple(_measure_of(c) for c in self.columns))

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
        return {k: v for k, v in vars(self).items() if k not in ("_tensors", "quantized")}

    def relax(self, typed: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Typed events (n, \\*event_shape) and noise in [0, 1) of that shape (or (1, ...)) to
        relaxed events and log|dz/du|, (n,)."""
        if not self.quantized.any():
            return typed, typed.new_zeros(len(typed))
        card, width, shift, spread, edges = self._on(typed)
        codes = card > 0
        low, share = self._place(typed, card, edges)
        if self.pairs:
            # The value of a row on an atom is as a code that holds all of (0, 1).
            hidden = self.hidden(typed)
            codes = codes | hidden
            low, share = torch.where(hidden, 0.0, low), torch.where(hidden, 1.0, share)
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
        if not self.quantized.any():
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
        typed = torch.where(card > 0, codes, torch.where(width > 0, integers, events))
        return torch.where(self.hidden(typed), 0.0, typed) if self.pairs else typed

    def hidden(self, typed: Tensor) -> Tensor:
        """Which entries of typed events (n, D) say nothing: values of rows that sit on an atom."""
        mask = torch.zeros_like(typed, dtype=torch.bool)
        for indicator, value in self.pairs:
            mask[..., value] = typed[..., indicator] > 0
        return mask

    @property
    def n_features(self) -> int:
        """Number of columns of :meth:`features`: one for each level of an unordered category, one for
        every other entry."""
        one_hot = (self.cardinality > 2) & ~self.ordered
        return int(np.where(one_hot, self.cardinality, 1).sum())

    def features(self, typed: Tensor) -> Tensor:
        """Convert typed events to inputs of a network, (n, n_features).

        Numbers are unchanged, ordered and binary codes are scaled to [-1, 1], and other codes are
        one-hot."""
        x = typed.flatten(1)
        card = torch.as_tensor(self.cardinality, dtype=x.dtype, device=x.device)
        x = torch.where(card > 0, 2 * x / (card - 1).clamp_min(1) - 1, x)
        one_hot = np.flatnonzero((self.cardinality > 2) & ~self.ordered)
        if not len(one_hot):
            return x
        flat = typed.flatten(1)
        parts, start = [], 0
        for j in one_hot:
            codes = flat[:, j].long().clamp(0, int(self.cardinality[j]) - 1)
            parts += [x[:, start:j], torch.nn.functional.one_hot(codes, int(self.cardinality[j]))]
            start = int(j) + 1
        return torch.cat([p.to(x.dtype) for p in [*parts, x[:, start:]]], 1)


def _measure_of(column: Column) -> ColumnMeasure:
    if not column.in_event or column.levels or column.kind == "integer" or column.unit == "D":
        return ColumnMeasure(column.name, counting=True)
    if column.kind != "datetime":
        return ColumnMeasure(column.name, "1", bool(column.atoms), column.atoms)
    atoms = tuple(str(np.array(t).astype(f"datetime64[{column.unit}]")) for t in column.atoms)
    return ColumnMeasure(column.name, "seconds", bool(atoms), atoms)
