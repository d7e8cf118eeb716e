"""Random changes of a batch, on its device.

Plain tensor code and not kornia's: there the numbers come from torch's global generator, so that the same seed
gives other pictures in another number of processes, and RandAugment makes one choice for a whole batch. Here
every picture has its own numbers, drawn on the CPU.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.pictures import Box, Window
from ..errors import InputError
from .colour import jitter
from .randaugment import randaugment
from .recipe import Recipe
from .seeds import derive, generator

ASPECT = 4 / 3  # how much random parts may be wider or higher than they are high or wide (Szegedy et al. 2015)
ERASED = (0.02, 1 / 3), 1 / 0.3  # share of the area, and aspect (Zhong et al., arXiv 1708.04896, section 4)


@dataclass(frozen=True)
class Draw:
    """Random numbers for one step's images, of which this process has the `share`."""

    count: int
    share: slice
    seed: int
    epoch: int
    step: int
    device: torch.device

    def source(self, use: str) -> torch.Generator:
        """A generator for one use in this step."""
        return generator(self.seed, use, self.epoch, self.step)

    def uniform(self, use: str, *shape: int) -> Tensor:
        """Numbers in [0, 1), (N, *shape), the same for an image in whatever process it is."""
        return torch.rand((self.count, *shape), generator=self.source(use))[self.share].to(self.device)

    def beta(self, use: str, alpha: float) -> Tensor:
        """Numbers of Beta(alpha, alpha), float32 (N,)."""
        found = np.random.default_rng(derive(self.seed, use, self.epoch, self.step)).beta(alpha, alpha, self.count)
        return torch.from_numpy(found).float()[self.share].to(self.device)


def change(
    pixels: Tensor, labels: Tensor, recipe: Recipe, draw: Draw, classes: int, ignore: int
) -> tuple[Tensor, Tensor]:
    """All that a recipe does to a batch after its parts are cut out.

    Arguments:
        pixels: uint8, (N, C, H, W); labels: int64 (N,), or masks uint8 (N, H, W).
        classes: how many there are, for shares of them; `ignore`: what comes in where masks are shifted.
    """
    masks = labels.ndim == 3
    if masks and (recipe.mixes or recipe.randaugment):
        raise InputError("Masks can't follow randaugment, mixup or cutmix: take a recipe without them.")
    if recipe.shift or recipe.flip:
        moves = draw_moves(draw.count, recipe.shift, recipe.flip, draw.source("augment"))[:, draw.share]
        pixels = move(pixels, moves, recipe.shift)
        labels = move(labels[:, None], moves, recipe.shift, ignore)[:, 0] if masks else labels
    if recipe.randaugment:
        pixels = randaugment(pixels, recipe.magnitude, draw.uniform("randaugment", recipe.randaugment, 3))
    if recipe.colour or recipe.hue:
        pixels = jitter(pixels, recipe.colour, recipe.hue, draw.uniform("colour", 4))
    if recipe.erase:
        pixels = erase(pixels, recipe.erase, draw.uniform("erase", 5))
    return mix(pixels, labels, recipe, draw, classes) if recipe.mixes else (pixels, labels)


