"""What happened in training, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images.

    Arguments:
        number: counted from 1.
        loss: mean over the images, as each was seen; with label smoothing it does not fall to 0.
        train_accuracy: share of the images answered right, as each was seen.
        test_accuracy: the task's measure of the held-out images afterwards, for images of one class each the
            share answered right; None if not asked for.
        seconds: of training, without that measurement.
        images_per_second: in training.
        rate: the learning rate of its last step.
    """

    number: int
    loss: float
    train_accuracy: float
    test_accuracy: float | None
    seconds: float
    images_per_second: float
    rate: float = 0.0


@dataclass(frozen=True)
class History:
    """All passes so far."""

    epochs: tuple[Epoch, ...] = ()

    @property
    def seconds(self) -> float:
        """Seconds of training in all."""
        return sum(epoch.seconds for epoch in self.epochs)

    @property
    def last(self) -> Epoch:
        """The last pass."""
        return self.epochs[-1]

    @property
    def best(self) -> Epoch | None:
        """The first pass with the highest measure; None if none was measured."""
        measured = [epoch for epoch in self.epochs if epoch.test_accuracy is not None]
        return max(measured, key=lambda epoch: epoch.test_accuracy or 0.0, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"seconds": self.seconds, "epochs": [asdict(epoch) for epoch in self.epochs]}

    @staticmethod
    def from_dict(known: Mapping[str, Any]) -> History:
        """What `to_dict` wrote."""
        return History(tuple(Epoch(**epoch) for epoch in known["epochs"]))
