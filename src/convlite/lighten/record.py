"""What a lightening gave: the network, and how each stage of the work went."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from ..cost import Cost
from .answers import Answers
from .plan import Plan


@dataclass(frozen=True)
class Stage:
    """What one stage of the work gave.

    Arguments:
        name: what was done.
        seconds: how long it took.
        error: squared error of the outputs after it, relative to their variance, on images that no layer
            was fitted to, though how the outputs feel errors is seen on them.
        tried: that error before it was undone, where the stage had made the network worse; else the same.
        watched: what the caller's `watch` said of the network then.
    """

    name: str
    seconds: float
    error: float
    tried: float
    watched: float | None


@dataclass(frozen=True)
class Record:
    """How a lightening went: its stages in order, and the costs as analysed before and after.

    Arguments:
        probed: of each plan that was built to choose among them, the predicted error and the measured one.
    """

    stages: tuple[Stage, ...]
    before: Cost
    after: Cost
    images: int
    seed: int
    probed: tuple[tuple[float, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Light:
    """The light network in eval mode, the plan it was built by, and the record of the work."""

    model: nn.Module
    plan: Plan
    record: Record


class Log:
    """The stages so far; a change that takes the outputs further from the original's is undone."""

    def __init__(
        self, unseen: Answers, watch: Callable[[nn.Module], float] | None, say: Callable[[str], object]
    ) -> None:
        self.unseen, self.watch, self.say = unseen, watch, say
        self.stages: list[Stage] = []
        self.begun = time.monotonic()

    def stage(
        self, name: str, model: nn.Module, change: Callable[[], object] | None = None, *, undo: bool = True
    ) -> None:
        """Make the change, if it helps, and record where the model then stands.

        Arguments:
            undo: whether it has to help. Not where labels are learnt: those take the outputs away from the
                original's where it is wrong, and most networks know the labels of pictures set aside by heart,
                for they were trained on them. A light network forgets that, which says nothing of new pictures.
        """
        self.say(name)
        before = copy.deepcopy(model.state_dict()) if change else {}
        if change:
            change()
        seconds = time.monotonic() - self.begun
        self.say(f"measuring after {name}")
        error = tried = self.unseen.error(model)
        if change:
            last = self.stages[-1].error
            if not (error <= last or math.isnan(last) if undo else math.isfinite(error)):
                model.load_state_dict(before)
                error = last
        watched = self.watch(model) if self.watch else None
        self.stages.append(Stage(name, seconds, error, tried, watched))
        self.begun = time.monotonic()
