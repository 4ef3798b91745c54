"""Benchmarks: a suite's runs, each in its own process, to records and tables."""

from densekit.extras import require

require("bench", "filelock", "jinja2", "joblib", "matplotlib", "psutil", "pyarrow", "rich")

from densekit.bench.records import Record, append, read
from densekit.bench.runner import run_suite
from densekit.bench.suite import Run, Suite, check, load_suite, suites
from densekit.bench.table import tables

__all__ = [
    "Record",
    "Run",
    "Suite",
    "append",
    "check",
    "load_suite",
    "read",
    "run_suite",
    "suites",
    "tables",
]
