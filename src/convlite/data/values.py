"""Labelled images as values, and the one definition of how pixels become a network's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images.

    Arguments:
        pixels: uint8, (N, C, H, W).
        labels: int64, (N,); indices into the data's classes.
    """

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> Images:
        return Images(self.pixels[index], self.labels[index])


@dataclass(frozen=True, eq=False)
class Data:
    """A data set, split once and for all.

    Arguments:
        train: what is learnt from.
        test: what is only ever measured on.
        classes: their names, in the order of the labels.
        mean: of each channel, of pixels in 0..1, over `train` alone.
        std: the deviation likewise; one grey level (1/255) where a channel is constant.
        source: what it was loaded from.
        skipped: (file, why) of what could not be read and was left out.
    """

    train: Images
    test: Images
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: str
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train.pixels.shape[1:]
        return channels, height, width

    @property
    def preprocess(self) -> dict[str, Any]:
        """All that it takes to treat a picture as these were, in plain JSON values."""
        channels, height, width = self.shape
        return {
            "size": [height, width],
            "channels": channels,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels, uint8 (N, C, H, W), as a network takes them: float32, (x / 255 - mean) / std."""
        return normalise(pixels, self.mean, self.std)

    def holdout(self, share: float = 0.2, seed: int = 0) -> Data:
        """The same data with `test` a random part of `train`: what settings are chosen on.

        Raises:
            InputError: nothing would be left on one side.
        """
        count = round(share * len(self.train))
        if not 0 < count < len(self.train):
            raise InputError(
                f"A held-out share of {share} of {len(self.train)} images leaves one side empty: "
                "give a share between 0 and 1."
            )
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))
        return replace(self, train=self.train[order[count:]], test=self.train[order[:count]])


def normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels as a network takes them.

    Arguments:
        pixels: uint8, (N, C, H, W).
        mean: one number a channel, for pixels in 0..1; `std` likewise.

    Returns:
        float32, (N, C, H, W), channels last in memory: (x / 255 - mean) / std.
    """
    # One multiply-add over the pixels: x * 1/(255 std) - mean/std.
    scale = torch.tensor([1 / (255 * s) for s in std], device=pixels.device)
    offset = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=pixels.device)
    floats = pixels.to(torch.float32, memory_format=torch.channels_last)
    return floats.mul_(scale[:, None, None]).add_(offset[:, None, None])


def statistics(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in 0..1, exact: from histograms of the 256 levels."""
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in pixels.unbind(1):
        counts = torch.bincount(channel.flatten(), minlength=256).double()  # (256,)
        mean = float((counts * levels).sum() / counts.sum())
        variance = float((counts * (levels - mean) ** 2).sum() / counts.sum())
        means.append(mean)
        stds.append(max(variance**0.5, 1 / 255))
    return tuple(means), tuple(stds)
