"""From images in memory to the batches of an epoch, the same for the same seed and epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..data import Data, Images
from .recipe import Recipe
from .seeds import generator


def steps_in(count: int, recipe: Recipe) -> int:
    """Steps of an epoch over `count` images."""
    return -(-count // recipe.batch_size)


def batches(
    images: Images,
    recipe: Recipe,
    seed: int,
    epoch: int,
    device: torch.device,
    *,
    start_step: int = 0,
    process_index: int = 0,
    num_processes: int = 1,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Every image once, in random order and augmented: pixels uint8 (N, C, H, W) and labels (N,).

    Arguments:
        start_step: the first of the epoch's steps to give, as they come without those before it.
        process_index, num_processes: give this process's share of every step, nearly equal ones.
    """
    order = torch.randperm(len(images), generator=generator(seed, "order", epoch))
    # Nearly equal parts: no image is dropped, and no tiny last batch upsets the batch norms.
    for step, index in enumerate(order.tensor_split(steps_in(len(images), recipe))):
        if step < start_step:
            continue
        batch = images[index]
        pixels = batch.pixels.to(device, non_blocking=True)
        if recipe.shift or recipe.flip:
            pixels = augment(pixels, recipe.shift, recipe.flip, generator(seed, "augment", epoch, step))
        labels = batch.labels.to(device, non_blocking=True)
        yield tuple(whole.tensor_split(num_processes)[process_index] for whole in (pixels, labels))  # type: ignore[misc]


def augmentation(recipe: Recipe, data: Data) -> Callable[[Tensor, torch.Generator], Tensor]:
    """What the recipe does to pictures, for pictures that are normalised already: (N, C, H, W) → the same."""
    black = data.normalise(torch.zeros(1, data.shape[0], 1, 1, dtype=torch.uint8))  # (1, C, 1, 1)

    def move(images: Tensor, source: torch.Generator) -> Tensor:
        floor = black.to(images.device)
        return augment(images - floor, recipe.shift, recipe.flip, source) + floor

    return move


def augment(pixels: Tensor, shift: int, flip: bool, source: torch.Generator) -> Tensor:
    """Move each image by up to `shift` pixels each way, black coming in, and mirror half of them if `flip`.

    Arguments:
        pixels: any type, (N, C, H, W).
        source: draws the moves, on the CPU, so that every device sees the same ones.

    Returns:
        As given, channels last in memory.
    """
    n, _, height, width = pixels.shape
    moves = torch.randint(-shift, shift + 1, (2, n, 1), generator=source)
    rows = torch.arange(height) + moves[0]  # (N, H)
    columns = torch.arange(width) + moves[1]  # (N, W)
    if flip:
        mirrored = torch.rand((n, 1), generator=source) < 0.5
        columns = torch.where(mirrored, width - 1 - columns, columns)
    # One gather for all of it, from pictures with a black border.
    padded = torch.nn.functional.pad(pixels, (shift, shift, shift, shift)).permute(0, 2, 3, 1)
    image = torch.arange(n, device=pixels.device)[:, None, None]
    rows, columns = ((i + shift).to(pixels.device) for i in (rows, columns))
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # (N, C, H, W)
