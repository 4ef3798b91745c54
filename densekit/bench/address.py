"""What a run's result depends on, as one number: the run of the same number need not be repeated."""

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
# A name, a mark, and bounds that decide whether there is a result but not which.
_NOT_COUNTED = ("label", "baseline", "time_limit", "memory_limit")


def address(run: Run) -> str:
    """Sixteen hexadecimal digits of SHA-256 over all that the result of ``run`` depends on.

    That is what the suite says of it (but not its label), the content of its data where they are a file
    (but not where that lies), the source of its model and of every
    module of densekit that the model or the benchmark's worker imports, and the versions of
    Python and of the libraries below. The source stands for the data too: recipes and checksums
    are part of it. A model that is not ours counts by its module, by what that imports of its own
    package and of densekit, and by its package's version.

    Examples
    --------
    >>> run = Run("two_moons", "Gaussian", "Gaussian")
    >>> address(run) == address(dataclasses.replace(run, label="mine"))
    True
    >>> address(run) == address(dataclasses.replace(run, seed=1))
    False
    """
    said = {
        name: value for name, value in dataclasses.asdict(run).items() if name not in _NOT_COUNTED
    }
    if run.file is not None:
        said["file"] = run.file.counted()
    parts = [json.dumps(said, sort_keys=True, default=repr), *_versions(), _source(run.model)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _versions() -> Iterator[str]:
    yield platform.python_version()
    for name in _LIBRARIES:
        yield f"{name} {importlib.metadata.version(name)}"


@functools.cache
def _source(model: str) -> str:
    """Digest of the code behind ``model``."""
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
    """Names under which the package of a ``"package.module:name"`` was installed; none of ours."""
    package = model.rpartition(":")[0].split(".")[0]
    if package in ("", "densekit"):
        return ()
    return tuple(importlib.metadata.packages_distributions().get(package, ()))


def _closure(module: str) -> frozenset[Path]:
    """Files of the module and of all that it imports of densekit and of its own package, wherever
    in the file it does."""
    seen: set[Path] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _path(name, module.split(".")[0])
        if path is not None and path not in seen:
            seen.add(path)
            waiting.extend(_imports(path, name))
    return frozenset(seen)


def _imports(path: Path, module: str) -> Iterator[str]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = "." * node.level + (node.module or "")
            try:
                base = importlib.util.resolve_name(above, package) if node.level else above
            except ImportError:  # beyond the top: it could not be imported either
                continue
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@functools.cache
def _path(module: str, root: str) -> Path | None:
    """The source of a module of densekit or of ``root``; None of anything else."""
    own, *rest = module.split(".")
    if own == "densekit" and rest:
        stem = _PACKAGE.joinpath(*rest)
        return next(
            (p for p in (stem.with_suffix(".py"), stem / "__init__.py") if p.is_file()), None
        )
    if own != root or own == "densekit":
        return None
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # a name of a module, and not a module
        return None
    origin = spec.origin if spec else None
    return Path(origin) if origin and origin.endswith(".py") else None
