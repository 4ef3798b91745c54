"""Addresses of runs: a digest of everything that the result of a run depends on.

A run whose address has a record does not need to be repeated.
"""

import ast
import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import platform
from collections.abc import Iterator
from pathlib import Path

from densekit.bench.suite import Run

_PACKAGE = Path(__file__).parents[1]
_EVERY_RUN = "densekit.bench.worker"
# Libraries whose versions change a model's numbers or its splits.
_LIBRARIES = (
    "torch", "pyro-ppl", "numpy", "scipy", "pandas", "scikit-learn"
)  # fmt: skip
# Fields that cannot change a result. The limits decide only whether there is one.
_IGNORED_FIELDS = ("label", "baseline", "time_limit", "memory_limit")


def address(run: Run) -> str:
    """Digest of everything that the result of ``run`` depends on.

    These are the fields of the run except its label and limits; the content of a data file, but not its
    path; the source of the model and of all modules of densekit that the model or the worker imports,
    which includes the preprocessing and checksums of data sets; and the versions of Python and of the
    numerical libraries. For a third-party model, the source is its module with all imports from its own
    package and from densekit, and the version of its package counts too.

    Returns
    -------
    address : str
        The first sixteen hexadecimal digits of a SHA-256.

    Examples
    --------
    >>> run = Run("two_moons", "Gaussian", "Gaussian")
    >>> address(run) == address(dataclasses.replace(run, label="mine"))
    True
    >>> address(run) == address(dataclasses.replace(run, seed=1))
    False
    """
    fields = {
        name: value
        for name, value in dataclasses.asdict(run).items()
        if name not in _IGNORED_FIELDS
    }
    if run.file is not None:
        fields["file"] = run.file.address_fields()
    parts = [json.dumps(fields, sort_keys=True, default=repr), *_versions(), _source(run.model)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _versions() -> Iterator[str]:
    yield platform.python_version()
    for name in _LIBRARIES:
        yield f"{name} {importlib.metadata.version(name)}"


@functools.cache
def _source(model: str) -> str:
    """Digest of the source code that ``model`` and the worker import."""
    import densekit

    module, _, _ = model.rpartition(":")
    module = module or densekit._EXPORTS.get(model, _EVERY_RUN)
    sha = hashlib.sha256()
    for path in sorted(_closure(module) | _closure(_EVERY_RUN)):
        sha.update(path.name.encode() + path.read_bytes())
    for path in sorted((_PACKAGE / "datasets").glob("*.toml")):
        sha.update(path.read_bytes())
    for name in distributions(model):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            sha.update(importlib.metadata.version(name).encode())
    return sha.hexdigest()


def distributions(model: str) -> tuple[str, ...]:
    """Names of the installed distributions of a third-party model ``"package.module:name"``."""
    package = model.rpartition(":")[0].split(".")[0]
    if package in ("", "densekit"):
        return ()
    return tuple(importlib.metadata.packages_distributions().get(package, ()))


def _closure(module: str) -> frozenset[Path]:
    """Source files of a module and of everything it imports from densekit and its own package.

    Imports inside functions count too.
    """
    seen: set[Path] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        path = _path(name, module.split(".")[0])
        if path is not None and path not in seen:
            seen.add(path)
            pending.extend(_imports(path, name))
    return frozenset(seen)


def _imports(path: Path, module: str) -> Iterator[str]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            try:
                base = importlib.util.resolve_name(name, package) if node.level else name
            except ImportError:  # A relative import beyond the top-level package is never valid.
                continue
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@functools.cache
def _path(module: str, root: str) -> Path | None:
    """The source file of a module of densekit or of the package ``root``; None for other modules."""
    package, *rest = module.split(".")
    if package == "densekit" and rest:
        stem = _PACKAGE.joinpath(*rest)
        return next(
            (p for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()), None
        )
    if package != root or package == "densekit":
        return None
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # The name is that of a function or class.
        return None
    origin = spec.origin if spec else None
    return Path(origin) if origin and origin.endswith(".py") else None
