"""How a network is trained, as one value that can be printed, saved and compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ..errors import InputError, nearest

SCHEDULES = ("cosine", "linear", "constant", "exponential")
OPTIMISERS = ("nesterov", "sgd", "rmsprop", "adamw")

GROWN = 2 / 3  # of the epochs, after which images have their whole size
HARDER = {"randaugment": 1, "erase": 0.25}  # what `harder` asks for, at least


@dataclass(frozen=True)
class Recipe:
    """An optimiser, one rise and one fall of its rate, and what is done to the network and the images meanwhile.

    Arguments:
        epochs: passes over the training images.
        batch_size: the most images in a step, of all processes together; an epoch is cut into steps of nearly
            equal size.
        rate: the highest learning rate.
        momentum: of the gradient, 0 to below 1; of `adamw` its first beta.
        weight_decay: of the weights; never of depthwise filters, biases and norms, whose size carries little
            complexity.
        label_smoothing: share of the target spread over all classes (Szegedy et al. 2016, section 7).
        warmup: share of the steps in which the rate rises, linearly from 0.
        schedule: how it goes on in the others: to 0 as a `cosine` or `linear`ly, not at all (`constant`), or
            `exponential`: times `fall` every `fall_epochs` epochs.
        optimiser: `sgd` with momentum, `nesterov`'s form of it, `rmsprop` or `adamw` (which decays weights
            beside the gradient, by rate × weight_decay).
        epsilon: what `rmsprop` and `adamw` add to the root that they divide by.
        average: decay of the weights' moving average, which is then what is measured and saved; 0 for none.
        clip: the longest gradient, longer ones being cut to it (Pascanu et al. 2013); 0 for no limit.
        accumulate: parts that a step's images are cut into, one in memory at a time; batch norms see a part.
        layer_decay: each step of a backbone, from its head inwards, learns at this times the next one's rate.
        dropout: probability of the head's dropout; None leaves the network's own.
        drop_path: probability that the last residual branch is left out, the first never (Huang et al. 2016).
        dice: how much the Dice loss counts beside cross entropy where labels are masks (arXiv 1606.04797).
        aux: how much each auxiliary head's loss counts, where a network has them (Szegedy et al. 2015, section 5).
        first_size: share of their height and width that images have in the first epoch; it grows evenly and is
            whole after two thirds of the epochs. Small images take less time, and teach early epochs as much
            (progressive learning: Tan & Le 2021, section 4).
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
    fall: float = 0.94
    fall_epochs: float = 2.0
    optimiser: str = "nesterov"
    epsilon: float = 1e-8
    average: float = 0.0
    clip: float = 0.0
    accumulate: int = 1
    layer_decay: float = 1.0
    dropout: float | None = None
    drop_path: float | None = None
    dice: float = 0.0
    aux: float = 0.3
    first_size: float = 1.0
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
        _expect(0 < self.fall <= 1, "fall", self.fall, "above 0, at most 1")
        _expect(0 < self.fall_epochs < math.inf, "fall_epochs", self.fall_epochs, "above 0")
        _expect(0 < self.epsilon < math.inf, "epsilon", self.epsilon, "above 0")
        _expect(0 <= self.average < 1, "average", self.average, "from 0 to below 1")
        _expect(0 <= self.clip < math.inf, "clip", self.clip, "0 or more")
        _expect(1 <= self.accumulate <= self.batch_size, "accumulate", self.accumulate, "from 1 to batch_size")
        _expect(0 < self.layer_decay <= 1, "layer_decay", self.layer_decay, "above 0, at most 1")
        _expect(0 <= (self.dropout or 0) < 1, "dropout", self.dropout, "from 0 to below 1")
        _expect(0 <= (self.drop_path or 0) < 1, "drop_path", self.drop_path, "from 0 to below 1")
        _expect(0 <= self.dice < math.inf, "dice", self.dice, "0 or more")
        _expect(0 <= self.aux < math.inf, "aux", self.aux, "0 or more")
        _expect(0 < self.first_size <= 1, "first_size", self.first_size, "above 0, at most 1")
        _expect(self.shift >= 0, "shift", self.shift, "0 or more")
        _expect(0 < self.crop <= 1, "crop", self.crop, "above 0, up to 1")
        _expect(0 <= self.colour <= 1, "colour", self.colour, "from 0 to 1")
        _expect(0 <= self.hue <= 0.5, "hue", self.hue, "from 0 to 0.5")
        _expect(self.randaugment >= 0, "randaugment", self.randaugment, "0 or more")
        _expect(0 <= self.magnitude <= 30, "magnitude", self.magnitude, "from 0 to 30")
        _expect(0 <= self.erase <= 1, "erase", self.erase, "from 0 to 1")
        _expect(0 <= self.mixup < math.inf, "mixup", self.mixup, "0 or more")
        _expect(0 <= self.cutmix < math.inf, "cutmix", self.cutmix, "0 or more")
        for name, known in (("schedule", SCHEDULES), ("optimiser", OPTIMISERS)):
            if (given := getattr(self, name)) not in known:
                raise InputError(f"There is no {name} {given!r}: {nearest(given, known)}")

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
            case "exponential":  # epochs are whole numbers but for rounding
                return self.rate * self.fall ** math.floor(progress * self.epochs / self.fall_epochs + 1e-9)
            case _:
                return self.rate

    def size_at(self, epoch: int) -> float:
        """Share of their height and width that images have in an epoch, the first being 1."""
        return min(1.0, self.first_size + (1 - self.first_size) * (epoch - 1) / (self.epochs * GROWN))

    def with_batch(self, batch_size: int, *, scale: bool = False) -> Recipe:
        """The same with another batch; its rate in proportion if `scale` (Goyal et al., arXiv 1706.02677)."""
        rate = self.rate * batch_size / self.batch_size if scale else self.rate
        return replace(self, batch_size=batch_size, rate=rate, accumulate=min(self.accumulate, batch_size))

    def harder(self) -> Recipe:
        """The same with RandAugment and random erasing: new views of pictures that a network knows by heart."""
        return replace(self, **{name: max(getattr(self, name), least) for name, least in HARDER.items()})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, field by field."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe that `to_dict` wrote; what is missing has its default.

        Raises:
            InputError: a setting that recipes don't have, or a value of another type.
        """
        types = {field.name: str(field.type) for field in fields(cls)}
        for name, value in values.items():
            if name not in types:
                raise InputError(f"A recipe has no setting {name!r}: {nearest(name, types)}")
            if not _is(value, types[name]):
                raise InputError(f"A recipe's {name} is of type {types[name]}, not {value!r}.")
        return cls(**values)


def _is(value: object, annotation: str) -> bool:
    """Whether a value is of a field's type; whole numbers are numbers."""
    names: dict[str, Any] = {"float": (int, float), "int": int, "str": str, "None": type(None)}
    parts = annotation.split(" | ")
    if isinstance(value, bool):
        return "bool" in parts
    return any(isinstance(value, names[part]) for part in parts if part != "bool")


def _expect(holds: bool, name: str, value: float | None, range_: str) -> None:
    if not holds:
        raise InputError(f"A recipe's {name} is {range_}, not {value}.")
