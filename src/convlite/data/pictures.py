"""Encoded pictures as pixels, brought to one size: JPEG with simplejpeg, everything else with Pillow."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import need
from ..preprocess import Preprocess
from . import jpeg
from .encoded import File, content_of
from .jpeg import Pixels

A = TypeVar("A")
B = TypeVar("B")

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
Box = tuple[int, int, int, int]  # top, left, height, width
Window = Callable[[int, int], Box]  # of a picture's height and width, the part to take


def read(file: File, how: Preprocess, window: Window | None = None) -> Tensor | str:
    """One picture as pixels: turned upright, scaled, its middle or a part cut out. Transparency is dropped.

    A JPEG that is larger than needed is decoded at a half, a quarter or an eighth of its size, at least
    twice the size wanted, or of a part at least as large, so that the scaling after it has enough to average.

    Arguments:
        how: its size, crop, interpolation and number of channels: 3 for colour, 1 for grey. A picture of that
            size is left as it is where the crop is 1. Of 16 bits the upper 8 are kept.
        window: the part to take in the place of the middle; it is scaled bilinearly, with antialiasing.

    Returns:
        uint8 (channels, H, W), or, where the picture can't be read, one phrase that says why.
    """
    box: Box | None = None

    def wanted(height: int, width: int) -> int:
        nonlocal box
        if window is None:
            return min(height, width) // (2 * round(max(how.size) / how.crop))
        box = window(height, width)
        return min(box[2] // how.size[0], box[3] // how.size[1])

    def decode(file: File) -> Tensor:
        content = content_of(file)
        found = jpeg.decode(content, how.channels, wanted)
        if found is None:
            found = _with_pillow(content, how.channels), 1
            wanted(*found[0].shape[:2])
        pixels, by = found
        return middle(pixels, how, how.interpolation) if box is None else part(pixels, box, how.size, by=by)

    return guarded(file, decode)


def upright(file: File, channels: int) -> Pixels:
    """All of a picture at its own size, uint8 (H, W, channels).

    Raises:
        What `guarded` puts into words.
    """
    content = content_of(file)
    found = jpeg.decode(content, channels, lambda height, width: 1)
    return np.ascontiguousarray(found[0]) if found else _with_pillow(content, channels)


def size_of(file: File) -> tuple[int, int] | str:
    """Height and width of a picture from its header alone, or one phrase that says why it has none."""

    def measure(file: File) -> tuple[int, int]:
        source = file if isinstance(file, Path) else BytesIO(content_of(file))
        with need("PIL.Image", "train").open(source) as image:
            width, height = image.size
            turn = image.getexif().get(need("PIL.ExifTags", "train").Base.Orientation, 1)
            return (width, height) if turn >= jpeg.ON_ITS_SIDE else (height, width)

    return guarded(file, measure)


def in_threads(work: Callable[[A], B], items: Sequence[A]) -> Iterator[B]:
    """The results in order; what is still waiting is dropped when the caller stops early."""
    pool = ThreadPoolExecutor(min(32, (os.cpu_count() or 1) + 1))  # decoders let go of the interpreter lock
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)


def _with_pillow(content: bytes, channels: int) -> Pixels:
    pillow, ops = need("PIL.Image", "train"), need("PIL.ImageOps", "train")
    with pillow.open(BytesIO(content)) as opened:
        image = ops.exif_transpose(opened)
        if image.mode.startswith("I;16"):
            image = pillow.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        if "transparency" in image.info:
            image = image.convert("RGBA")
        pixels = np.array(image.convert("RGB" if channels == 3 else "L"))
    return pixels.reshape(*pixels.shape[:2], channels)


def middle(pixels: Pixels, how: Preprocess, interpolation: str) -> Tensor:
    """The middle of a picture (H, W, C), its shorter side scaled to the size over the crop, rounded down."""
    height, width = how.size
    sides = pixels.shape[:2]
    if sides == how.size and how.crop == 1:
        return torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
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
    return resized(pixels, how.size, interpolation, box)


def part(pixels: Pixels, box: Box, to: tuple[int, int], *, by: int = 1, mode: str = "bilinear") -> Tensor:
    """A part of a picture, scaled; the pixels (H, W, C) are there at one `by`-th of the size that the box is of."""
    top, left, height, width = (edge / by for edge in box)
    if all(edge % by == 0 for edge in box):
        cut = pixels[int(top) : int(top + height), int(left) : int(left + width)]
        images = torch.from_numpy(np.ascontiguousarray(cut)).permute(2, 0, 1)[None]  # (1, C, h, w)
        # On uint8 this is Pillow's algorithm, twice as fast; but it knows no edges between two pixels.
        return F.interpolate(images, to, mode=mode, antialias=mode == "bilinear")[0]  # (C, H, W)
    bottom, right = min(top + height, pixels.shape[0]), min(left + width, pixels.shape[1])
    return resized(pixels, to, "bilinear", (left, top, right, bottom))


def resized(pixels: Pixels, to: tuple[int, int], method: str, box: tuple[float, float, float, float]) -> Tensor:
    """Scaled with Pillow: (H, W, C) to (C, *to), of what is in a box of left, top, right and bottom."""
    pillow = need("PIL.Image", "train")
    image = pillow.fromarray(np.ascontiguousarray(pixels if pixels.shape[2] == 3 else pixels[..., 0]))
    scaled = image.resize((to[1], to[0]), pillow.Resampling[method.upper()], box)
    return torch.from_numpy(np.array(scaled)).reshape(*to, -1).permute(2, 0, 1)


def guarded(file: File, use: Callable[[File], A]) -> A | str:
    """What comes of a file, or, in one phrase, what decoders say of a broken one."""
    pillow = need("PIL.Image", "train")
    try:
        return use(file)
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
