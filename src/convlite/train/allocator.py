"""Memory that stays with the process: on Linux, training is slower without it."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # from glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tell glibc's allocator not to hand freed memory back to the system; for the whole process.

    A training step allocates and frees the same activations each time. By default large ones are mapped and
    unmapped, and the system clears every page anew.

    Returns:
        Whether it took effect: only with glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
