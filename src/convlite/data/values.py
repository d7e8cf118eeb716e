"""A data set as a value: what is learnt from, what is measured on, and what the labels mean."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..errors import InputError
from ..preprocess import Preprocess
from .files import Files
from .images import Images
from .stream import Stream

Source = Images | Files | Stream
"""Labelled images: `len`, `labels`, and `parts` of them, one after the other."""


def in_random_order(images: Source, seed: int) -> tuple[Source, Tensor]:
    """The images, and their indices in an order that the seed decides; those of a stream come in that order."""
    if isinstance(images, Stream):
        return images.shuffled(seed), torch.arange(len(images))
    return images, torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))


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
        broken: why, by file, for what could not be read and was left out; grows while files are decoded.
        ignore: where labels are masks, the value in them that is no class; None where labels are classes.
        held_out: (share, seed) of each `holdout` that led here, which together are what it takes to cut it again.
    """

    train: Source
    test: Source
    classes: tuple[str, ...]
    preprocess: Preprocess
    source: str
    broken: dict[str, str] = field(default_factory=dict)
    ignore: int | None = None
    held_out: tuple[tuple[float, int], ...] = ()

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(file, why) of what could not be read so far and was left out."""
        return tuple(sorted(self.broken.items()))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.preprocess.shape

    def describe(self) -> str:
        """Where the pictures are, in one line: in memory, or decoded from their files whenever they are needed."""
        count = f"{len(self.train):,} and {len(self.test):,} pictures of {self.shape[1]}x{self.shape[2]}"
        if isinstance(self.train, Images) and isinstance(self.test, Images):
            held = self.train.pixels.nbytes + self.test.pixels.nbytes
            return f"{count} in memory ({held / 1e6:.0f} MB)"
        return f"{count}, decoded from {self.source} as they are needed"

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels, uint8 (N, C, H, W), as a network takes them: float32, (x / 255 - mean) / std."""
        return self.preprocess.normalise(pixels)

    def holdout(self, share: float = 0.2, seed: int = 0) -> Data:
        """The same data with `test` a random part of `train`: what settings are chosen on.

        Raises:
            InputError: nothing would be left on one side.
        """
        count = round(share * len(self.train)) if 0 < share < 1 else 0
        if not 0 < count < len(self.train):
            raise InputError(
                f"A held-out share of {share} of {len(self.train)} images leaves one side empty: "
                "give a share between 0 and 1."
            )
        order = torch.randperm(len(self.train), generator=torch.Generator().manual_seed(seed))
        cuts = (*self.held_out, (share, seed))
        return replace(self, train=self.train[order[count:]], test=self.train[order[:count]], held_out=cuts)
