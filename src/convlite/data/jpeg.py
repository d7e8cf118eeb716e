"""JPEG pictures, decoded several times faster than Pillow does, to the same pixels."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from ..errors import need

Pixels = NDArray[np.uint8]  # (H, W, C)
SCAN = b"\xff\xda"  # where the coded pixels begin
LARGEST = 178_956_970  # pixels: Pillow takes more for an attack, and says so
SCALES = (8, 4, 2)  # what libjpeg divides by quickly: fewer coefficients to transform

# How Exif says that a camera was held, and what brings its picture upright.
UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}
ON_ITS_SIDE = 5  # from here on, height and width change places


def decode(content: bytes, channels: int, wanted: Callable[[int, int], int]) -> tuple[Pixels, int] | None:
    """A JPEG's pixels, upright, at a half, a quarter or an eighth of its size where that is enough.

    Arguments:
        channels: 3 for colour, 1 for grey.
        wanted: from the picture's height and width, the most that both may be divided by.

    Returns:
        Pixels (H, W, channels), and what the picture was divided by, its last rows and columns rounded up; or
        None for what is better left to Pillow: no JPEG, four inks, or not quite sound.
    """
    if content[:2] != b"\xff\xd8":
        return None
    simplejpeg = need("simplejpeg", "train")
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(content)
        if colours not in ("YCbCr", "RGB", "Gray") or height * width > LARGEST:
            return None
        turn = _orientation(content)
        most = wanted(width, height) if turn >= ON_ITS_SIDE else wanted(height, width)
        # Of fewer than 8 pixels several of libjpeg's eighths give the same size, and any of them may be taken.
        by = next((scale for scale in SCALES if scale <= most and max(height, width) >= 8), 1)
        pixels = simplejpeg.decode_jpeg(
            content, "RGB" if channels == 3 else "GRAY", min_height=-(-height // by), min_width=-(-width // by)
        )
    except ValueError:
        return None
    return UPRIGHT[turn](pixels), by


def _orientation(content: bytes) -> int:
    """1 to 8, as in Exif; 1, upright, where nothing or nonsense is said."""
    head = content[: content.find(SCAN) + 1]  # all that is said before the pixels
    if b"Exif\0\0" not in head and b"tiff:Orientation" not in head:
        return 1  # without asking Pillow, which takes as long as a tenth of the decoding
    pillow = need("PIL.Image", "train")
    try:
        with pillow.open(BytesIO(content)) as image:
            turn = image.getexif().get(need("PIL.ExifTags", "train").Base.Orientation, 1)
    except (OSError, SyntaxError) as error:
        raise ValueError from error  # for Pillow to put into words
    return turn if turn in UPRIGHT else 1
