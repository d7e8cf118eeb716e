"""The progress of training on stderr: a bar while it runs, and a line that stays for each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from .history import Epoch
from .state import State, Sums


class Bar:
    """A context: `step` moves the bar, `epoch` leaves a line, `say` another. Silent unless `show`."""

    def __init__(self, epochs: int, steps: int, show: bool) -> None:
        self._epochs = epochs
        self._console = Console(stderr=True, quiet=not show)
        self._progress = Progress(
            TextColumn("epoch {task.fields[epoch]}" + f"/{epochs}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  accuracy {task.fields[accuracy]:.1%}"),
            TextColumn("{task.fields[speed]:.0f} images/s"),
            TimeRemainingColumn(),
            console=self._console,
            refresh_per_second=4,  # drawing takes time from training
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("", total=epochs * steps, epoch=1, loss=0.0, accuracy=0.0, speed=0.0)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def step(self, epoch: int, sums: Sums) -> None:
        """One more step; the figures shown are means over the epoch so far."""
        self._progress.update(
            self._task, advance=1, epoch=epoch, loss=sums.loss / sums.judged, accuracy=sums.right / sums.judged,
            speed=sums.images / sums.seconds,
        )  # fmt: skip

    def resumed(self, path: Path, state: State, steps: int, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        """The run goes on from a checkpoint; where that is not on the same machine, what it means."""
        self._progress.update(self._task, completed=(state.epoch - 1) * steps + state.steps)
        self.say(f"resumed from {path}: epoch {state.epoch}, after step {state.steps} of {steps}")
        other = [f"{name} {was[name]}, now {now[name]}" for name in now if was[name] != now[name]]
        if other:
            self.say(f"It ran on other means ({'; '.join(other)}): it goes on the same but for rounding.")

    def epoch(self, done: Epoch) -> None:
        """An epoch is over."""
        tested = "" if done.test_accuracy is None else f"  test {done.test_accuracy:.2%}"
        self.say(
            f"epoch {done.number}/{self._epochs}  loss {done.loss:.3f}  accuracy {done.train_accuracy:.2%}"
            f"{tested}  {done.seconds:.1f} s  {done.images_per_second:.0f} images/s"
        )

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
