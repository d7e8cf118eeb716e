"""Labelled images in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .pictures import Window, part


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images in memory; `Files` are used in the same way.

    Arguments:
        pixels: uint8, (N, C, H, W).
        labels: int64, (N,), indices into the data's classes; or masks of them, uint8 (N, H, W).
    """

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> Images:
        return Images(self.pixels[index], self.labels[index])

    def read(self, index: int, window: Window | None = None) -> tuple[Tensor, Tensor]:
        """One image, uint8 (C, H, W), and its label; or the part that the window says, scaled to the same size."""
        pixels, label = self.pixels[index], self.labels[index]
        if window is None:
            return pixels, label
        height, width = pixels.shape[1:]
        to = (height, width)
        box = window(height, width)
        pixels = part(pixels.permute(1, 2, 0).numpy(), box, to)
        return pixels, part(label[..., None].numpy(), box, to, mode="nearest-exact")[0] if label.ndim else label

    def parts(
        self,
        indices: Iterable[Tensor],
        *,
        windows: Callable[[int], Window] | None = None,
        replaced: bool = False,
        workers: int | None = None,
    ) -> Iterator[Images]:
        """The images of each index (n,) in turn, as `Files.parts` gives them: here none can be unreadable."""
        for index in indices:
            if windows is None:
                yield self[index]
            else:
                pixels, labels = zip(*(self.read(i, windows(i)) for i in index.tolist()), strict=True)
                yield Images(torch.stack(pixels), torch.stack(labels))
