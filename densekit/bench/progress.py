"""Progress of a suite: bars in a terminal, otherwise one line per finished run."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from densekit.bench.records import Record
from densekit.bench.suite import Run, Suite
from densekit.bench.table import amount, labels, result

# Position in the bar of a run at which each stage starts.
_STAGE_START = {"load": 0.0, "fit": 0.02, "score": 0.85, "sample": 0.93}


class Lines:
    """Prints one line per finished run."""

    def __init__(self, suite: Suite, console: Console):
        self.console, self.total, self.done = console, len(suite.runs), 0
        names = labels({**vars(run), "key": run.key} for run in suite.runs)
        self.names = {run.key: f"{run.data} {names[run.key]}" for run in suite.runs}
        self.width = max(map(len, self.names.values()))

    def kept(self, records: list[Record], folder: Path) -> None:
        """Print how many runs are not repeated."""
        self.done = len(records)
        self.console.print(
            f"{self.done} of {self.total} runs have up-to-date records in {folder} and are not repeated",
            highlight=False,
            soft_wrap=True,
        )

    def started(self, run: Run) -> None:
        """Print nothing: a log has results only."""

    def progressed(self, run: Run, stage: str, share: float, loss: float | None) -> None:
        """Print nothing: a log has results only."""

    def finished(self, run: Run, record: Record) -> None:
        """Print the result of the run."""
        self.done += 1
        count = f"[{self.done:>{len(str(self.total))}}/{self.total}]"
        fit = record.times.get("fit")
        fitted = f", fit {amount(fit)} s" if fit is not None else ""
        style = "red" if record.status == "failed" else ""
        line = f"{count} {self.names[run.key]:<{self.width}}  {result(record)}{fitted}"
        self.console.print(escape(line), style=style, highlight=False, soft_wrap=True)


class Bars(Lines):
    """Shows one bar for the suite and one per active run, below the lines of finished runs."""

    def __init__(self, suite: Suite, console: Console, bars: Progress):
        super().__init__(suite, console)
        self.bars = bars
        self.tasks: dict[str, TaskID] = {}
        self.suite = bars.add_task(f"suite {suite.name}", total=self.total, note="importing")

    def started(self, run: Run) -> None:
        """Add a bar."""
        self.bars.update(self.suite, note="")
        self.tasks[run.key] = self.bars.add_task(
            "  " + self.names[run.key], total=1.0, note="start"
        )

    def kept(self, records: list[Record], folder: Path) -> None:
        """Advance the bar of the suite by the runs that are not repeated."""
        super().kept(records, folder)
        self.bars.update(self.suite, completed=self.done)

    def progressed(self, run: Run, stage: str, share: float, loss: float | None) -> None:
        """Advance the bar of the run."""
        done = _STAGE_START[stage] + (share * 0.83 if stage == "fit" else 0)
        note = stage if loss is None else f"{stage}, loss {loss:.4g}"
        self.bars.update(self.tasks[run.key], completed=done, note=note)

    def finished(self, run: Run, record: Record) -> None:
        """Replace the bar of the run by a line with its result."""
        self.bars.remove_task(self.tasks.pop(run.key))
        super().finished(run, record)
        self.bars.advance(self.suite)


@contextlib.contextmanager
def watching(suite: Suite, console: Console) -> Iterator[Lines]:
    """A watcher for ``console``: bars in a terminal, otherwise lines."""
    if not console.is_terminal:
        yield Lines(suite, console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        yield Bars(suite, console, bars)
