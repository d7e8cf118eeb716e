"""Image files as pixels: decoded with Pillow, brought to one size, in threads."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import need
from ..preprocess import Preprocess

A = TypeVar("A")
B = TypeVar("B")

File = Path | bytes  # where an encoded picture is: a file, or its content
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})


def read(file: File, how: Preprocess) -> Tensor | str:
    """One picture as pixels: turned upright, scaled, its middle cut out. Transparency is dropped.

    Arguments:
        how: its size, crop, interpolation and number of channels: 3 for colour, 1 for grey. A picture of that
            size is left as it is where the crop is 1. Of 16 bits the upper 8 are kept.

    Returns:
        uint8 (channels, H, W), or, where the picture can't be read, one phrase that says why.
    """

    def decode(image: Any) -> Tensor:
        pillow, ops = need("PIL.Image", "train"), need("PIL.ImageOps", "train")
        # A JPEG decodes several times faster at a half or a quarter of its size; 2x leaves the filter room.
        image.draft(None, (2 * round(max(how.size) / how.crop),) * 2)
        image = ops.exif_transpose(image)
        if image.mode.startswith("I;16"):
            image = pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if "transparency" in image.info:
            image = image.convert("RGBA")
        image = image.convert("RGB" if how.channels == 3 else "L")
        pixels = np.array(_scaled(image, how, pillow.Resampling[how.interpolation.upper()]))
        return torch.from_numpy(pixels).reshape(*how.size, how.channels).permute(2, 0, 1)

    return _opened(file, decode)


def _scaled(image: Any, how: Preprocess, method: Any) -> Any:
    """The middle of the picture, scaled so that the shorter side is the size over the crop, rounded down."""
    height, width = how.size
    sides = image.height, image.width
    covered = [int(wanted / how.crop) for wanted in how.size]
    short = max((0, 1), key=lambda i: covered[i] / sides[i])  # the side that is covered just so
    scaled = [
        covered[i] if i == short else max(how.size[i], int(covered[short] * sides[i] / sides[short]))
        for i in (0, 1)
    ]
    top, left = round((scaled[0] - height) / 2), round((scaled[1] - width) / 2)
    y, x = sides[0] / scaled[0], sides[1] / scaled[1]
    # The same pixels as scaling all of it and cutting then, without the memory that a long strip would take.
    box = (left * x, top * y, min((left + width) * x, sides[1]), min((top + height) * y, sides[0]))
    return image.resize((width, height), method, box)


def size_of(file: File) -> tuple[int, int] | str:
    """Height and width of a picture from its header alone, or one phrase that says why it has none."""

    def measure(image: Any) -> tuple[int, int]:
        width, height = image.size
        orientation = image.getexif().get(need("PIL.ExifTags", "train").Base.Orientation, 1)
        return (width, height) if orientation in (5, 6, 7, 8) else (height, width)  # 5 to 8 lie on their side

    return _opened(file, measure)


def in_threads(work: Callable[[A], B], items: Sequence[A]) -> Iterator[B]:
    """The results in order; what is still waiting is dropped when the caller stops early."""
    pool = ThreadPoolExecutor(min(32, (os.cpu_count() or 1) + 1))  # Pillow lets go of the interpreter lock
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)


def _opened(file: File, use: Callable[[Any], A]) -> A | str:
    pillow = need("PIL.Image", "train")
    try:
        with pillow.open(BytesIO(file) if isinstance(file, bytes) else file) as image:
            return use(image)
    except need("PIL", "train").UnidentifiedImageError:
        return "it is no image, or of a type that Pillow doesn't know"
    except OSError as error:
        return error.strerror or str(error)
    # What Pillow's decoders raise on broken files, besides OSError.
    except (
        SyntaxError,
        ValueError,
        EOFError,
        NotImplementedError,
        struct.error,
        zlib.error,
        pillow.DecompressionBombError,
    ) as error:
        return str(error) or type(error).__name__
