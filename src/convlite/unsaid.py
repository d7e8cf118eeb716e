"""What compiled libraries write past Python, and can't be told not to."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator

OUT, ERRORS = 1, 2  # as the system numbers them

_one_at_a_time = threading.RLock()  # or one thread would put back what another had put there


@contextlib.contextmanager
def unsaid(stream: int) -> Iterator[None]:
    """Meanwhile nothing that the process writes to OUT or ERRORS is seen, from whatever thread: keep it short."""
    with _one_at_a_time, contextlib.ExitStack() as undo:
        try:
            before = os.dup(stream)
        except OSError:  # closed: nobody would see it
            yield
            return
        undo.callback(os.close, before)
        nothing = os.open(os.devnull, os.O_WRONLY)
        undo.callback(os.close, nothing)
        _flush()
        os.dup2(nothing, stream)
        try:
            yield
        finally:
            _flush()  # while it goes nowhere
            os.dup2(before, stream)


def _flush() -> None:
    """Write out what C's own streams hold back, as they do where they lead to a file or a pipe."""
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
