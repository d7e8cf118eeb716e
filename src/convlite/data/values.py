"""Labelled images as values."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import InputError
from ..preprocess import Preprocess


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
        preprocess: how the pictures were brought to their size, and how pixels become a network's input; mean
            and deviation are those of `train` alone, unless a checkpoint says others.
        source: what it was loaded from.
        skipped: (file, why) of what could not be read and was left out.
    """

    train: Images
    test: Images
    classes: tuple[str, ...]
    preprocess: Preprocess
    source: str
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train.pixels.shape[1:]
        return channels, height, width

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels, uint8 (N, C, H, W), as a network takes them: float32, (x / 255 - mean) / std."""
        return self.preprocess.normalise(pixels)

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
