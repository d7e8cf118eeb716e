"""RandAugment (Cubuk et al., arXiv 1909.13719): some of fourteen changes a picture, all of one magnitude."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .colour import recolour

STRONGEST = 30  # the magnitude at which each change is at its strongest, as in the paper
Change = Callable[[Tensor, Tensor], Tensor]  # of pixels uint8 (N, C, H, W) and strengths (N,) in [-1, 1]


def randaugment(pixels: Tensor, magnitude: float, numbers: Tensor) -> Tensor:
    """Change each picture by as many operations as `numbers` has, drawn for each picture by itself.

    Arguments:
        pixels: uint8, (N, C, H, W).
        magnitude: how strong, from 0 to 30. Signs are random.
        numbers: (N, operations, 3), in [0, 1).
    """
    pixels = pixels.clone()
    for one in numbers.unbind(1):  # (N, 3)
        which = (one[:, 0] * len(CHANGES)).long()
        strength = torch.where(one[:, 1] < 0.5, -1.0, 1.0) * (magnitude / STRONGEST)
        for number in which.unique().tolist():
            there = (which == number).nonzero()[:, 0]
            pixels[there] = CHANGES[number](pixels[there], strength[there])
    return pixels


def _same(pixels: Tensor, strength: Tensor) -> Tensor:
    return pixels


def _warped(a: float = 0, b: float = 0, c: float = 0, d: float = 0, *, turn: float = 0) -> Change:
    """Shears (a along x, b along y), moves (c, d, of the size), and a turn in degrees, at full strength."""

    def warp(pixels: Tensor, strength: Tensor) -> Tensor:
        height, width = pixels.shape[2:]
        angle = math.radians(turn) * strength
        cos, sin = angle.cos(), angle.sin()
        # Grids run from -1 to 1 along both sides, whatever their lengths.
        rows = [
            cos, (sin + a * strength) * (height / width), 2 * c * strength,
            (b * strength - sin) * (width / height), cos, 2 * d * strength,
        ]  # fmt: skip
        grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(pixels.shape), align_corners=False)
        moved = F.grid_sample(pixels.float(), grid, align_corners=False)  # black comes in
        return moved.round_().to(torch.uint8)

    return warp


def _recoloured(which: int) -> Change:
    """Brightness (0), contrast (1) or saturation (2) by 1 ± 0.9 at full strength."""

    def change(pixels: Tensor, strength: Tensor) -> Tensor:
        one, factor = torch.ones_like(strength), 1 + 0.9 * strength
        brightness, contrast, saturation = (factor if i == which else one for i in range(3))
        return recolour(pixels, brightness, contrast, saturation, torch.zeros_like(strength))

    return change


def _posterize(pixels: Tensor, strength: Tensor) -> Tensor:
    lost = (4 * strength.abs()).round().to(torch.uint8)[:, None, None, None]  # of 8 bits
    return (pixels >> lost) << lost


def _solarize(pixels: Tensor, strength: Tensor) -> Tensor:
    """What is brighter than a threshold is inverted."""
    return torch.where(pixels >= (256 * (1 - strength.abs()))[:, None, None, None], 255 - pixels, pixels)


def _autocontrast(pixels: Tensor, strength: Tensor) -> Tensor:
    floats = pixels.float()
    low, high = floats.amin((2, 3), keepdim=True), floats.amax((2, 3), keepdim=True)
    scaled = (floats - low) * (255 / (high - low).clamp(min=1))
    return torch.where(high > low, scaled, floats).round().to(torch.uint8)


def _equalize(pixels: Tensor, strength: Tensor) -> Tensor:
    """Each channel's levels spread so that all are about as frequent."""
    n, c, height, width = pixels.shape
    flat = pixels.reshape(n * c, -1).long()
    counts = torch.zeros(n * c, 256, device=pixels.device).scatter_add_(1, flat, torch.ones_like(flat).float())
    below = counts.cumsum(1) - counts  # pixels darker than each level
    others = torch.gather(below, 1, flat.amax(1, keepdim=True))  # darker than the brightest, which becomes 255
    levels = torch.gather((below * (255 / others.clamp(min=1))).round(), 1, flat)
    return torch.where(others > 0, levels, flat.float()).to(torch.uint8).view(n, c, height, width)


def _sharpness(pixels: Tensor, strength: Tensor) -> Tensor:
    """Away from a blurred self, or towards it; the outermost pixels stay."""
    channels = pixels.shape[1]
    kernel = torch.tensor([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]], device=pixels.device) / 13  # Pillow's SMOOTH
    blurred = floats = pixels.float()
    if min(pixels.shape[2:]) > 2:
        inner = F.conv2d(floats, kernel.expand(channels, 1, 3, 3), groups=channels)
        blurred = floats.clone()
        blurred[:, :, 1:-1, 1:-1] = inner
    factor = (1 + 0.9 * strength)[:, None, None, None]
    return torch.lerp(blurred, floats, factor).round_().clamp_(0, 255).to(torch.uint8)


# With the ranges of the paper's code; a move reaches 0.45 of the side, so that it means the same at every size.
CHANGES: tuple[Change, ...] = (
    _same, _autocontrast, _equalize, _warped(turn=30), _solarize, _recoloured(2), _posterize, _recoloured(1),
    _recoloured(0), _sharpness, _warped(a=0.3), _warped(b=0.3), _warped(c=0.45), _warped(d=0.45),
)  # fmt: skip
