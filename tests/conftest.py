"""Options of the test run, and a torch that does not fight the other workers for cores."""

import os
import pathlib
import time

import pytest


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="where models run: cpu, cuda or auto")
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_configure(config):
    # A folder of data sets that lies beside the checkout, so that tests of real data run without
    # a download; where there is none and DENSEKIT_DATA is not set, they are skipped.
    data = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
    if "DENSEKIT_DATA" not in os.environ and data.is_dir():
        os.environ["DENSEKIT_DATA"] = str(data)
    if os.environ.get("PYTEST_XDIST_WORKER"):
        import torch

        torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter):
    # Not the header, which -q leaves out.
    folder = os.environ.get("DENSEKIT_DATA")
    said = folder or "no folder of them; DENSEKIT_DATA may name one"
    terminalreporter.write_line(f"data sets: {said}")


def pytest_collection_modifyitems(config, items):
    on_gpu = config.getoption("--device").startswith("cuda")
    for item in items:
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))
        if "gpu" in item.keywords and not on_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a GPU: run with --device cuda"))


class Clock:
    """Seconds that pass when a test says so, and at no other time: a shared machine may stop a test for
    as long as it likes."""

    def __init__(self, now=1000.0):
        self.now = now

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """What ``time.perf_counter()`` and ``time.monotonic()`` return in this process."""
    clock = Clock()
    for name in ("perf_counter", "monotonic"):
        monkeypatch.setattr(time, name, clock)
    return clock


@pytest.fixture(scope="session")
def device(request):
    """The device that the run was asked to use."""
    return request.config.getoption("--device")
