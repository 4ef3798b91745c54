"""Every estimator of the package, found by walking it."""

import importlib
import inspect
import pkgutil
from typing import TYPE_CHECKING, Any

from sklearn.utils import get_tags

if TYPE_CHECKING:
    from densekit.base import Capabilities, DensityEstimator

FAMILIES = ("classical", "flows", "vaes", "autoregressive", "gans", "score")
"""The survey's sections, and our folders."""


def all_estimators(
    family: str | None = None, modality: str | None = None
) -> "dict[str, type[DensityEstimator]]":
    """Estimator classes by name, in the order of the families.

    Parameters
    ----------
    family : {"classical", "flows", "vaes", "autoregressive", "gans", "score"}, optional
    modality : {"table", "image", "text"}, optional

    Raises
    ------
    ValueError
        An unknown family or modality.

    Examples
    --------
    >>> sorted(all_estimators(family="classical"))
    ['Gaussian', 'GaussianMixture', 'KernelDensity']
    """
    from densekit.base import DensityEstimator

    if family is not None and family not in FAMILIES:
        raise ValueError(f"family={family!r} must be one of {', '.join(FAMILIES)}")
    if modality not in (None, "table", "image", "text"):
        raise ValueError(f"modality={modality!r} must be one of table, image, text")
    found: dict[str, type[DensityEstimator]] = {}
    for room in FAMILIES if family is None else (family,):
        package = importlib.import_module(f"densekit.{room}")
        for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda m: m.name):
            module = importlib.import_module(f"{package.__name__}.{info.name}")
            found |= {
                name: value
                for name, value in sorted(vars(module).items())
                if inspect.isclass(value)
                and issubclass(value, DensityEstimator)
                and not inspect.isabstract(value)
                and value.__module__ == module.__name__
                and (modality is None or modality in value._capabilities.modalities)
            }
    return found


def family_of(estimator: Any) -> str:
    """The family of one of our estimators (instance or class); ``"other"`` for anyone else's."""
    kind = estimator if inspect.isclass(estimator) else type(estimator)
    parts = kind.__module__.split(".")
    return parts[1] if parts[0] == "densekit" and parts[1] in FAMILIES else "other"


def capabilities(estimator: Any) -> "Capabilities":
    """What an estimator can do: density kind, modalities, context; read from its tags.

    Raises
    ------
    TypeError
        The estimator declares none, so it is not one of densekit's kind.

    Examples
    --------
    >>> from densekit import Gaussian
    >>> capabilities(Gaussian()).density
    'exact'
    """
    if inspect.isclass(estimator):
        declared = getattr(estimator, "_capabilities", None)
    elif not hasattr(estimator, "__sklearn_tags__"):
        declared = None
    else:
        declared = getattr(get_tags(estimator), "capabilities", None)
    if declared is None:
        raise TypeError(
            f"{estimator!r} declares no capabilities: only densekit's estimators and those whose "
            "tags carry densekit.Capabilities do"
        )
    return declared
