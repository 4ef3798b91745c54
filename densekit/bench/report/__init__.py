"""The results of a benchmark as one page that needs nothing but a browser."""

from densekit.bench.report.report import write_report

__all__ = ["write_report"]
