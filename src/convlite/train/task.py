"""What a network is to learn, as one value: how wrong an answer is, what counts as right, how it is measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from ..data import Data, Source
from .metrics import Score, check_fit, evaluate
from .segmentation import Segmentation, SegmentScore

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # of inputs, logits and targets: a scalar


class Task(Protocol):
    """All that training asks of a task; what is judged may be images, or pixels of them."""

    def check(self, model: nn.Module, data: Data) -> None:
        """Raise InputError where the network doesn't fit the data; it is left as it was."""

    def loss(self, inputs: Tensor, logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        """Mean over all that is judged: a scalar."""

    def judged(self, targets: Tensor) -> int:
        """How many things are judged: batches and parts of them are weighed by it."""

    def right(self, logits: Tensor, targets: Tensor) -> Tensor:
        """How many of them are answered right: a scalar."""

    def measure(
        self, model: nn.Module, images: Source, data: Data, *, progress: bool = True
    ) -> Score | SegmentScore:
        """How good the network is on images of the data; every process calls it."""


@dataclass(frozen=True)
class Classification:
    """One class an image; targets are class numbers, int64 (N,), or shares of the classes, (N, classes).

    Arguments:
        own_loss: of inputs, logits and targets, in the place of cross entropy with label smoothing.
    """

    own_loss: Loss | None = None

    def check(self, model: nn.Module, data: Data) -> None:
        check_fit(model, data.shape, len(data.classes))

    def loss(self, inputs: Tensor, logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        if self.own_loss is not None:
            return self.own_loss(inputs, logits, targets)
        return F.cross_entropy(logits, targets, label_smoothing=smoothing)

    def judged(self, targets: Tensor) -> int:
        return len(targets)

    def right(self, logits: Tensor, targets: Tensor) -> Tensor:
        labels = targets if targets.dim() == 1 else targets.argmax(1)  # (N,)
        return (logits.argmax(1) == labels).sum()

    def measure(self, model: nn.Module, images: Source, data: Data, *, progress: bool = True) -> Score:
        return evaluate(model, images, data, progress=progress)


def task_of(data: Data, dice: float = 0.0) -> Task:
    """What there is to learn from the data: a class for each image, or for each pixel where labels are masks.

    Arguments:
        dice: how much the Dice loss counts for masks.
    """
    return Classification() if data.ignore is None else Segmentation(data.ignore, dice)
