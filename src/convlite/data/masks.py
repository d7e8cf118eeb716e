"""Masks: for every pixel of a picture the number of its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from torch import Tensor

from ..errors import need
from ..preprocess import Preprocess
from .encoded import File, content_of
from .jpeg import Pixels
from .pictures import Window, guarded, in_threads, middle, part, size_of


@dataclass(frozen=True)
class Masks:
    """The masks of pictures.

    Arguments:
        files: where each is; grey, or of a palette whose entries are the classes.
        classes: how many there are; values from 0 to below that.
        ignore: the value of pixels that are no class.
        size: what they are brought to; by default as their pictures.
    """

    files: Sequence[File]
    classes: int
    ignore: int
    size: tuple[int, int] | None = None

    def read(self, index: int, how: Preprocess, window: Window | None = None) -> Tensor | str:
        """One mask, cut and scaled as `pictures.read` does with its picture; no values are mixed.

        Returns:
            uint8 (H, W); or one phrase that says why the mask can't be used.
        """

        def cut(file: File) -> Tensor | str:
            found = values(file)
            odd = self.beyond(found)
            if odd is not None:
                return f"its mask holds {odd}, beyond the {self.classes} classes and {self.ignore} for none"
            pixels = found[..., None]
            own = how if self.size is None else replace(how, size=self.size)
            if window is None:
                return middle(pixels, own, "nearest")[0]
            return part(pixels, window(*found.shape), own.size, mode="nearest-exact")[0]

        return guarded(self.files[index], cut)

    def unscaled(self, how: Preprocess) -> Masks:
        """The same, none of them scaled, if they are all of one size: the part that their pictures are cut to."""
        sizes = set(in_threads(size_of, self.files))
        size = sizes.pop() if sizes else "none"
        if sizes or isinstance(size, str):
            return self
        by = min(side * how.crop / wanted for side, wanted in zip(size, how.size))
        height, width = (max(1, min(round(by * wanted), side)) for side, wanted in zip(size, how.size))
        return replace(self, size=(height, width))

    def beyond(self, found: Pixels) -> int | None:
        """A value that is no class, if there is one."""
        odd = np.flatnonzero(np.bincount(found.ravel(), minlength=256)[self.classes :]) + self.classes
        return next((int(value) for value in odd if value != self.ignore), None)


def values(file: File) -> Pixels:
    """A mask's values as they stand in the file, (H, W).

    Raises:
        ValueError: it is in colour, or of more than 8 bits.
        OSError: it can't be read.
    """
    with need("PIL.Image", "train").open(BytesIO(content_of(file))) as image:
        if image.mode not in ("L", "P", "1"):
            raise ValueError(f"its mask has the mode {image.mode}, not one number of 8 bits a pixel")
        return np.array(image, dtype=np.uint8)
