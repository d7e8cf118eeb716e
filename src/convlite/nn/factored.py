"""Convolutions through fewer channels or one direction at a time: what low ranks are made of."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import InputError
from .chain import Between, Chain, Padding, PaddingMode, Size, expect_whole, pair, split


class AsymmetricConv2d(Chain):
    """K×1 to `rank` channels, then 1×K (Jaderberg et al., arXiv 1405.3866; Szegedy et al., arXiv 1512.00567).

    Arguments:
        rank: channels between the two; `out_channels` where left out.
        groups: of channels that don't see each other; each has its share of the `rank`.
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
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: Any = None,
        dtype: Any = None,
        rank: int | None = None,
        between: Between = None,
    ) -> None:
        rest: Any = {"groups": groups, "padding_mode": padding_mode, "device": device, "dtype": dtype}
        mid = out_channels if rank is None else rank
        expect_whole("rank", mid, groups)
        (kh, kw), (sh, sw), (dh, dw) = pair(kernel_size), pair(stride), pair(dilation)
        tall, wide = split(padding)
        layers: dict[str, nn.Module] = {
            "vertical": nn.Conv2d(in_channels, mid, (kh, 1), (sh, 1), tall, (dh, 1), bias=False, **rest),
            "horizontal": nn.Conv2d(mid, out_channels, (1, kw), (1, sw), wide, (1, dw), bias=bias, **rest),
        }
        super().__init__(layers, between)


class BottleneckConv2d(Chain):
    """1×1 to `rank_in`, K×K to `rank_out`, 1×1 out (He et al., arXiv 1512.03385; Tucker-2, arXiv 1511.06530).

    Arguments:
        rank_in, rank_out: channels inside; a quarter of the outer ones where left out.
        groups: of channels that don't see each other; each has its share of the ranks.
        slices: that the K×K works in, alone each (Xie et al., arXiv 1611.05431); as many as there are channels
            inside make it depthwise (Sandler et al., arXiv 1801.04381).
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
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: Any = None,
        dtype: Any = None,
        rank_in: int | None = None,
        rank_out: int | None = None,
        between: Between = None,
        slices: int = 1,
    ) -> None:
        like: Any = {"device": device, "dtype": dtype}
        parts = _parts(slices, groups)
        a = parts * max(1, in_channels // 4 // parts) if rank_in is None else rank_in
        b = parts * max(1, out_channels // 4 // parts) if rank_out is None else rank_out
        expect_whole("rank", a, parts)
        expect_whole("rank", b, parts)
        layers: dict[str, nn.Module] = {
            "reduce": nn.Conv2d(in_channels, a, 1, groups=groups, bias=False, **like),
            "spatial": nn.Conv2d(
                a, b, kernel_size, stride, padding, dilation, parts, False, padding_mode=padding_mode, **like
            ),
            "expand": nn.Conv2d(b, out_channels, 1, groups=groups, bias=bias, **like),
        }
        super().__init__(layers, between)


class LowRankConv2d(Chain):
    """K×K to `rank` channels, then 1×1 out (Zhang et al., arXiv 1505.06798).

    Arguments:
        rank: channels between the two; a quarter of `out_channels` where left out.
        slices: of the input channels, each of which makes its share of the `rank` alone (Liebenwein et al., arXiv
            2107.11442): between 1, where each of them sees all, and depthwise separable, where it sees one.
        groups: of channels that don't see each other; each has its share of the `rank`, and of its own `slices`.
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
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        device: Any = None,
        dtype: Any = None,
        rank: int | None = None,
        between: Between = None,
        slices: int = 1,
    ) -> None:
        like: Any = {"device": device, "dtype": dtype}
        parts = _parts(slices, groups)
        mid = parts * max(1, out_channels // 4 // parts) if rank is None else rank
        if in_channels % parts or mid % parts:
            raise InputError(f"{parts} slices don't divide {in_channels} channels in and a rank of {mid}.")
        layers: dict[str, nn.Module] = {
            "spatial": nn.Conv2d(
                in_channels, mid, kernel_size, stride, padding, dilation, parts, False,
                padding_mode=padding_mode, **like,
            ),
            "expand": nn.Conv2d(mid, out_channels, 1, groups=groups, bias=bias, **like),
        }  # fmt: skip
        super().__init__(layers, between)


def _parts(slices: int, groups: int) -> int:
    """All that work alone: the slices of every group."""
    if slices < 1 or groups < 1:
        raise InputError(f"Channels come in 1 slice and 1 group at least, given {slices} and {groups}.")
    return slices * groups
