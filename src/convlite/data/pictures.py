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

A = TypeVar("A")
B = TypeVar("B")

File = Path | bytes  # where an encoded picture is: a file, or its content
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})


def read(file: File, size: tuple[int, int], channels: int = 3) -> Tensor | str:
    """One picture, brought to a size: turned upright, the largest centred part of that aspect, scaled.

    Arguments:
        size: height and width. A picture that has it is left as it is.
        channels: 3 for colour, 1 for grey. Transparency is dropped; of 16 bits the upper 8 are kept.

    Returns:
        uint8 (channels, H, W), or, where the picture can't be read, one phrase that says why.
    """
    height, width = size

    def decode(image: Any) -> Tensor:
        pillow, ops = need("PIL.Image", "train"), need("PIL.ImageOps", "train")
        # A JPEG decodes several times faster at a half or a quarter of its size; 2x leaves the filter room.
        image.draft(None, (2 * max(size), 2 * max(size)))
        image = ops.exif_transpose(image)
        if image.mode.startswith("I;16"):
            image = pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if "transparency" in image.info:
            image = image.convert("RGBA")
        image = image.convert("RGB" if channels == 3 else "L")
        pixels = np.array(ops.fit(image, (width, height), method=pillow.Resampling.BILINEAR))
        return torch.from_numpy(pixels).reshape(height, width, channels).permute(2, 0, 1)

    return _opened(file, decode)


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
