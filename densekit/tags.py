"""What a model can do, as data, and where scikit-learn looks for it."""

import copy
from dataclasses import dataclass, fields
from typing import Literal, Self

from sklearn.utils import Tags

DensityKind = Literal["exact", "lower_bound", "estimate", "none"]


@dataclass(frozen=True)
class Capabilities:
    """What a model can do, as data: readable without fitting it.

    ``density`` is the kind of its score over the events it is given; the codec may lower it
    (dequantised pixels turn exact into a lower bound), so ``density_kind_`` after fit is the last word.
    """

    density: DensityKind
    view: Literal["typed", "relaxed"]
    modalities: tuple[str, ...]
    context: Literal["none", "features", "prompt", "text"] = "none"
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


@dataclass(slots=True)
class DensityTags(Tags):
    """scikit-learn's tags with a density estimator's capabilities beside them."""

    capabilities: Capabilities | None = None

    @classmethod
    def beside(cls, inherited: Tags, capabilities: Capabilities) -> Self:
        """The tags of an estimator that can do so much."""
        tags = cls(
            **{f.name: getattr(inherited, f.name) for f in fields(inherited)},
            capabilities=capabilities,
        )
        tags.estimator_type = "density_estimator"
        tags.input_tags = copy.copy(tags.input_tags)
        tags.input_tags.two_d_array = "table" in capabilities.modalities
        tags.input_tags.three_d_array = "image" in capabilities.modalities
        tags.input_tags.allow_nan = capabilities.missing
        tags.input_tags.string = "text" in capabilities.modalities
        return tags
