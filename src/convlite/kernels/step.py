"""What the compiled kernels are told: one operation on images a step, many steps a call."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

from ..errors import RunError
from .build import library

Shape = tuple[int, int, int, int]
Pair = tuple[int, int]
IMAGE, PATCHES, DEPTHWISE, GROUPED, LARGEST, MEAN = range(6)  # what outputs are made of, as in vector.h


def _fields(kind: Any, *names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names]


class Step(ctypes.Structure):
    """The structure of that name in vector.h."""

    _fields_ = (
        *_fields(
            ctypes.c_int64, "n", "h", "w", "c", "oh", "ow", "m", "kh", "kw", "sh", "sw", "ph", "pw", "dh", "dw"
        ),
        *_fields(ctypes.c_int64, "columns", "source", "relu", "terms", "threads", "mid", "planes"),
        *_fields(ctypes.c_float, "mid_low", "mid_high", "low", "high"),
        *_fields(ctypes.c_void_p, "taps", "mid_bias", "index", "weight", "bias", "x", "residual", "y"),
    )

    @property
    def output(self) -> Shape:
        """(N, M, H', W')."""
        return self.n, self.m, self.oh, self.ow

    def on(self, images: Shape, output: Pair | None = None) -> Step:
        """The same on images (N, C, H, W), giving outputs of that height and width, by default of whole windows."""
        made = Step.from_buffer_copy(self)
        made.n, made.c, made.h, made.w = images
        made.oh = (made.h + 2 * made.ph - made.dh * (made.kh - 1) - 1) // made.sh + 1
        made.ow = (made.w + 2 * made.pw - made.dw * (made.kw - 1) - 1) // made.sw + 1
        if output is not None:
            made.oh, made.ow = output
        return made


def plain(kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Step:
    """A step of this geometry, its outputs without bounds."""
    step = Step(terms=1, low=-math.inf, high=math.inf, mid_low=-math.inf, mid_high=math.inf)
    (step.kh, step.kw), (step.sh, step.sw) = kernel, stride
    (step.ph, step.pw), (step.dh, step.dw) = padding, dilation
    return step


def pool(
    images: Shape,
    output: Pair,
    kernel: Pair,
    stride: Pair,
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    *,
    largest: bool,
    over: int = 0,
) -> Step:
    """A pool of images (N, C, H, W).

    Arguments:
        output: its height and width: windows may go over the edge.
        largest: of a window; else its mean, of the taps that fall into the image, or its sum over `over`.
    """
    step = plain(kernel, stride, padding, dilation)
    step.source, step.terms, step.m = LARGEST if largest else MEAN, over, images[1]
    return step.on(images, output)


def run(steps: Sequence[Step]) -> None:
    """One after the other; an array of them is taken as it is.

    Raises:
        RunError: no memory for the tiles.
    """
    array = steps if isinstance(steps, ctypes.Array) else (Step * len(steps))(*steps)
    if library().run(array, ctypes.c_int64(len(array))):
        raise RunError("There is no memory for the tiles of a convolution: give fewer images at once.")
