"""Devices by name, seeds from random states, generators left alone."""

import random
import threading

import numpy as np
import pytest
import torch

from densekit.runtime import resolve_device, resolve_seed, seeded


@pytest.mark.parametrize("name", ["gpu", "cpu:x", "", "mps", "meta"])
def test_an_unknown_device_is_an_error_that_lists_the_known(name):
    with pytest.raises(ValueError, match="device="):
        resolve_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_named():
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(ValueError, match=r"device='cuda': .*use device='auto'"):
        resolve_device("cuda")


@pytest.mark.parametrize("bad", [-1, 2**32, "0", 1.0, True, [1]])
def test_a_wrong_random_state_is_named(bad):
    with pytest.raises(ValueError, match="random_state="):
        resolve_seed(bad)


def test_seeds_repeat_for_integers_and_advance_callers_generators():
    assert resolve_seed(3) == 3
    state = np.random.RandomState(0)
    assert resolve_seed(state) != resolve_seed(state)
    assert resolve_seed(None) != resolve_seed(None)


def test_global_generators_are_left_as_found():
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    with seeded(5):
        torch.rand(3)
    resolve_seed(None)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()
    assert before[2] == random.getstate()


def test_threads_with_equal_seeds_draw_equal_numbers():
    draws = {}

    def draw(name):
        with seeded(11):
            draws[name] = [torch.rand(1000) for _ in range(50)]

    threads = [threading.Thread(target=draw, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for other in range(1, 4):
        assert all(torch.equal(a, b) for a, b in zip(draws[0], draws[other], strict=True))
