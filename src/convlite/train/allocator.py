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
            ctypes.CDLL(None).malloc_trim(0)


def _set(limits: dict[int, int]) -> bool:
    mallopt: Any = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform.startswith("linux") else None
    return mallopt is not None and all(mallopt(name, value) for name, value in limits.items())
