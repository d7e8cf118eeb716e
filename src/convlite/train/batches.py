"""From labelled images to the batches of an epoch, the same for the same seed and epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ..data import Data, Source, in_random_order
from ..errors import InputError
from .augment import Draw, change, random_part, shrink
from .recipe import Recipe
from .seeds import derive


def steps_in(count: int, recipe: Recipe) -> int:
    """Steps of an epoch over `count` images."""
    return -(-count // recipe.batch_size)


def batches(
    images: Source,
    recipe: Recipe,
    seed: int,
    epoch: int,
    device: torch.device,
    *,
    start_step: int = 0,
    process_index: int = 0,
    num_processes: int = 1,
    workers: int | None = None,
    classes: int | None = None,
    ignore: int = 255,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every image once, in random order and augmented: pixels uint8 (N, C, H, W), and labels.

    All that is random comes from the seed, the epoch and the image alone: never from the number of workers or
    processes, nor from the step that is begun with.

    Arguments:
        images: also files, which are then decoded ahead. Where they leave out what can't be read, the next
            readable image takes its place, so that all batches keep their size.
        start_step: the first step wanted; those before it cost nothing.
        process_index: which of the processes this is: each gets its own part of every step's images, see `share`.
        num_processes: how many there are.
        workers: threads that decode files; one a processor by default, 0 for none.
        classes: how many there are, for `mixup` and `cutmix`; by default as many as the labels have.
        ignore: the value in masks of what is no class.

    Yields:
        Pixels at the recipe's size in this epoch. Labels int64 (N,); with `mixup` or `cutmix` the shares of the
        classes, float32 (N, classes); where they are masks, uint8 (N, H, W).

    Raises:
        InputError: fewer images in a step than processes, or masks with a recipe that would part them from
            their images.
    """
    images, order = in_random_order(images, derive(seed, "order", epoch))
    # Nearly equal parts: no image is dropped, and no tiny last batch upsets the batch norms.
    parts = order.tensor_split(steps_in(len(images), recipe))
    shares = [share(len(part), recipe, process_index, num_processes) for part in parts]
    windows = random_part(recipe.crop, seed, epoch) if recipe.crop < 1 else None
    mine = (parts[step][shares[step]] for step in range(start_step, len(parts)))
    read = images.parts(mine, windows=windows, replaced=True, workers=workers)
    for step, part in enumerate(read, start_step):
        pixels = part.pixels.to(device, non_blocking=True)
        labels = part.labels.to(device, non_blocking=True)
        if classes is None and labels.ndim == 1 and recipe.mixes:
            classes = int(images.labels.max()) + 1
        draw = Draw(len(parts[step]), shares[step], seed, epoch, step, device)
        pixels, labels = change(pixels, labels, recipe, draw, classes or 0, ignore)
        yield shrink(pixels, labels, recipe.size_at(epoch))


def share(count: int, recipe: Recipe, process_index: int, num_processes: int) -> slice:
    """Which of a step's `count` images one of the processes gets: nearly equal parts, in their order.

    Images that are mixed with each other stay together, so that each process has both.

    Raises:
        InputError: there is none for some process.
    """
    together = 2 if recipe.mixes else 1
    units = -(-count // together)
    if units < num_processes:
        raise InputError(
            f"A step of {count} images can't be shared by {num_processes} processes: give a larger batch_size, at "
            f"least {together * num_processes}, or more images."
        )
    ends = [min(units * i // num_processes * together, count) for i in (process_index, process_index + 1)]
    return slice(*ends)


def augmentation(recipe: Recipe, data: Data) -> Callable[[Tensor, torch.Generator], Tensor]:
    """What the recipe does to single pictures, for those that are normalised already: (N, C, H, W) → the same.

    All but random parts, which are cut out as pictures are read, and mixtures, which change labels, too.
    """
    single = replace(recipe, mixup=0.0, cutmix=0.0)

    def changed(images: Tensor, source: torch.Generator) -> Tensor:
        seed = int(torch.randint(2**62, (), generator=source))
        draw = Draw(len(images), slice(None), seed, 0, 0, images.device)
        none = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        pixels, _ = change(data.preprocess.pixels(images), none, single, draw, 0, 0)
        return data.normalise(pixels)

    return changed
