"""Common functions of the benchmarks: description of the machine, timing, and storage of results."""

import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("densekit", "torch", "pyro-ppl", "numpy", "scipy", "scikit-learn")


def environment() -> dict[str, Any]:
    """Command, date, versions and machine of a result."""
    import torch

    return {
        "command": " ".join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "processor": _processor(),
            "cores": os.cpu_count(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "load_before": [round(x, 2) for x in os.getloadavg()],
        },
    }


def interleaved(functions: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call over interleaved rounds, so that a busy machine affects all calls equally.

    Each function is called once before the timing. Every second round is in reverse order.
    """
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for i in range(rounds):
        for name in list(functions)[:: -1 if i % 2 else 1]:
            start = time.perf_counter()
            functions[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], slow: str, fast: str) -> float:
    """Median over rounds of the time of ``slow`` divided by the time of ``fast``."""
    pairs = zip(seconds[slow], seconds[fast], strict=True)
    return statistics.median(a / b for a, b in pairs)


def write(name: str, record: dict[str, Any]) -> Path:
    """Store ``record`` as ``results/<name>.json`` and print it."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    text = json.dumps(record, indent=1, sort_keys=False)
    path.write_text(text + "\n")
    print(text)
    return path


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()
