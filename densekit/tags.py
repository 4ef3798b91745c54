"""Where scikit-learn looks for what a model can do."""

import copy
from dataclasses import dataclass, fields
from typing import Self

from sklearn.utils import Tags

from densekit.abilities import Capabilities as Capabilities
from densekit.abilities import DensityKind as DensityKind


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
