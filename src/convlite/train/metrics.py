"""How good a network is on labelled images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import Data, Source
from ..data.progress import track
from ..errors import InputError
from . import processes

BINS = 15  # of the calibration error, as in its paper
CONFUSABLE = 1000  # classes of which every pair is counted; with more, the counts outgrow what they tell


@dataclass(frozen=True)
class Score:
    """How a network did.

    Arguments:
        top1: share of the images whose class got the highest score.
        top5: share whose class was among the five highest (all, if there are fewer).
        correct: images behind `top1`; count: all images.
        loss: mean cross entropy.
        per_class: for each class the share of its images answered right; None where it has none.
        calibration_error: how far the probability of the answer is from the share answered right, on average
            over 15 bins of it (Guo et al., arXiv 1706.04599, section 2).
        confusion: images of each class (row) by the class answered (column); None for over 1000 classes.
    """

    top1: float
    top5: float
    correct: int
    count: int
    loss: float
    per_class: tuple[float | None, ...]
    calibration_error: float
    confusion: tuple[tuple[int, ...], ...] | None = field(default=None, repr=False)

    @property
    def headline(self) -> float:
        """The one figure that networks are compared by."""
        return self.top1

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, field by field; without the confusion, which has the classes squared."""
        return {name: value for name, value in asdict(self).items() if name != "confusion"}


def evaluate(
    model: nn.Module, images: Source, data: Data, *, batch_size: int = 256, progress: bool = True
) -> Score:
    """Measure a network on images of a data set; it is left as it was.

    Where several processes have been started together, each takes its share of the batches, every image being
    counted once, and all get the whole score: every process must call it.

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
    counts, device = _Counts(len(data.classes)), device_of(model)
    parts = torch.arange(len(images)).split(batch_size)[processes.index() :: processes.count()]
    with as_evaluated(model), torch.no_grad():
        for part in track(images.parts(parts), len(parts), "evaluating", progress and processes.index() == 0):
            if not len(part):
                continue  # none of them could be read
            logits = model(data.normalise(part.pixels.to(device))).float()  # (N, classes)
            counts.add(logits.cpu(), part.labels.cpu())
    return counts.score(device, len(images))


class _Counts:
    """What is counted over all images, in float64, in which whole numbers are exact."""

    def __init__(self, classes: int) -> None:
        self.pairs = torch.zeros(classes, classes if classes <= CONFUSABLE else 2, dtype=torch.float64)
        self.bins = torch.zeros(2, BINS, dtype=torch.float64)  # sums of probabilities, and of right answers
        self.in_five = self.loss = 0.0

    def add(self, logits: Tensor, labels: Tensor) -> None:  # (N, classes), (N,)
        answer = logits.argmax(1)  # (N,)
        surest = logits.double().softmax(1).amax(1)  # (N,), the answer's probability
        hits = answer == labels
        columns = answer if len(self.pairs) <= CONFUSABLE else hits.long()
        self.pairs.index_put_((labels, columns), torch.ones(len(labels), dtype=torch.float64), accumulate=True)
        place = (surest * BINS).ceil().long().sub(1).clamp(0, BINS - 1)
        for row, values in zip(self.bins, (surest, hits.double())):
            row.index_add_(0, place, values)
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices
        self.in_five += float((best == labels[:, None]).any(1).sum())
        self.loss += float(F.cross_entropy(logits.double(), labels, reduction="sum"))

    def score(self, device: torch.device, images: int) -> Score:
        """Of all processes; `images` is how many there should be."""
        pairs, bins = (processes.add_up_(tensor, device) for tensor in (self.pairs, self.bins))
        in_five, loss = processes.add_up([self.in_five, self.loss], device)
        full = len(pairs) <= CONFUSABLE
        right, there = (pairs.diagonal() if full else pairs[:, 1]), pairs.sum(1)  # (classes,) each
        count, correct = int(there.sum()), int(right.sum())
        if not count:
            raise InputError(f"None of the {images} images can be read: replace them.")
        return Score(
            top1=correct / count,
            top5=in_five / count,
            correct=correct,
            count=count,
            loss=loss / count,
            per_class=tuple(r / n if n else None for r, n in zip(right.tolist(), there.tolist(), strict=True)),
            calibration_error=float((bins[0] - bins[1]).abs().sum()) / count,
            confusion=tuple(tuple(map(int, row)) for row in pairs.tolist()) if full else None,
        )


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
