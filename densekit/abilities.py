"""What a model can do, as data. Nothing is imported, so that a list of models waits for no library."""

from dataclasses import dataclass
from typing import Literal

DensityKind = Literal["exact", "lower_bound", "estimate", "none"]


@dataclass(frozen=True)
class Capabilities:
    """What a model can do, as data: readable without fitting it.

    ``density`` is the kind of its score over the events it is given; the codec may lower it
    (dequantized pixels turn exact into a lower bound), so ``density_kind_`` after fit is the last word.
    """

    density: DensityKind
    view: Literal["typed", "relaxed"]
    modalities: tuple[str, ...]
    context: str = "none"
    """The kind of context: ``"none"``, ``"features"``, ``"prompt"``, ``"text"``, or the ``kind`` of
    another subclass of ``densekit.contexts.Context``."""
    flat: bool = True
    """Whether events come as vectors, images too."""
    weights: bool = False
    """Whether ``fit`` takes ``sample_weight``."""
    missing: bool = False
    """Whether NaN in a row is a cell that is missing, and left out of its density."""
    score_batch: int = 1024
    """Rows scored at a time: small enough that a network's activations stay in cache."""
    sample_batch: int = 8192

    @property
    def scores(self) -> bool:
        """Whether there is a density, of whatever kind."""
        return self.density != "none"

    @property
    def samples(self) -> bool:
        """Whether it samples: every model does."""
        return True

    @property
    def conditions(self) -> bool:
        """Whether it takes a context."""
        return self.context != "none"
