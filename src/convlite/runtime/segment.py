"""A class for every pixel of a picture, whatever its size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.encoded import File
from ..data.jpeg import Pixels
from ..data.pictures import guarded, resized, upright
from ..preprocess import Preprocess
from .engines import Array

MOST = 64  # times as many pixels as a network sees at once: more are a strip that nobody would label


@dataclass(frozen=True)
class Look:
    """A picture, and the windows in which a network looks at it.

    Arguments:
        picture: uint8 (H, W, C), upright and at its own size.
        size: (h, w) that it is scaled to.
        corners: top and left of each window in the scaled picture.
        windows: uint8 (N, C, height, width), as large as the network takes them.
    """

    picture: Pixels
    size: tuple[int, int]
    corners: tuple[tuple[int, int], ...]
    windows: Tensor


def look(file: File, how: Preprocess) -> Look | str:
    """All of a picture in as few windows as cover it, or one phrase that says why it can't be read.

    It is scaled as for training, so that one side fits; along the other the windows overlap evenly.
    """

    def cut(file: File) -> Look:
        picture = upright(file, how.channels)
        size = scaled(picture.shape[:2], how)
        if math.prod(size) > MOST * math.prod(how.size):
            sides = "x".join(map(str, picture.shape[:2]))
            raise ValueError(
                f"it is too long and narrow, {sides}, for a network that sees {how.size[0]}x{how.size[1]}"
            )
        pixels = resized(picture, size, how.interpolation, (0, 0, picture.shape[1], picture.shape[0]))
        corners = tuple((y, x) for y in _starts(size[0], how.size[0]) for x in _starts(size[1], how.size[1]))
        windows = [pixels[:, y : y + how.size[0], x : x + how.size[1]] for y, x in corners]
        return Look(picture, size, corners, torch.stack(windows))

    found: Look | str = guarded(file, cut)
    return found


def scaled(sides: tuple[int, ...], how: Preprocess) -> tuple[int, int]:
    """What a picture's height and width become: the size over the crop, and more where its form is another."""
    by = max(int(wanted / how.crop) / side for wanted, side in zip(how.size, sides))
    height, width = (max(least, round(by * side)) for least, side in zip(how.size, sides))
    return height, width


def label(found: Look, answer: Callable[[Tensor], Array]) -> Pixels:
    """The class of each pixel, uint8 (H, W), at the picture's own size.

    Arguments:
        answer: gives scores, (N, classes, height, width), of pixels, uint8 (N, C, height, width).
    """
    scores = torch.from_numpy(answer(found.windows)).softmax(1)
    height, width = scores.shape[2:]
    whole = torch.zeros(scores.shape[1], *found.size)  # (classes, h, w)
    for (y, x), window in zip(found.corners, scores):
        whole[:, y : y + height, x : x + width] += window  # two that overlap vote together
    best = torch.full(found.picture.shape[:2], -math.inf)  # (H, W)
    labels = torch.zeros(found.picture.shape[:2], dtype=torch.uint8)
    for i, share in enumerate(whole):  # one at a time: all classes of a large photograph would fill the memory
        large = F.interpolate(share[None, None], best.shape, mode="bilinear", align_corners=False)[0, 0]
        labels[large > best] = i
        best = torch.maximum(best, large)
    return labels.numpy()


def _starts(length: int, window: int) -> list[int]:
    """Where windows begin that cover a length, the fewest, evenly spread."""
    count = -(-length // window)
    return [round(i * (length - window) / max(1, count - 1)) for i in range(count)]
