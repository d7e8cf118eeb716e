"""What the original network answers, and how far another is from that."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ..errors import InputError, RunError

BATCH, PIXELS = 64, 2**19  # images run at once, and pixels of theirs, at most
ROUNDINGS = 1e-9  # of an output's power: what varies by less does not vary


def batch_of(images: Tensor) -> int:
    """How many of the images (N, C, H, W) to run at once."""
    return max(1, min(BATCH, PIXELS // (images.shape[2] * images.shape[3])))


def float_outputs(out: Any) -> list[Tensor]:
    """Every floating-point tensor in what a network returned, in a fixed order.

    Raises:
        InputError: there is none.
    """
    found = [leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    if not found:
        raise InputError("The network returns no floating-point tensor, so there is nothing to stay close to.")
    return found


@dataclass(frozen=True)
class Answers:
    """Images, and the original network's outputs for them: each (N, ...), in the order of `float_outputs`.

    Arguments:
        labels: int64, (N,), where they are to be learnt.
    """

    images: Tensor
    outputs: tuple[Tensor, ...]
    labels: Tensor | None = None

    @cached_property
    def variances(self) -> tuple[float, ...]:
        """The variance over the images of each output, summed over its elements and averaged over images.

        Of an output that is the same for all images its power, for then there is nothing else to compare with.
        """
        return tuple(_scale(out.double()) for out in self.outputs)

    def first(self, count: int) -> Answers:
        """Of so many images."""
        return self[slice(count)]

    def __getitem__(self, which: slice | Tensor) -> Answers:
        """Of some of the images."""
        labels = None if self.labels is None else self.labels[which]
        return Answers(self.images[which], tuple(out[which] for out in self.outputs), labels)

    def error(self, light: nn.Module) -> float:
        """Squared distance of `light`'s outputs from these, relative to their variance, in eval mode.

        0: the same answers; 1: no better than always answering with the mean.
        """
        distance, step = 0.0, batch_of(self.images)
        for start in range(0, len(self.images), step):
            here = slice(start, start + step)
            with torch.no_grad():
                given = float_outputs(light(self.images[here]))
            for wanted, found in zip(self.outputs, given):
                distance += float((wanted[here] - found).double().square().sum())
        return distance / len(self.images) / max(sum(self.variances), 1e-30)


def _scale(out: Tensor) -> float:
    spread, power = (float(each.square().sum()) / len(out) for each in (out - out.mean(0), out))
    return spread if spread > ROUNDINGS * power else power


def outputs_of(net: nn.Module, batch: Tensor) -> list[Tensor]:
    """The `float_outputs` of a network for a batch (N, C, H, W).

    Raises:
        InputError: it can't take the batch, or there are none.
    """
    try:
        return float_outputs(net(batch))
    except RuntimeError as error:
        raise InputError(
            f"The network can't take these {batch.dtype} images of {tuple(batch.shape[1:])}: {error}"
        ) from error


def answers(original: nn.Module, images: Tensor, labels: Tensor | None = None) -> Answers:
    """Run the original, in eval mode, over images (N, C, H, W).

    Raises:
        InputError: it can't take them, or returns no floating-point tensor, or one that does not begin with the
            batch; or there are labels, and its first output has no such classes.
        RunError: its outputs are not finite.
    """
    parts: list[list[Tensor]] = []
    with torch.no_grad():
        for batch in images.split(batch_of(images)):
            found = outputs_of(original, batch)
            for out in found:
                if out.shape[:1] != batch.shape[:1]:
                    raise InputError(
                        f"Every output must begin with the batch of {len(batch)} images, one is {tuple(out.shape)}."
                    )
                if not bool(out.isfinite().all()):
                    raise RunError("The network's outputs for these images are not finite: check its weights.")
            parts.append(found)
    outputs = tuple(torch.cat(same) for same in zip(*parts))
    if labels is not None:
        _check_labels(labels, outputs[0])
    return Answers(images, outputs, labels)


def _check_labels(labels: Tensor, scores: Tensor) -> None:
    if scores.ndim != 2:
        raise InputError(f"Labels can be learnt where a network gives (N, classes), not {tuple(scores.shape)}.")
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= scores.shape[1]:
        raise InputError(f"The network has classes 0 to {scores.shape[1] - 1}, the labels are {least} to {most}.")
