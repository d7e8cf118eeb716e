"""Convolutions that look at each channel alone, and depthwise separable ones made of them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .chain import Between, Chain, Order, Padding, PaddingMode, Size


class DepthwiseConv2d(nn.Conv2d):
    """A convolution with a group for each channel in (r outputs each) or out (r inputs each), fast on CPUs too.

    Parameters have the shapes and names of `nn.Conv2d` with those groups. A general grouped convolution is several
    times slower on a CPU than one with a single channel in and out for each group (`benchmarks/depthwise.py`), so
    that one runs, on channels repeated before it or added up after it.

    Whole blocks of channels are repeated and added up, which costs the least and keeps them last in memory: with r
    outputs for each of C inputs, channel t·C + c of the output is term t of input channel c; with r inputs for each
    of M outputs, channel t·M + m of the input is term t of output channel m. (`nn.Conv2d` has them at c·r + t and
    m·r + t.)
    """

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        spread = self.groups == self.in_channels < self.out_channels
        gather = self.groups == self.out_channels < self.in_channels
        if not (spread or gather):
            return super()._conv_forward(input, weight, bias)
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
        padding = 0 if self.padding_mode != "zeros" else self.padding
        rest: Any = {"stride": self.stride, "padding": padding, "dilation": self.dilation}
        if spread:
            repeated = torch.cat([input] * (self.out_channels // self.in_channels), -3)  # (N, r·C, H, W)
            return F.conv2d(repeated, weight, bias, groups=self.out_channels, **rest)
        r = self.in_channels // self.out_channels
        single = weight.transpose(0, 1).flatten(0, 1).unsqueeze(1)  # (r·M, 1, Kh, Kw)
        first, *others = F.conv2d(input, single, groups=self.in_channels, **rest).chunk(
            r, -3
        )  # (N, M, H', W') each
        y = sum(others, first)
        return y if bias is None else y + bias[:, None, None]


class SeparableConv2d(Chain):
    """Depthwise separable convolution (Sifre 2014; Chollet, arXiv 1610.02357).

    Arguments:
        order: "depthwise_first": `multiplier` filters for each input channel, then 1×1; or
            "pointwise_first": 1×1 to `multiplier` channels for each output channel, then a convolution in
            which each output channel sees only its own.
        multiplier: terms for each channel; K² of them express any dense convolution (arXiv 1808.05517).
        between: what stands between the two; nothing, as in Xception, unless given.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        *,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: Any = None,
        dtype: Any = None,
        order: Order = "depthwise_first",
        multiplier: int = 1,
        between: Between = None,
    ) -> None:
        like: Any = {"device": device, "dtype": dtype}
        spatial: Any = {"padding_mode": padding_mode, **like}
        depthwise = nn.Conv2d if multiplier == 1 else DepthwiseConv2d
        if order == "depthwise_first":
            mid = multiplier * in_channels
            layers: dict[str, nn.Module] = {
                "depthwise": depthwise(
                    in_channels, mid, kernel_size, stride, padding, dilation, in_channels, False, **spatial
                ),
                "pointwise": nn.Conv2d(mid, out_channels, 1, bias=bias, **like),
            }
        elif order == "pointwise_first":
            mid = multiplier * out_channels
            layers = {
                "pointwise": nn.Conv2d(in_channels, mid, 1, bias=False, **like),
                "depthwise": depthwise(
                    mid, out_channels, kernel_size, stride, padding, dilation, out_channels, bias, **spatial
                ),
            }
        else:
            raise InputError(f"order must be 'depthwise_first' or 'pointwise_first', given {order!r}.")
        super().__init__(layers, between)
