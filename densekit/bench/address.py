"""What a run's result depends on, as one number: the run of the same number need not be repeated."""

import ast
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
_LIBRARIES = ("torch", "scikit-learn", "numpy")
# A name, a mark, and bounds that decide whether there is a result but not which.
_NOT_COUNTED = ("label", "baseline", "time_limit", "memory_limit")


def address(run: Run) -> str:
    """Sixteen hexadecimal digits of SHA-256 over all that the result of ``run`` depends on.

    That is what the suite says of it (but not its label), the source of its model and of every
    module of densekit that the model or the benchmark's worker imports, and the versions of
    Python, torch, NumPy and scikit-learn. The source stands for the data too: recipes and
    checksums are part of it. A model that is not ours counts by its module's source and by the
    version of its package.

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
    parts = [json.dumps(said, sort_keys=True, default=repr), *_versions(), _source(run.model)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _versions() -> Iterator[str]:
    yield platform.python_version().rpartition(".")[0]
    for name in _LIBRARIES:
        yield f"{name} {importlib.metadata.version(name)}"


@functools.cache
def _source(model: str) -> str:
    """Digest of the code behind ``model``."""
    import densekit

    sha = hashlib.sha256()
    module, _, _ = model.rpartition(":")
    ours = {_EVERY_RUN}
    if not module:
        ours.add(densekit._EXPORTS.get(model, _EVERY_RUN))
    elif module.split(".")[0] == "densekit":
        ours.add(module)
    else:
        sha.update(_foreign(module))
    for path in sorted(_closure(frozenset(ours))):
        sha.update(path.relative_to(_PACKAGE).as_posix().encode() + path.read_bytes())
    for path in sorted((_PACKAGE / "datasets").glob("*.toml")):
        sha.update(path.read_bytes())
    return sha.hexdigest()


def _foreign(module: str) -> bytes:
    """The module's source, and its package's version where it was installed as one."""
    spec = importlib.util.find_spec(module)
    origin = spec.origin if spec else None
    source = Path(origin).read_bytes() if origin and origin.endswith(".py") else b""
    package = module.split(".")[0]
    names = importlib.metadata.packages_distributions().get(package, [package])
    try:
        return source + importlib.metadata.version(names[0]).encode()
    except importlib.metadata.PackageNotFoundError:
        return source


@functools.cache
def _closure(modules: frozenset[str]) -> frozenset[Path]:
    """Files of these modules and of all modules of densekit that they import, wherever in the
    file they do."""
    seen: set[Path] = set()
    waiting = [path for name in modules if (path := _path(name))]
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting.extend(_imports(path))
    return frozenset(seen)


def _imports(path: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (found for name in names if (found := _path(name)))


def _path(module: str) -> Path | None:
    """The file of a module of densekit; None of anything else."""
    root, *rest = module.split(".")
    if root != "densekit" or not rest:
        return None
    stem = _PACKAGE.joinpath(*rest)
    for path in (stem.with_suffix(".py"), stem / "__init__.py"):
        if path.is_file():
            return path
    return None
