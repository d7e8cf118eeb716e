"""What a run leaves in its folder.

RUN/model.safetensors, config.json   the network after the last whole epoch
RUN/best/                            the one that was best on the held-out images, where they were measured
RUN/metrics.jsonl                    a line an epoch
RUN/checkpoints/                     see checkpoint.py
RUN/tensorboard/                     where asked for
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError, need
from ..files import check_writable, write_text
from ..models.saved import save
from . import checkpoint
from .checkpoint import Say
from .history import Epoch
from .state import State


@dataclass(frozen=True)
class Keep:
    """What of a run is kept, besides the network after every epoch.

    Arguments:
        steps: write a checkpoint after so many steps too, and not only after each epoch.
        last: how many checkpoints stay.
        tensorboard: write what TensorBoard shows.

    Raises:
        InputError: a number below 1.
    """

    steps: int | None = None
    last: int = 2
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if self.last < 1 or (self.steps is not None and self.steps < 1):
            raise InputError(
                f"Keep at least 1 checkpoint, after 1 step or more, not {self.last} after {self.steps}."
            )


class Folder:
    """The folder of one run, in the process that writes it.

    Arguments:
        identity, place: of the run, as in checkpoint.py.

    Raises:
        InputError: it can't be written to, or TensorBoard's package is missing.
    """

    def __init__(self, path: Path, keep: Keep, identity: Mapping[str, Any], place: Mapping[str, Any]) -> None:
        check_writable(path)
        self.path, self.keep = path, keep
        self._identity, self._place = identity, place
        self._board: Any = None
        if keep.tensorboard:
            need("tensorboard", "board")
            self._board = need("torch.utils.tensorboard", "board").SummaryWriter(path / "tensorboard")

    def checkpoint(self, state: State, steps: int) -> None:
        """Write the whole state after so many steps in all."""
        checkpoint.write(self.path, state, steps, self._identity, self._place, self.keep.last)

    def publish(self, state: State, about: Mapping[str, Any]) -> None:
        """After an epoch: the network as it is to be used, and the figures."""
        last = state.history.last
        with nullcontext() if state.average is None else state.average.within(state.net):
            save(state.net, self.path, about)
            if state.history.best == last:
                save(state.net, self.path / "best", about)
        lines = [json.dumps(asdict(epoch)) for epoch in state.history.epochs]
        write_text(self.path / "metrics.jsonl", "\n".join(lines) + "\n")
        if self._board is not None:
            self._show(last)

    def close(self) -> None:
        """Nothing more will be written."""
        if self._board is not None:
            self._board.close()

    def _show(self, epoch: Epoch) -> None:
        for name, value in asdict(epoch).items():
            if name != "number" and value is not None:
                self._board.add_scalar(name, value, epoch.number)
        self._board.flush()


def found(path: Path, resume: bool, say: Say) -> checkpoint.Checkpoint | None:
    """The checkpoint that a run in this folder goes on from; None to begin anew.

    Raises:
        InputError: not to be resumed, although an unfinished run is there.
    """
    if resume:
        newest = checkpoint.newest(path, say)
        if newest is None:
            say(f"{path} holds no checkpoint yet: the run begins anew.")
        return newest
    if (old := checkpoint.newest(path, say)) is not None:
        done, epochs = len(old.numbers["history"]["epochs"]), old.run["recipe"]["epochs"]
        if done < epochs:
            raise InputError(
                f"{path} holds a run stopped after {done} of {epochs} epochs: --resume it, or give another --out."
            )
    return None
