import io

import pytest
from rich.console import Console

from densekit.bench import Record, Run, Suite
from densekit.bench.progress import Bars, Lines, watching

RUNS = (Run("digits", "VAE", "VAE"), Run("two_moons", "GAN", "[GAN]"))
SUITE = Suite("tiny", "", RUNS)


def record(run, **values):
    return Record.of("tiny", run, **values)


def test_a_log_gets_a_line_for_each_run():
    console = Console(file=io.StringIO(), width=40)
    with watching(SUITE, console) as watcher:
        assert type(watcher) is Lines
        for run in RUNS:
            watcher.started(run)
            watcher.progressed(run, "fit", 0.5, 1.0)
        watcher.finished(RUNS[1], record(RUNS[1], status="ok", times={"fit": 1.25}))
        watcher.finished(RUNS[0], record(RUNS[0], reason="ValueError: [bold]no"))
    assert console.file.getvalue().splitlines() == [
        "[1/2] two_moons [GAN]  no density, by design, fit 1.2 s",
        "[2/2] digits VAE       FAILED: ValueError: [bold]no",
    ]


def test_a_terminal_gets_bars_for_the_suite_and_the_fit_in_hand():
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    with watching(SUITE, console) as watcher:
        assert type(watcher) is Bars
        watcher.started(RUNS[0])
        watcher.progressed(RUNS[0], "fit", 0.5, -3.25)
        watcher.bars.refresh()
        (task,) = [task for task in watcher.bars.tasks if task.description == "  digits VAE"]
        assert task.completed == pytest.approx(0.02 + 0.83 / 2)
        assert watcher.bars.tasks[0].completed == 0
        watcher.finished(RUNS[0], record(RUNS[0], status="ok"))
        assert watcher.bars.tasks[0].completed == 1
        assert len(watcher.bars.tasks) == 1
    out = console.file.getvalue()
    assert "suite tiny" in out
    assert "fit, loss -3.25" in out
    assert "[1/2] digits VAE" in out
