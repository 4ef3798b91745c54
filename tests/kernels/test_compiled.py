"""Compiled loops are used if numba is installed; otherwise there is a one-line message."""

import importlib.util

import pytest
import torch

from densekit.kernels import compiled
from densekit.kernels.compiled import kernel
from densekit.transforms.linear import Diagonal

NAME = "densekit.kernels.layers"


@pytest.fixture
def forgotten():
    for cached in (compiled.kernel, compiled._has_numba):
        cached.cache_clear()
    yield
    for cached in (compiled.kernel, compiled._has_numba):
        cached.cache_clear()


def test_one_line_says_that_numba_is_missing(monkeypatch, caplog, forgotten):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with caplog.at_level("INFO", "densekit.kernels"):
        for name in (NAME, "densekit.kernels.spline"):
            assert kernel(name) is None
    assert caplog.text.count("plain torch") == 1
    assert "densekit[fast]" in caplog.text


def test_the_environment_switches_them_off(monkeypatch, caplog, forgotten):
    monkeypatch.setenv("DENSEKIT_KERNELS", "0")
    assert kernel(NAME) is None
    assert not caplog.text


def test_loading_is_logged_and_happens_before_training(caplog, forgotten):
    pytest.importorskip("numba", reason="numba is not installed")
    with caplog.at_level("INFO", "densekit.kernels"):
        compiled.load_for(torch.nn.Linear(2, 2))
        assert not caplog.text
        compiled.load_for(Diagonal(2))
    assert "loading densekit.kernels.tape" in caplog.text


def test_they_serve_float32_on_a_cpu_alone():
    pytest.importorskip("numba", reason="numba is not installed")
    x = torch.ones(2)
    assert compiled.compiled(NAME, x) is not None
    assert compiled.compiled(NAME, x, x.double()) is None
    assert compiled.compiled(NAME, x[:0]) is None
