"""Make the report page of each recorded benchmark, which is not committed: the records are."""

from pathlib import Path

from densekit.bench.report import write_report


def make(results: Path) -> None:
    """Write ``report.html`` into each folder of records whose page is missing or older than they are."""
    for records in sorted(results.glob("*/records.jsonl")):
        page = records.with_name("report.html")
        if not page.exists() or page.stat().st_mtime < records.stat().st_mtime:
            write_report(records.parent)