def shrink(pixels: Tensor, labels: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Pixels uint8 (N, C, H, W), and masks uint8 (N, H, W) with them, at this share of their height and width.

    Sides are whole multiples of 4, so that the few sizes of a run halve evenly.
    """
    size = [min(side, max(4, round(side * share / 4) * 4)) for side in pixels.shape[2:]]
    if size == list(pixels.shape[2:]):
        return pixels, labels
    if labels.ndim == 3:
        labels = F.interpolate(labels[:, None], size, mode="nearest-exact")[:, 0]
    small = F.interpolate(pixels.float(), size, mode="bilinear", antialias=True)
    return small.round().to(torch.uint8).contiguous(memory_format=torch.channels_last), labels


def random_part(least: float, seed: int, epoch: int) -> Callable[[int], Window]:
    """For each image of an epoch, a random part of at least this share of its area, of aspect 3:4 to 4:3."""

    def windows(index: int) -> Window:
        def window(height: int, width: int) -> Box:
            source = random.Random(derive(seed, "part", epoch, index))
            for _ in range(10):
                area = height * width * source.uniform(least, 1)
                aspect = math.exp(source.uniform(-math.log(ASPECT), math.log(ASPECT)))
                h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
                if 0 < h <= height and 0 < w <= width:
                    return source.randint(0, height - h), source.randint(0, width - w), h, w
            # None fits into so long a picture: as much of its middle as the aspect allows.
            h, w = min(height, round(width * ASPECT)), min(width, round(height * ASPECT))
            return (height - h) // 2, (width - w) // 2, max(h, 1), max(w, 1)

        return window

    return windows


def draw_moves(count: int, shift: int, flip: bool, source: torch.Generator) -> Tensor:
    """For each image the pixels down and right, and whether it is mirrored: int64 (3, N)."""
    moves = torch.randint(-shift, shift + 1, (2, count, 1), generator=source)[..., 0]  # (2, N)
    mirrored = torch.rand((count, 1), generator=source)[:, 0] < 0.5 if flip else torch.zeros(count)
    return torch.cat([moves, mirrored[None].long()])


def move(pixels: Tensor, moves: Tensor, shift: int, fill: float = 0) -> Tensor:
    """Images (N, C, H, W) shifted and mirrored as `draw_moves` says, with `fill` coming in; channels last."""
    way = _moved_by_copies if pixels.device.type == "cpu" else _moved_by_gather
    return way(pixels, moves, shift, fill)


def _moved_by_copies(pixels: Tensor, moves: Tensor, shift: int, fill: float) -> Tensor:
    """Rows copied whole: on a CPU many times faster than to look up every pixel."""
    moved = torch.full_like(pixels, fill, memory_format=torch.channels_last)
    height, width = pixels.shape[2:]
    for image, place, (down, right, mirrored) in zip(pixels, moved, moves.T.tolist(), strict=True):
        (to_rows, rows), (to_columns, columns) = _overlap(down, height), _overlap(right, width)
        turned = image.flip(2) if mirrored else image
        place[:, to_rows, to_columns] = turned[:, rows, columns]
    return moved


def _overlap(by: int, size: int) -> tuple[slice, slice]:
    """Where what is moved by so many pixels stays inside: afterwards, and before."""
    by = min(max(by, -size), size)
    return slice(max(-by, 0), size - max(by, 0)), slice(max(by, 0), size - max(-by, 0))


def _moved_by_gather(pixels: Tensor, moves: Tensor, shift: int, fill: float) -> Tensor:
    """One gather for all of it, from pictures with a border."""
    n, _, height, width = pixels.shape
    rows = torch.arange(height) + moves[0, :, None]  # (N, H)
    columns = torch.arange(width) + moves[1, :, None]  # (N, W)
    columns = torch.where(moves[2, :, None].bool(), width - 1 - columns, columns)
    padded = F.pad(pixels, (shift, shift, shift, shift), value=fill).permute(0, 2, 3, 1)
    image = torch.arange(n, device=pixels.device)[:, None, None]
    rows, columns = ((i + shift).to(pixels.device) for i in (rows, columns))
    return padded[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # (N, C, H, W)


def erase(pixels: Tensor, chance: float, numbers: Tensor) -> Tensor:
    """A random rectangle of some images gets their mean colour (Zhong et al., arXiv 1708.04896).

    Arguments:
        pixels: uint8, (N, C, H, W).
        chance: share of the images that lose one.
        numbers: (N, 5), in [0, 1).
    """
    (least, most), aspect = ERASED
    height, width = pixels.shape[2:]
    area = least + (most - least) * numbers[:, 1]  # of the image, (N,)
    ratio = torch.exp((2 * numbers[:, 2] - 1) * math.log(aspect))
    box = rectangle((area * ratio).sqrt(), (area / ratio).sqrt(), numbers[:, 3:], height, width)
    box &= (numbers[:, 0] < chance)[:, None, None]
    mean = pixels.float().mean((2, 3), keepdim=True).round().to(torch.uint8)  # (N, C, 1, 1)
    return torch.where(box[:, None], mean, pixels)


def rectangle(tall: Tensor, wide: Tensor, place: Tensor, height: int, width: int) -> Tensor:
    """Where rectangles lie: bool (N, H, W), of these shares of the height and width (N,), placed by (N, 2)."""
    inside = []
    for share, at, size in ((tall, place[:, 0], height), (wide, place[:, 1], width)):
        length = (share * size).round().clamp(max=size)
        first = (at * (size - length + 1)).floor()
        pixel = torch.arange(size, device=share.device)
        inside.append((pixel >= first[:, None]) & (pixel < (first + length)[:, None]))
    return inside[0][:, :, None] & inside[1][:, None, :]


def mix(pixels: Tensor, labels: Tensor, recipe: Recipe, draw: Draw, classes: int) -> tuple[Tensor, Tensor]:
    """Each image mixed with its neighbour in the batch, whose order is random, and their classes likewise.

    `mixup` adds them up (Zhang et al., arXiv 1710.09412), `cutmix` puts a rectangle of one into the other (Yun et
    al., arXiv 1905.04899); with both, half of the images get the one and half the other.

    Returns:
        Pixels uint8 (N, C, H, W), and the shares of the classes float32 (N, classes).
    """
    n, _, height, width = pixels.shape
    other = (torch.arange(n, device=pixels.device) ^ 1).clamp(max=n - 1)  # an odd one out stays itself
    numbers = draw.uniform("mix", 3)
    kept = torch.ones(n, device=pixels.device)
    cut = torch.full_like(kept, bool(recipe.cutmix)).bool()
    if recipe.mixup and recipe.cutmix:
        cut = numbers[:, 0] < 0.5
    mixed = pixels
    if recipe.cutmix:
        side = (1 - draw.beta("cutmix", recipe.cutmix)).sqrt() * cut
        box = rectangle(side, side, numbers[:, 1:], height, width)
        mixed = torch.where(box[:, None], mixed[other], mixed)
        kept = 1 - box.float().mean((1, 2))
    if recipe.mixup:
        kept = torch.where(cut, kept, draw.beta("mixup", recipe.mixup))
        weight = torch.where(cut, torch.ones_like(kept), kept)[:, None, None, None]
        blend = weight * mixed + (1 - weight) * pixels[other]
        mixed = blend.round().to(torch.uint8)
    shares = F.one_hot(labels, classes).float()
    return mixed, kept[:, None] * shares + (1 - kept)[:, None] * shares[other]
