"""What the user sees while a suite runs: bars in a terminal, a line for each run elsewhere."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from densekit.bench.records import Record
from densekit.bench.suite import Run, Suite
from densekit.bench.table import amount, labels, result

# Shares of a run's bar: most of it is the fit.
_SHARE = {"load": 0.0, "fit": 0.02, "score": 0.85, "sample": 0.93}


class Lines:
    """One line for each run that ends."""

    def __init__(self, suite: Suite, console: Console):
        self.console, self.total, self.done = console, len(suite.runs), 0
        names = labels({**vars(run), "key": run.key} for run in suite.runs)
        self.names = {run.key: f"{run.data} {names[run.key]}" for run in suite.runs}
        self.width = max(map(len, self.names.values()))

    def kept(self, records: list[Record], folder: Path) -> None:
        """How many runs need not be repeated."""
        self.done = len(records)
        self.console.print(
            f"{self.done} of {self.total} runs stand unchanged in {folder} and are not repeated",
            highlight=False,
            soft_wrap=True,
        )

    def started(self, run: Run) -> None:
        """Nothing: a log wants results."""

    def progressed(self, run: Run, stage: str, share: float, loss: float | None) -> None:
        """Nothing: a log wants results."""

    def finished(self, run: Run, record: Record) -> None:
        """The line."""
        self.done += 1
        count = f"[{self.done:>{len(str(self.total))}}/{self.total}]"
        fit = record.times.get("fit")
        fitted = f", fit {amount(fit)} s" if fit is not None else ""
        style = "red" if record.status == "failed" else ""
        line = f"{count} {self.names[run.key]:<{self.width}}  {result(record)}{fitted}"
        self.console.print(escape(line), style=style, highlight=False, soft_wrap=True)


class Bars(Lines):
    """A bar for the suite and one for each run in hand; the lines of ended runs above them."""

    def __init__(self, suite: Suite, console: Console, bars: Progress):
        super().__init__(suite, console)
        self.bars = bars
        self.tasks: dict[str, TaskID] = {}
        self.suite = bars.add_task(f"suite {suite.name}", total=self.total, note="importing")

    def started(self, run: Run) -> None:
        """A new bar."""
        self.bars.update(self.suite, note="")
        self.tasks[run.key] = self.bars.add_task(
            "  " + self.names[run.key], total=1.0, note="start"
        )

    def kept(self, records: list[Record], folder: Path) -> None:
        """The suite's bar does not start at nothing."""
        super().kept(records, folder)
        self.bars.update(self.suite, completed=self.done)

    def progressed(self, run: Run, stage: str, share: float, loss: float | None) -> None:
        """The bar moves."""
        done = _SHARE[stage] + (share * 0.83 if stage == "fit" else 0)
        note = stage if loss is None else f"{stage}, loss {loss:.4g}"
        self.bars.update(self.tasks[run.key], completed=done, note=note)

    def finished(self, run: Run, record: Record) -> None:
        """The bar goes, the line comes."""
        self.bars.remove_task(self.tasks.pop(run.key))
        super().finished(run, record)
        self.bars.advance(self.suite)


@contextlib.contextmanager
def watching(suite: Suite, console: Console) -> Iterator[Lines]:
    """The watcher that suits ``console``."""
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
