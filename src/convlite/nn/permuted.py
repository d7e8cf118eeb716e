"""Grouped convolutions whose groups are any channels, not neighbours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .chain import Chain, Padding, PaddingMode, Size


class ChannelPermutation(nn.Module):
    """Puts channel order[i] in place i; `order`, a buffer, is 0, 1, 2, ... until it is set."""

    order: Tensor  # int64 (C,)

    def __init__(self, channels: int, *, device: Any = None) -> None:
        super().__init__()
        self.register_buffer("order", torch.arange(channels, device=device))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W), or both without N
        y = x.index_select(-3, self.order)
        last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        return y.contiguous(memory_format=torch.channels_last) if last else y

    def extra_repr(self) -> str:
        return f"channels={len(self.order)}"


class PermutedConv2d(Chain):
    """A grouped convolution between two permutations of channels (Zhao & Luk, arXiv 1811.09341).

    So any channels may stand in a group together. Until `before.order` and `after.order` are set, it is a grouped
    `nn.Conv2d`.

    Arguments:
        groups: of channels that don't see each other; they must divide both channel counts.
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
    ) -> None:
        grouped = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device, dtype,
        )  # fmt: skip
        before, after = (ChannelPermutation(n, device=device) for n in (in_channels, out_channels))
        super().__init__({"before": before, "grouped": grouped, "after": after})
