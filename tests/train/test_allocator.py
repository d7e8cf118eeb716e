"""Memory that stays with the process for a while, and then goes back."""

import ctypes
import mmap
import sys

import pytest
import torch

from convlite.train.allocator import freed_memory_kept, hand_back_freed_memory

MANY = 2**26  # numbers: 256 MiB


def _resident() -> int:
    """Bytes of memory that the process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE


glibc = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "mallopt"), reason="only with glibc"
)


@glibc
def test_freed_memory_stays_while_it_lasts_and_no_longer():
    torch.ones(MANY)
    before = _resident()
    with freed_memory_kept():
        torch.ones(MANY)
        assert _resident() - before > 2 * MANY
    assert _resident() - before < MANY
    torch.ones(MANY)
    assert _resident() - before < MANY


@glibc
def test_what_is_free_between_what_is_in_use_goes_back():
    hand_back_freed_memory()
    before = _resident()
    held = [torch.ones(2**13) for _ in range(2**12)]  # 32 KiB each: too small to be mapped apart
    held = held[::8]
    kept = _resident()
    hand_back_freed_memory()
    assert kept - before > 2**26 and _resident() - before < (kept - before) / 2
    assert all(bool((one == 1).all()) for one in held)
