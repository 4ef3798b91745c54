"""Memory of the kernels is reused, and a list full of old blocks does not prevent that."""

import torch

from densekit.kernels.instructions import _MAX_SPARE_BLOCKS, MemoryBlock


def test_blocks_are_reused_though_the_list_is_full_of_other_sizes(monkeypatch):
    monkeypatch.setattr(MemoryBlock, "_spare", [torch.empty(16) for _ in range(_MAX_SPARE_BLOCKS)])
    first = MemoryBlock(4000, 4000)
    place = first._memory.data_ptr()
    del first
    assert len(MemoryBlock._spare) == _MAX_SPARE_BLOCKS
    second = MemoryBlock(4000, 4000)
    assert second._memory.data_ptr() == place
