"""Benchmarks: run the models of a suite in separate processes, and store and print the results."""

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
