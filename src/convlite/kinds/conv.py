"""One convolution as a pure value, and the only place where a convolution's cost is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import nn

from ..cost import Cost
from ..errors import InputError
from ..nn.chain import PaddingMode

Pair = tuple[int, int]
Padding = Pair | Literal["same"]
PADDING_MODES: tuple[PaddingMode, ...] = get_args(PaddingMode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conv:
    """A 2-D convolution: what `nn.Conv2d` takes, and the size of its input. Make one with `conv(...)`.

    Arguments:
        c, m: channels in and out.
        k, stride, dilation: (vertical, horizontal).
        padding: zeros on each side, (vertical, horizontal); or "same" where the two sides differ.
        groups: channel groups; each sees c / groups channels.
        bias: whether a bias is added.
        padding_mode: what is padded with, one of torch's four modes.
        h, w: the input's size; 0 where it is not known, and then there is no cost.
    """

    c: int
    m: int
    k: Pair
    stride: Pair = (1, 1)
    padding: Padding = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    bias: bool = False
    padding_mode: PaddingMode = "zeros"
    h: int = 0
    w: int = 0

    def __post_init__(self) -> None:
        positive = {"c": self.c, "m": self.m, "groups": self.groups}
        positive |= {f"{name}[{i}]": getattr(self, name)[i] for name in ("k", "stride", "dilation") for i in (0, 1)}
        for name, value in positive.items():
            if value < 1:
                raise InputError(f"A convolution needs {name} of at least 1, given {value}.")
        extents = self.extent(0), self.extent(1)
        if self.padding == "same" and not any(extent % 2 for extent in extents):
            # One value for one convolution: where both sides are alike, "same" is written as numbers.
            object.__setattr__(self, "padding", (extents[0] // 2, extents[1] // 2))
        if self.h < 0 or self.w < 0 or (self.padding != "same" and min(self.padding) < 0):
            raise InputError(f"Sizes and padding can't be negative: given {self}.")
        if self.c % self.groups or self.m % self.groups:
            raise InputError(
                f"{self.groups} groups don't divide {self.c} channels in and {self.m} out: "
                f"choose a divisor of {math.gcd(self.c, self.m)}."
            )
        if self.padding == "same" and self.stride != (1, 1):
            raise InputError(f"Padding 'same' with an even kernel needs stride 1, given {self.stride}.")
        if self.padding_mode not in PADDING_MODES:
            raise InputError(
                f"padding_mode must be one of {', '.join(PADDING_MODES)}, given {self.padding_mode!r}."
            )

    def extent(self, axis: int) -> int:
        """How many pixels the dilated kernel reaches beyond its first, along `axis`."""
        return self.dilation[axis] * (self.k[axis] - 1)

    @property
    def keeps_size(self) -> bool:
        """Whether, but for the stride, the output has the input's size."""
        return self.padding == "same" or all(2 * self.padding[i] == self.extent(i) for i in (0, 1))

    @property
    def out_size(self) -> Pair:
        """The output's (height, width).

        Raises:
            InputError: the input's size is not known, or smaller than the kernel.
        """
        if not (self.h and self.w):
            raise InputError("The cost of a convolution depends on the size of its input: give h= and w=.")
        if self.padding == "same":
            return self.h, self.w
        spare = [size + 2 * self.padding[i] - self.extent(i) - 1 for i, size in enumerate((self.h, self.w))]
        if min(spare) < 0:
            raise InputError(
                f"An input of {self.h}×{self.w} is smaller than the kernel {self.k} with dilation "
                f"{self.dilation} and padding {self.padding}: give a larger input or more padding."
            )
        return spare[0] // self.stride[0] + 1, spare[1] // self.stride[1] + 1

    @property
    def one_group(self) -> Conv:
        """What each of the groups is by itself: dense."""
        return replace(self, c=self.c // self.groups, m=self.m // self.groups, groups=1)

    @property
    def params(self) -> int:
        """Weights and biases."""
        return self.k[0] * self.k[1] * (self.c // self.groups) * self.m + self.m * self.bias

    def cost(self, itemsize: int = 4) -> Cost:
        """Exact parameters, multiply-accumulates and bytes for one image, `itemsize` bytes a number.

        Multiplications with padded zeros count, as every published figure has it; adding a bias does not.
        """
        oh, ow = self.out_size
        return Cost(
            params=self.params,
            macs=(self.params - self.m * self.bias) * oh * ow,
            weight_bytes=self.params * itemsize,
            input_bytes=self.c * self.h * self.w * itemsize,
            output_bytes=self.m * oh * ow * itemsize,
        )

    def build(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> nn.Conv2d:
        """The `nn.Conv2d` with these sizes and torch's own initial weights."""
        return nn.Conv2d(
            self.c, self.m, self.k, self.stride, self.padding, self.dilation, self.groups, self.bias,
            self.padding_mode, device=device, dtype=dtype,
        )  # fmt: skip


def conv(
    *,
    c: int,
    m: int,
    k: int | Pair = 3,
    stride: int | Pair = 1,
    padding: int | Pair | str | None = None,
    dilation: int | Pair = 1,
    groups: int = 1,
    bias: bool = False,
    padding_mode: PaddingMode = "zeros",
    h: int = 0,
    w: int | None = None,
) -> Conv:
    """A `Conv` from the study notes' letters; one number stands for both directions.

    Arguments:
        padding: None or "same" keep the input's size (but for the stride), "valid" pads nothing.
        w: the input's width; the same as its height `h` where left out.

    Raises:
        InputError: sizes that no convolution can have.
    """
    pads: Padding
    if padding is None or padding == "same":
        pads = "same"
    elif isinstance(padding, str):
        if padding != "valid":
            raise InputError(f"Padding must be numbers, 'same' or 'valid', given {padding!r}.")
        pads = (0, 0)
    else:
        pads = _pair(padding)
    return Conv(
        c=c, m=m, k=_pair(k), stride=_pair(stride), padding=pads, dilation=_pair(dilation), groups=groups,
        bias=bias, padding_mode=padding_mode, h=h, w=h if w is None else w,
    )  # fmt: skip


def conv_of(module: nn.Conv2d, h: int = 0, w: int | None = None) -> Conv:
    """The value of an existing `nn.Conv2d`, for an input of h×w."""
    return conv(
        c=module.in_channels, m=module.out_channels, k=_pair(module.kernel_size), stride=_pair(module.stride),
        padding=module.padding if isinstance(module.padding, str) else _pair(module.padding),
        dilation=_pair(module.dilation), groups=module.groups, bias=module.bias is not None,
        padding_mode=module.padding_mode, h=h, w=w,
    )  # fmt: skip


def _pair(value: int | tuple[int, ...]) -> Pair:
    if isinstance(value, int):
        return value, value
    if len(value) != 2:
        raise InputError(f"Expected one number or (vertical, horizontal), given {value!r}.")
    return value[0], value[1]
