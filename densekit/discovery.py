"""Every estimator of the package, found by walking it."""

import ast
import functools
import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densekit.abilities import Capabilities

if TYPE_CHECKING:
    from densekit.base import DensityEstimator

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

    _check(family, modality)
    found: dict[str, type[DensityEstimator]] = {}
    for name_of_family in FAMILIES if family is None else (family,):
        package = importlib.import_module(f"densekit.{name_of_family}")
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


def _check(family: str | None, modality: str | None) -> None:
    if family is not None and family not in FAMILIES:
        raise ValueError(f"family={family!r} must be one of {', '.join(FAMILIES)}")
    if modality not in (None, "table", "image", "text"):
        raise ValueError(f"modality={modality!r} must be one of table, image, text")


def listed(
    family: str | None = None, modality: str | None = None
) -> dict[str, tuple[str, Capabilities]]:
    """Family and capabilities of the estimators of :func:`all_estimators`, which are not imported: that
    takes seconds. What their classes state is read from the source.

    Raises
    ------
    ValueError
        An unknown family or modality.

    Examples
    --------
    >>> family, can = listed()["GAN"]
    >>> family, can.density, can.modalities
    ('gans', 'none', ('table', 'image'))
    """
    import densekit

    _check(family, modality)
    homes = {name: home.split(".") for name, home in densekit._EXPORTS.items()}
    models = {name: home for name, home in homes.items() if len(home) == 3 and home[1] in FAMILIES}
    order = sorted(
        models, key=lambda name: (FAMILIES.index(models[name][1]), models[name][2], name)
    )
    found = {}
    for name in order:
        home = models[name]
        if family in (None, home[1]):
            can = _stated(".".join(home), name)
            if can is None:  # no source here, or no literals there
                can = getattr(importlib.import_module(".".join(home)), name)._capabilities
            if modality is None or modality in can.modalities:
                found[name] = (home[1], can)
    return found


def _stated(module: str, name: str) -> Capabilities | None:
    """The capabilities that a class or the nearest of its bases states; None where they cannot be
    read."""
    body = _source(module)
    kind = next((n for n in body if isinstance(n, ast.ClassDef) and n.name == name), None)
    if kind is None:
        return None
    for node in kind.body:
        if isinstance(node, ast.AnnAssign | ast.Assign) and node.value is not None:
            targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
            if "_capabilities" in map(ast.unparse, targets):
                return _read_literals(node.value)
    imported = {
        alias.asname or alias.name: (str(node.module), alias.name)
        for node in body
        if isinstance(node, ast.ImportFrom) and not node.level
        for alias in node.names
    }
    bases = (base.id for base in kind.bases if isinstance(base, ast.Name))
    found = (_stated(*imported.get(base, (module, base))) for base in bases)
    return next((can for can in found if can is not None), None)


def _read_literals(value: ast.expr) -> Capabilities | None:
    if not isinstance(value, ast.Call) or value.args:
        return None
    try:
        return Capabilities(**{str(k.arg): ast.literal_eval(k.value) for k in value.keywords})
    except (ValueError, TypeError):
        return None


@functools.cache
def _source(module: str) -> list[ast.stmt]:
    """The statements of a module of densekit; none of another's, or where there is no source."""
    own, *rest = module.split(".")
    path = Path(__file__).parent.joinpath(*rest).with_suffix(".py")
    try:
        return ast.parse(path.read_bytes()).body if own == "densekit" else []
    except OSError:
        return []


def family_of(estimator: Any) -> str:
    """The family of one of our estimators (instance or class); ``"other"`` for anyone else's."""
    kind = estimator if inspect.isclass(estimator) else type(estimator)
    parts = kind.__module__.split(".")
    return parts[1] if parts[0] == "densekit" and parts[1] in FAMILIES else "other"


def capabilities(estimator: Any) -> Capabilities:
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
    from sklearn.utils import get_tags

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
