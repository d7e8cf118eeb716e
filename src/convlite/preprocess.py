"""How a picture becomes what a network takes: one value, wherever it comes from, kept with the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .errors import InputError

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and std of its colours
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  # pixels from -1 to 1


@dataclass(frozen=True)
class Preprocess:
    """Scale so that the middle `crop` of the picture fills the size, cut it out, normalise.

    Arguments:
        size: height and width of what the network takes.
        mean: one number a channel, for pixels in 0..1; `std` likewise.
        crop: share of the height and width that is seen, in (0, 1].
        interpolation: Pillow's filter for scaling, by its name in lower case.

    Raises:
        InputError: a value out of range.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = 1.0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if len(self.size) != 2 or min(self.size) < 1:
            raise InputError(f"The size {self.size} is no height and width: give two positive numbers.")
        if not self.mean or len(self.mean) != len(self.std) or not all(s > 0 for s in self.std):
            raise InputError(
                f"The mean {self.mean} and std {self.std} don't fit: give one of each a channel, std above 0."
            )
        if not 0 < self.crop <= 1:
            raise InputError(f"crop is the share of the picture that is seen, in (0, 1], not {self.crop}.")
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(
                f"There is no interpolation {self.interpolation!r}: give one of {', '.join(INTERPOLATIONS)}."
            )

    @property
    def channels(self) -> int:
        """Of the pictures: 1 for grey, 3 for colour."""
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, *self.size

    def resized(self, shape: tuple[int, int, int]) -> Preprocess:
        """The same for pictures of (C, H, W); with another number of channels every one gets the average's."""
        mean, std = self.mean, self.std
        if shape[0] != self.channels:
            mean, std = ((sum(values) / len(values),) * shape[0] for values in (mean, std))
        return replace(self, size=shape[1:], mean=mean, std=std)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels, uint8 (N, C, H, W), as a network takes them.

        Returns:
            float32, (N, C, H, W), channels last in memory: (x / 255 - mean) / std.
        """
        # One multiply-add over the pixels: x * 1/(255 std) - mean/std. By whole rows, which takes a quarter of the
        # time: over three channels torch's innermost loops are too short.
        scale = torch.tensor([1 / (255 * s) for s in self.std], device=pixels.device)
        offset = torch.tensor([-m / s for m, s in zip(self.mean, self.std)], device=pixels.device)
        n, channels, height, width = pixels.shape
        rows = pixels.permute(0, 2, 3, 1).reshape(n * height, width * channels)
        floats = rows.to(torch.float32, copy=True).mul_(scale.repeat(width)).add_(offset.repeat(width))
        return floats.view(n, height, width, channels).permute(0, 3, 1, 2)

    def pixels(self, images: Tensor) -> Tensor:
        """What `normalise` was given: of floats (N, C, H, W), uint8 of the same shape."""
        mean, std = (torch.tensor(each, device=images.device)[:, None, None] for each in (self.mean, self.std))
        return (images * (255 * std) + 255 * mean).round_().clamp_(0, 255).to(torch.uint8)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "size": list(self.size),
            "channels": self.channels,
            "mean": list(self.mean),
            "std": list(self.std),
            "crop": self.crop,
            "interpolation": self.interpolation,
        }

    @staticmethod
    def from_dict(known: Mapping[str, Any]) -> Preprocess:
        """What `to_dict` wrote.

        Raises:
            InputError: something is missing or out of range.
        """
        missing = {"size", "mean", "std"} - set(known)
        if missing:
            raise InputError(
                f"The preprocessing lacks {', '.join(sorted(missing))}: give it as it was saved with the network."
            )
        return Preprocess(
            tuple(known["size"]), tuple(known["mean"]), tuple(known["std"]),
            known.get("crop", 1.0), known.get("interpolation", "bilinear"),
        )  # fmt: skip

    @staticmethod
    def from_timm(said: Mapping[str, Any]) -> Preprocess:
        """What timm's configuration of a checkpoint says; ImageNet's numbers where it is silent."""
        return Preprocess(
            tuple(said.get("input_size", (3, 224, 224))[1:]),
            tuple(said.get("mean", IMAGENET[0])),
            tuple(said.get("std", IMAGENET[1])),
            float(said.get("crop_pct") or 0.875),
            str(said.get("interpolation") or "bicubic"),
        )


def statistics(pixels: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in 0..1, exact: from histograms of the 256 levels.

    Arguments:
        pixels: uint8, (N, C, H, W). A constant channel gets the deviation of one level, 1/255.
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, stds = [], []
    for channel in pixels.unbind(1):
        counts = torch.bincount(channel.flatten(), minlength=256).double()  # (256,)
        mean = float((counts * levels).sum() / counts.sum())
        variance = float((counts * (levels - mean) ** 2).sum() / counts.sum())
        means.append(mean)
        stds.append(max(variance**0.5, 1 / 255))
    return tuple(means), tuple(stds)
