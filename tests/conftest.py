"""Options and fixtures of all tests; under xdist, torch uses one thread per worker."""

import os
import pathlib
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="where models run: cpu, cuda or auto")
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_configure(config):
    # Tests of real data use a folder next to the checkout, if it exists, instead of downloads. Without
    # it and without DENSEKIT_DATA they are skipped.
    data = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
    if "DENSEKIT_DATA" not in os.environ and data.is_dir():
        os.environ["DENSEKIT_DATA"] = str(data)
    if os.environ.get("PYTEST_XDIST_WORKER"):
        import torch

        torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter):
    # The option -q suppresses the header, so the line is in the summary.
    folder = os.environ.get("DENSEKIT_DATA")
    terminalreporter.write_line(f"data sets: {folder or 'none; set DENSEKIT_DATA to a folder'}")


def pytest_collection_modifyitems(config, items):
    on_gpu = config.getoption("--device").startswith("cuda")
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))
        if "gpu" in item.keywords and not on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a GPU: run with --device cuda"))


class Clock:
    """A clock that only a test advances, so that a busy machine cannot affect the result."""

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """Replace ``time.perf_counter()`` and ``time.monotonic()`` by a clock that the test advances."""
    clock = Clock()
    for name in ("perf_counter", "monotonic"):
        monkeypatch.setattr(time, name, clock)
    return clock


@pytest.fixture(scope="session")
def device(request):
    """The device of the option ``--device``."""
    return request.config.getoption("--device")
