"""Tables: columns of any kind to standardised numbers and codes, and back."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from densekit.codecs.base import Codec
from densekit.codecs.schema import Column, Modality, Schema


class TableCodec(Codec):
    """First version: float arrays only."""

    modality: ClassVar[Modality] = "table"
    options: ClassVar[tuple[str, ...]] = ("support", "kinds")

    def __init__(
        self,
        support: str | tuple[str | float, ...] | Mapping[Any, Any] | None = None,
        kinds: Mapping[Any, str] | None = None,
    ) -> None:
        self.support = support
        self.kinds = kinds

    def fit(self, X: Any) -> "TableCodec":
        x = np.asarray(X, dtype=np.float64)
        loc, scale = x.mean(0), x.std(0)
        self.dtype = str(np.asarray(X).dtype)
        columns = tuple(
            Column(f"x{j}", "real", self.dtype, loc=float(loc[j]), scale=float(scale[j]))
            for j in range(x.shape[1])
        )
        d = len(columns)
        self.schema = Schema(
            "table",
            (d,),
            cardinality=np.zeros(d, int),
            ordered=np.zeros(d, bool),
            width=np.zeros(d),
            shift=np.zeros(d),
            spread=np.ones(d),
            names=tuple(c.name for c in columns),
            columns=columns,
        )
        return self

    def encode(self, X: Any) -> tuple[Tensor, Tensor]:
        x = np.asarray(X, dtype=np.float64)
        loc = np.array([c.loc for c in self.schema.columns])
        scale = np.array([c.scale for c in self.schema.columns])
        ladj = np.full(len(x), -np.log(scale).sum())
        return torch.from_numpy((x - loc) / scale), torch.from_numpy(ladj)

    def decode(self, typed: Tensor) -> Any:
        x = typed.detach().cpu().double().numpy()
        loc = np.array([c.loc for c in self.schema.columns])
        scale = np.array([c.scale for c in self.schema.columns])
        return (x * scale + loc).astype(self.dtype)
