"""Masks: for every pixel of a picture the number of its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from torch import Tensor

from ..errors import need
from ..preprocess import Preprocess
from .encoded import File, content_of
from .jpeg import Pixels
from .pictures import Window, guarded, middle, part


@dataclass(frozen=True)
class Masks:
    """The masks of pictures.

    Arguments:
        files: where each is; grey, or of a palette whose entries are the classes.
        classes: how many there are; values from 0 to below that.
        ignore: the value of pixels that are no class.
    """

    files: Sequence[File]
    classes: int
    ignore: int

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
            if window is None:
                return middle(pixels, how, "nearest")[0]
            return part(pixels, window(*found.shape), how.size, mode="nearest-exact")[0]

        return guarded(self.files[index], cut)

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
