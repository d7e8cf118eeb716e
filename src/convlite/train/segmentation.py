"""Learning to label pixels: the task, its losses and its score."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import Data, Files, Source
from ..data.progress import track
from ..errors import InputError
from . import processes
from .metrics import as_evaluated, device_of


@dataclass(frozen=True)
class SegmentScore:
    """How a network labels pixels.

    Arguments:
        miou: mean over the classes that occur of intersection over union.
        per_class: that of each class; None where neither images nor answers have it.
        accuracy: share of the pixels that are labelled right; pixels of no class are left out everywhere.
        pixels: how many were judged.
        confusion: pixels of each class (row) by the class answered (column).
    """

    miou: float
    per_class: tuple[float | None, ...]
    accuracy: float
    pixels: int
    confusion: tuple[tuple[int, ...], ...] = field(repr=False)

    @property
    def headline(self) -> float:
        """The one figure that networks are compared by."""
        return self.miou

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, field by field; without the confusion, which has the classes squared."""
        return {name: value for name, value in asdict(self).items() if name != "confusion"}


@dataclass(frozen=True)
class Segmentation:
    """A class for every pixel; targets are masks, uint8 (N, H, W). See `Task`.

    Arguments:
        ignore: the value in masks of pixels that are no class.
        dice: how much the Dice loss counts beside cross entropy: it sees rare classes as well as common ones.
    """

    ignore: int = 255
    dice: float = 0.0

    def check(self, model: nn.Module, data: Data) -> None:
        if data.ignore is None:
            raise InputError(f"{data.source} has a class for each image, and labelling pixels needs masks.")
        wanted = (1, len(data.classes), *data.shape[1:])
        with as_evaluated(model), torch.no_grad():
            scores = model(torch.zeros(1, *data.shape, device=device_of(model)))
        given = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        if given != wanted:
            raise InputError(
                f"The network answers an image with {given}, and masks of {len(data.classes)} classes need "
                f"{wanted}: create it with head='deeplabv3plus', say."
            )

    def loss(self, inputs: Tensor, logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        labels = targets.long()
        entropy = F.cross_entropy(
            logits, labels, ignore_index=self.ignore, label_smoothing=smoothing, reduction="sum"
        )
        loss = entropy / max(1, self.judged(targets))  # a part may have no pixel of any class
        return loss + self.dice * dice_loss(logits, labels, self.ignore) if self.dice else loss

    def judged(self, targets: Tensor) -> int:
        return int((targets != self.ignore).sum())

    def right(self, logits: Tensor, targets: Tensor) -> Tensor:
        return ((logits.argmax(1) == targets) & (targets != self.ignore)).sum()

    def measure(self, model: nn.Module, images: Source, data: Data, *, progress: bool = True) -> SegmentScore:
        return score_masks(model, images, data, progress=progress)


def dice_loss(logits: Tensor, labels: Tensor, ignore: int) -> Tensor:
    """1 − mean over the classes there are of 2·|A∩B| / (|A|+|B|), with probabilities for A (arXiv 1606.04797).

    Arguments:
        logits: (N, classes, H, W).
        labels: int64 (N, H, W).
    """
    known = labels != ignore  # (N, H, W)
    truth = F.one_hot(labels.where(known, 0), logits.shape[1]).movedim(-1, 1) * known[:, None]  # (N, classes, H, W)
    share = logits.softmax(1) * known[:, None]
    both, sizes = (share * truth).sum((0, 2, 3)), (share + truth).sum((0, 2, 3))  # (classes,)
    there = truth.sum((0, 2, 3)) > 0
    return 1 - (2 * both / sizes.clamp_min(1e-6))[there].mean() if bool(there.any()) else logits.sum() * 0


def _scaled(scores: Tensor, size: torch.Size) -> Tensor:
    """Scores (1, classes, h, w) at another height and width."""
    same = scores.shape[2:] == size
    return scores if same else F.interpolate(scores, tuple(size), mode="bilinear", align_corners=False)


def score_masks(
    model: nn.Module, images: Source, data: Data, *, batch_size: int = 16, progress: bool = True
) -> SegmentScore:
    """Measure a network on images with masks; it is left as it was.

    Masks in files, if all are of one size, are not scaled: answers are, bilinearly, so that the score is of the
    masks as they stand, whatever size the network takes. Every process takes its share of the images.

    Arguments:
        images: mostly `data.test`.
        data: gives the classes, the value of no class, and the preprocessing.

    Raises:
        InputError: images without masks, or none of them can be read.
    """
    if data.ignore is None:
        raise InputError(f"{data.source} has a class for each image, and labelling pixels needs masks.")
    if isinstance(images, Files):
        images = images.with_whole_masks()
    classes = len(data.classes)
    pairs = torch.zeros(classes**2, dtype=torch.float64)  # in which whole numbers are exact
    device = device_of(model)
    parts = torch.arange(len(images)).split(batch_size)[processes.index() :: processes.count()]
    with as_evaluated(model), torch.no_grad():
        for part in track(images.parts(parts), len(parts), "evaluating", progress and processes.index() == 0):
            if len(part):
                scores = model(data.normalise(part.pixels.to(device)))  # (N, classes, h, w)
                for one, mask in zip(scores, part.labels, strict=True):  # one at a time: they may become larger
                    answer = _scaled(one[None], mask.shape).argmax(1)[0].cpu()  # (H, W)
                    known = mask != data.ignore
                    pairs += torch.bincount(mask[known].long() * classes + answer[known], minlength=classes**2)
    pairs = processes.add_up_(pairs, device).view(classes, classes)  # what is, what was said
    right, union = pairs.diagonal(), pairs.sum(0) + pairs.sum(1) - pairs.diagonal()
    pixels = int(pairs.sum())
    if not pixels:
        raise InputError(
            f"None of the {len(images)} images has a pixel to judge: check the masks and their classes."
        )
    each = tuple(r / u if u else None for r, u in zip(right.tolist(), union.tolist()))
    there = [share for share in each if share is not None]
    confusion = tuple(tuple(map(int, row)) for row in pairs.tolist())
    return SegmentScore(sum(there) / len(there), each, float(right.sum()) / pixels, pixels, confusion)
