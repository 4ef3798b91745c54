"""Install densekit in fresh environments and run a fast part of the tests: ``python tests/versions.py``.

- Python 3.11 with the lower bounds of the core dependencies, as ``pyproject.toml`` states them.
- Python 3.12 and 3.13 with the versions of ``constraints.txt``, where these interpreters are found.
  They also compile all files, warnings as errors, for which no package is needed.

An environment is skipped, with the reason, if its interpreter is not on this machine or if pip finds no
CPU wheel of torch for it; the files are compiled then too. ``PIP_EXTRA_INDEX_URL`` or
``PIP_FIND_LINKS`` may name a place that has one.
The exit status is 1 if a file does not compile or a test fails.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
FAST = ["tests/test_core.py", "tests/test_params.py", "tests/test_exports.py"]
TOOLS = ["pytest", "hypothesis"]


def lower_bounds() -> list[str]:
    """The core dependencies at their lowest declared versions, ``name==version``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [dependency.replace(">=", "==") for dependency in project["dependencies"]]


def pinned() -> list[str]:
    """The core dependencies, to be installed with the versions of ``constraints.txt``."""
    return [re.split("[>=]", dependency)[0] for dependency in lower_bounds()]


def interpreter(version: str) -> str | None:
    """Path of a Python of a version such as ``"3.12"``, or None."""
    folders = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin"))
    for path in (
        sys.executable,
        shutil.which(f"python{version}"),
        *(f / "python" for f in folders),
    ):
        if path is None:
            continue
        asked = [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        answer = subprocess.run(asked, capture_output=True, text=True, check=False)
        if answer.stdout.strip() == version:
            return str(path)
    return None


def compiles(python: str) -> bool:
    """Whether a Python compiles all files of the package without a warning, leaving no files behind."""
    code = (
        "import pathlib, sys\n"
        "for p in sorted(pathlib.Path('densekit').rglob('*.py')):\n"
        "    compile(p.read_text(encoding='utf-8'), str(p), 'exec')"
    )
    command = [python, "-W", "error", "-c", code]
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def check(version: str, packages: list[str], constraints: list[str], label: str) -> bool:
    """Whether the tests pass, or cannot be run, in a fresh environment of a Python version."""
    start, python = time.monotonic(), interpreter(version)
    if python is None:
        print(f"{label}: skipped, no Python {version} on this machine")
        return True
    if not compiles(python):
        print(f"{label}: a file does not compile")
        return False
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        python = str(Path(folder) / "bin" / "python")
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        torch = next(p for p in packages if p.startswith("torch="))
        if subprocess.run([*pip, f"{torch}+cpu"], capture_output=True, check=False).returncode:
            print(f"{label}: skipped, pip finds no CPU wheel of {torch} for Python {version}")
            return True
        subprocess.run([*pip, *constraints, *packages, *TOOLS], check=True)
        # An old release may be deprecated by another one: warnings are not errors here.
        options = [
            "-q",
            "-p",
            "no:cacheprovider",
            "-o",
            "addopts=",
            "-o",
            "filterwarnings=default",
        ]
        command = [python, "-m", "pytest", "--import-mode=importlib", *options, *FAST]
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False
        )
    print(f"{label}: exit status {done.returncode} after {time.monotonic() - start:.0f} s")
    return done.returncode == 0


def main() -> int:
    """Check every environment and return the exit status."""
    constraints = ["-c", str(ROOT / "constraints.txt")]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    torch = next(line for line in lines if line.startswith("torch=="))
    packages = [torch, *(name for name in pinned() if name != "torch")]
    passed = [check("3.11", lower_bounds(), [], "Python 3.11 with lower bounds")]
    passed += [check(v, packages, constraints, f"Python {v}") for v in ("3.12", "3.13")]
    return int(not all(passed))


if __name__ == "__main__":
    sys.exit(main())
