"""Options of the test run, and a torch that does not fight the other workers for cores."""

import os
import pathlib

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


@pytest.fixture(scope="session")
def device(request):
    """The device that the run was asked to use."""
    return request.config.getoption("--device")
