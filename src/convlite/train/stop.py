"""Ctrl-C and SIGTERM, while a run must not be left in the middle of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """A context in which the first signal waits for the end of the step; a second one does not.

    Arguments:
        together: whether several processes must stop after the same step, which `asked` is then for.
    """

    def __init__(self, together: bool = False) -> None:
        self.asked = self.stepping = False
        self.together = together
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():  # no other can take signals
            self._before = {number: signal.signal(number, self._take) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    @contextmanager
    def step(self) -> Iterator[None]:
        """What is within is done wholly; where it raises, `stepping` stays true."""
        self.stepping = True
        yield
        self.stepping = False
        if self.asked and not self.together:
            raise KeyboardInterrupt

    def _take(self, number: int, frame: FrameType | None) -> None:
        again, self.asked = self.asked, True
        if again or not (self.stepping or self.together):
            raise KeyboardInterrupt
