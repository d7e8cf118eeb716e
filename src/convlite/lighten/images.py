"""Calibration images: from whatever the caller has, to one tensor."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError

CALIBRATION = 1024  # images that closed forms and refits look at; more add little where maps are large
PIXELS = 2**22  # of all those images, where more are needed, at most
LIMIT = 16384  # images kept of an iterable


def gather(
    images: Tensor | Iterable[Any], device: torch.device, *, labelled: bool = False
) -> tuple[Tensor, Tensor | None]:
    """All images as one float tensor (N, C, H, W) on `device`; of an iterable, the first LIMIT.

    Returns:
        The images; and if `labelled` what each batch brings beside them, int64 (N,), else None.

    Raises:
        InputError: no images, another shape or type, images of several sizes, or values that are not finite; or
            no labels, where there should be.
    """
    labels: list[Any] = []
    if isinstance(images, Tensor):
        batches = [images]
    elif isinstance(images, Iterable):
        batches, count = [], 0
        for batch in images:
            paired = isinstance(batch, list | tuple) and len(batch) > 0
            batches.append(batch[0] if paired else batch)
            labels += [batch[1]] if paired and len(batch) > 1 else []
            count += len(batches[-1]) if isinstance(batches[-1], Tensor) else 0
            if count >= LIMIT:
                break
    else:
        raise InputError(
            f"Images must be a tensor (N, C, H, W) or an iterable of such, given {type(images).__name__}."
        )
    for batch in batches:
        if not isinstance(batch, Tensor) or batch.ndim != 4 or not batch.is_floating_point():
            what = f"{batch.dtype} {tuple(batch.shape)}" if isinstance(batch, Tensor) else type(batch).__name__
            raise InputError(f"Images must be float tensors (N, C, H, W), as the network takes them; given {what}.")
        if batch.shape[1:] != batches[0].shape[1:]:
            raise InputError(
                f"Images of one size are needed, given {tuple(batches[0].shape[1:])} and {tuple(batch.shape[1:])}."
            )
    total = sum(len(batch) for batch in batches)
    if total < 2:
        raise InputError(f"At least two images are needed to see what the network does, given {total}.")
    pool = torch.cat([batch.detach() for batch in batches]).to(device, memory_format=torch.channels_last)
    if not bool(pool.isfinite().all()):
        raise InputError("Some of the images hold values that are not finite: check how they were made.")
    return pool, _labels(labels, batches, device) if labelled else None


def _labels(labels: list[Any], batches: list[Tensor], device: torch.device) -> Tensor:
    if len(labels) != len(batches):
        raise InputError("To learn labels, give batches of (images, labels): there are images without.")
    for one, batch in zip(labels, batches):
        if not isinstance(one, Tensor) or one.dtype != torch.int64 or one.shape != batch.shape[:1]:
            what = f"{one.dtype} {tuple(one.shape)}" if isinstance(one, Tensor) else type(one).__name__
            raise InputError(f"Labels must be int64 tensors ({len(batch)},), one for each image; given {what}.")
    return torch.cat(labels).to(device)


def split(images: Tensor, seed: int, enough: int) -> tuple[Tensor, slice, slice, slice]:
    """Images to train on, those of them to fit on, and others to measure on.

    Measured on are a fifth, drawn at random, CALIBRATION / 4 at most. Too few images to set any aside are used for
    all three.

    Arguments:
        images: (N, C, H, W).
        enough: to fit on; at most so many are, or CALIBRATION, where that is more.

    Returns:
        A random order (N,) of the images, and where the three parts stand in it; those to fit on come first.
    """
    count, pixels = len(images), math.prod(images.shape[2:])
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(images.device)
    held = min(count // 5, CALIBRATION // 4)
    held = held if held > 1 else 0
    trained = count - held
    fitted = min(trained, max(CALIBRATION, min(enough, PIXELS // pixels)))
    unseen = slice(trained, count) if held else slice(count)
    return order.roll(-held), slice(trained), slice(fitted), unseen
