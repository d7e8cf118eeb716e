"""How a network is trained, as one value that can be printed, saved and compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import InputError, nearest

SCHEDULES = ("cosine", "linear", "constant")


@dataclass(frozen=True)
class Recipe:
    """Stochastic gradient descent with Nesterov momentum, one rise and one fall of the rate.

    Arguments:
        epochs: passes over the training images.
        batch_size: the most images in a step; an epoch is cut into steps of nearly equal size.
        rate: the highest learning rate.
        momentum: of the gradient, 0 to below 1.
        weight_decay: of the weights; never of biases and norms, whose size carries no complexity.
        label_smoothing: share of the target spread over all classes (Szegedy et al. 2016, section 7).
        warmup: share of the steps in which the rate rises, linearly from 0.
        schedule: how it falls to 0 in the others: `cosine`, `linear`, or not at all (`constant`).
        aux: how much each auxiliary head's loss counts, where a network has them (Szegedy et al. 2015, section 5).
        shift: images are moved at random by up to this many pixels each way.
        flip: images are mirrored at random, left to right: not for digits, letters or signs.
        crop: random parts of the pictures are taken, of at least this share of their area and of aspect 3:4 to
            4:3, and scaled to the size; 1 takes the middle, as in evaluation.
        colour: brightness, contrast and saturation are changed at random, by a factor in 1 ± this.
        hue: colours are turned at random, by up to this share of a full turn each way.
        randaugment: how many of RandAugment's operations change a picture (Cubuk et al. 2019).
        magnitude: how strongly, from 0 to 30.
        erase: share of the pictures that lose a random rectangle (Zhong et al. 2017).
        mixup: alpha of the Beta distribution that two pictures are added up by (Zhang et al. 2017); 0 for never.
        cutmix: likewise for a rectangle of one put into the other (Yun et al. 2019).

    The defaults suit small images and some thousand of them.

    Raises:
        InputError: a number out of its range.
    """

    epochs: int = 8
    batch_size: int = 32
    rate: float = 0.2
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    warmup: float = 0.2
    schedule: str = "cosine"
    aux: float = 0.3
    shift: int = 3
    flip: bool = False
    crop: float = 1.0
    colour: float = 0.0
    hue: float = 0.0
    randaugment: int = 0
    magnitude: float = 9.0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        _expect(self.epochs >= 1, "epochs", self.epochs, "1 or more")
        _expect(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        _expect(0 < self.rate < math.inf, "rate", self.rate, "above 0")
        _expect(0 <= self.momentum < 1, "momentum", self.momentum, "from 0 to below 1")
        _expect(0 <= self.weight_decay < math.inf, "weight_decay", self.weight_decay, "0 or more")
        _expect(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "from 0 to below 1")
        _expect(0 <= self.warmup <= 1, "warmup", self.warmup, "from 0 to 1")
        _expect(0 <= self.aux < math.inf, "aux", self.aux, "0 or more")
        _expect(self.shift >= 0, "shift", self.shift, "0 or more")
        _expect(0 < self.crop <= 1, "crop", self.crop, "above 0, up to 1")
        _expect(0 <= self.colour <= 1, "colour", self.colour, "from 0 to 1")
        _expect(0 <= self.hue <= 0.5, "hue", self.hue, "from 0 to 0.5")
        _expect(self.randaugment >= 0, "randaugment", self.randaugment, "0 or more")
        _expect(0 <= self.magnitude <= 30, "magnitude", self.magnitude, "from 0 to 30")
        _expect(0 <= self.erase <= 1, "erase", self.erase, "from 0 to 1")
        _expect(0 <= self.mixup < math.inf, "mixup", self.mixup, "0 or more")
        _expect(0 <= self.cutmix < math.inf, "cutmix", self.cutmix, "0 or more")
        if self.schedule not in SCHEDULES:
            raise InputError(f"There is no schedule {self.schedule!r}: {nearest(self.schedule, SCHEDULES)}")

    @property
    def mixes(self) -> bool:
        """Pictures are mixed with each other, so that each has shares of two classes."""
        return bool(self.mixup or self.cutmix)

    def rate_at(self, progress: float) -> float:
        """The learning rate when `progress` (0 to 1) of the steps are done: it depends on nothing else."""
        if progress < self.warmup:
            return self.rate * progress / self.warmup
        fallen = (progress - self.warmup) / (1 - self.warmup) if self.warmup < 1 else 0.0
        match self.schedule:
            case "cosine":
                return self.rate * (1 + math.cos(math.pi * fallen)) / 2
            case "linear":
                return self.rate * (1 - fallen)
            case _:
                return self.rate

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, field by field."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe that `to_dict` wrote; what is missing has its default.

        Raises:
            InputError: a setting that recipes don't have.
        """
        known = {field.name for field in fields(cls)}
        for name in values:
            if name not in known:
                raise InputError(f"A recipe has no setting {name!r}: {nearest(name, known)}")
        return cls(**values)


def _expect(holds: bool, name: str, value: float, range_: str) -> None:
    if not holds:
        raise InputError(f"A recipe's {name} is {range_}, not {value}.")


RECIPES: dict[str, Recipe] = {
    "digits": Recipe(),
    # Shift, flip and batch of He et al. 2016, section 4.2; one cosine fall in place of its three steps.
    "cifar": Recipe(epochs=30, batch_size=128, rate=0.4, label_smoothing=0.0, warmup=0.15, shift=4, flip=True),
}


def recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        InputError: there is none.
    """
    if name not in RECIPES:
        raise InputError(f"There is no recipe {name!r}: {nearest(name, RECIPES)}")
    return RECIPES[name]
