"""Grouped convolutions whose groups are mixed by a shuffle."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .chain import Between, Chain, Padding, PaddingMode, Size, pair


class ChannelShuffle(nn.Module):
    """Interleaves `groups` groups of channels, so that the next grouped layer sees all (arXiv 1707.01083)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W), or both without N
        return x.unflatten(-3, (self.groups, -1)).transpose(-4, -3).flatten(-4, -3).contiguous()

    def extra_repr(self) -> str:
        return f"groups={self.groups}"


class ShuffledConv2d(Chain):
    """Grouped 1×1, channel shuffle and, for K > 1, a depthwise K×K (ShuffleNet, arXiv 1707.01083).

    Arguments:
        groups: groups of the 1×1; they must divide both channel counts.
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
        groups: int,
        between: Between = None,
    ) -> None:
        like: Any = {"device": device, "dtype": dtype}
        spatial: Any = {"padding_mode": padding_mode, **like}
        shuffle = ChannelShuffle(groups)
        layers: dict[str, nn.Module]
        if pair(kernel_size) == (1, 1):  # no neighbours to look at: the grouped 1×1 is all there is
            pointwise = nn.Conv2d(in_channels, out_channels, 1, stride, padding, dilation, groups, bias, **spatial)
            layers = {"pointwise": pointwise, "shuffle": shuffle}
        else:
            depthwise = nn.Conv2d(
                out_channels, out_channels, kernel_size, stride, padding, dilation, out_channels, bias,
                **spatial,
            )  # fmt: skip
            pointwise = nn.Conv2d(in_channels, out_channels, 1, groups=groups, bias=False, **like)
            layers = {"pointwise": pointwise, "shuffle": shuffle, "depthwise": depthwise}
        super().__init__(layers, between)
