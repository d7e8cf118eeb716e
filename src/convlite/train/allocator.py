"""Memory that stays with the process: on Linux, training is slower without it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # from glibc's malloc.h
LARGEST = 2**25  # bytes, beyond which glibc maps each block by itself, once it has freed one as large
MAPPED = 2**16  # blocks that it maps, at most


def keep_freed_memory() -> bool:
    """Tell glibc's allocator not to hand freed memory back to the system; for the whole process.

    A training step allocates and frees the same activations each time. By default large ones are mapped and
    unmapped, and the system clears every page anew.

    Returns:
        Whether it took effect: only with glibc.
    """
    return _set({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1})


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """The same while this lasts; then what is free goes back, and the allocator works as it does by itself."""
    kept = keep_freed_memory()
    try:
        yield
    finally:
        if kept:
            _set({M_MMAP_MAX: MAPPED, M_MMAP_THRESHOLD: LARGEST, M_TRIM_THRESHOLD: 2 * LARGEST})
            hand_back_freed_memory()


def hand_back_freed_memory() -> None:
    """Let what is free go back to the system, also from between what is in use, which glibc does not by itself."""
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _set(limits: dict[int, int]) -> bool:
    mallopt = _of_glibc("mallopt")
    return mallopt is not None and all(mallopt(name, value) for name, value in limits.items())


def _of_glibc(name: str) -> Any:
    """A function of the allocator, or None."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
