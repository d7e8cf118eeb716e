"""How good a network is on labelled images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import Data, Source
from ..data.progress import track
from ..errors import InputError


@dataclass(frozen=True)
class Score:
    """How a network did.

    Arguments:
        top1: share of the images whose class got the highest score.
        top5: share whose class was among the five highest (all, if there are fewer).
        correct: images behind `top1`; count: all images.
        loss: mean cross entropy.
        per_class: for each class the share of its images answered right; None where it has none.
    """

    top1: float
    top5: float
    correct: int
    count: int
    loss: float
    per_class: tuple[float | None, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, field by field."""
        return asdict(self)


def evaluate(
    model: nn.Module, images: Source, data: Data, *, batch_size: int = 256, progress: bool = True
) -> Score:
    """Measure a network on images of a data set; it is left as it was.

    Arguments:
        images: mostly `data.test`.
        data: gives the classes and the preprocessing.
        progress: show a bar on stderr when it takes over two seconds.

    Raises:
        InputError: no images, or a network that doesn't take them or has another number of classes.
    """
    if not len(images):
        raise InputError("There are no images to evaluate on: give data with a test part.")
    check_fit(model, data.shape, len(data.classes))
    right, there = torch.zeros(2, len(data.classes), dtype=torch.int64)
    correct = in_five = 0
    loss = 0.0
    parts = torch.arange(len(images)).split(batch_size)
    with as_evaluated(model), torch.no_grad():
        device = device_of(model)
        for part in track(images.parts(parts), len(parts), "evaluating", progress):
            if not len(part):
                continue  # none of them could be read
            labels = part.labels.to(device)
            there += torch.bincount(part.labels, minlength=len(there))
            logits = model(data.normalise(part.pixels.to(device))).float()  # (N, classes)
            hits = logits.argmax(1) == labels
            best = logits.topk(min(5, logits.shape[1]), dim=1).indices
            correct += int(hits.sum())
            in_five += int((best == labels[:, None]).any(1).sum())
            loss += float(F.cross_entropy(logits.double(), labels, reduction="sum"))
            right += torch.bincount(labels[hits], minlength=len(right)).cpu()
    count = int(there.sum())
    if not count:
        raise InputError(f"None of the {len(images)} images can be read: replace them.")
    per_class = tuple(r / n if n else None for r, n in zip(right.tolist(), there.tolist(), strict=True))
    return Score(correct / count, in_five / count, correct, count, loss / count, per_class)


@contextmanager
def as_evaluated(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every module is in the mode it was in, each by itself."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def check_fit(model: nn.Module, shape: tuple[int, int, int], classes: int | None) -> int:
    """Try the network on one black image, leaving it as it was; how many classes it tells apart.

    Arguments:
        shape: channels, height and width.
        classes: how many it must tell apart; None takes any number.

    Raises:
        InputError: it doesn't take such images, or has another number of classes.
    """
    size = "x".join(map(str, shape))
    with as_evaluated(model), torch.no_grad():
        try:
            logits = model(torch.zeros(1, *shape, device=device_of(model)))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"The network can't take images of {size} ({reason}): give others.") from error
    if isinstance(logits, Tensor) and logits.dim() == 2 and classes in (None, logits.shape[1]):
        return logits.shape[1]
    given = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    wanted = f"{classes} classes" if classes else "one score a class"
    raise InputError(
        f"The network answers an image of {size} with {given}, but expected was {wanted}: "
        f"create it with num_classes={classes or 'N'}."
    )


def device_of(model: nn.Module) -> torch.device:
    """Where the network's parameters are; the CPU where it has none."""
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
