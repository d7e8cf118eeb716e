"""A progress bar on stderr, for what turns out to take long."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

PATIENCE = 2.0  # seconds of silence before a bar appears


def track(items: Iterable[T], total: int, label: str, show: bool = True) -> Iterator[T]:
    """The items one by one, with a bar on stderr once they have taken over two seconds."""
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(label, total=total)
    begun, shown = time.monotonic(), False
    try:
        for done, item in enumerate(items):
            if show and not shown and time.monotonic() - begun > PATIENCE:
                bar.start()
                shown = True
            if shown:
                bar.update(task, completed=done)
            yield item
    finally:
        if shown:
            bar.stop()
