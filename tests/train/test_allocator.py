"""Memory that stays with the process for a while, and then goes back."""

import ctypes
import mmap
import sys

import pytest
import torch

from convlite.train.allocator import freed_memory_kept

MANY = 2**26  # numbers: 256 MiB


def _resident() -> int:
    """Bytes of memory that the process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallopt"), reason="only with glibc"
)
def test_freed_memory_stays_while_it_lasts_and_no_longer():
    torch.ones(MANY)
    before = _resident()
    with freed_memory_kept():
        torch.ones(MANY)
        assert _resident() - before > 2 * MANY
    assert _resident() - before < MANY
    torch.ones(MANY)
    assert _resident() - before < MANY
