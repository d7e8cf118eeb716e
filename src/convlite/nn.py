"""The modules that torch lacks: chains of convolutions with `nn.Conv2d`'s own signature.

Each can stand wherever an `nn.Conv2d` stands, in anybody's network. Shapes are `nn.Conv2d`'s:
(N, C, H, W) in, (N, M, H', W') out. Only the last convolution of a chain carries the bias: with nothing
between, an earlier one would be redundant.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import InputError, nearest

__all__ = [
    "AsymmetricConv2d",
    "Between",
    "BottleneckConv2d",
    "ChannelShuffle",
    "DepthwiseConv2d",
    "LowRankConv2d",
    "SeparableConv2d",
    "ShuffledConv2d",
    "StackedConv2d",
]

Size = int | tuple[int, int]
Padding = int | tuple[int, int] | str
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
Order = Literal["depthwise_first", "pointwise_first"]
Between = str | Callable[[], nn.Module] | nn.Module | None
"""What stands between two convolutions of a chain: nothing, the name of an activation of `torch.nn`
("ReLU", "ELU"), a class or function that makes a module, or a module to copy."""


def make_between(between: str | Callable[[], nn.Module] | nn.Module) -> nn.Module:
    """A fresh module of what `between` names.

    Raises:
        InputError: no activation of that name in `torch.nn`.
    """
    if isinstance(between, nn.Module):
        return copy.deepcopy(between)
    if isinstance(between, str):
        found = {n.lower(): n for n in nn.modules.activation.__all__}.get(between.lower())
        if found is None:
            raise InputError(
                f"torch.nn has no activation {between!r}; {nearest(between, nn.modules.activation.__all__)}"
            )
        try:
            made: nn.Module = getattr(nn, found)()
        except TypeError:
            raise InputError(
                f"{found} can't be made without arguments: give a module, or another activation."
            ) from None
        return made
    return between()


def _pair(value: Size) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _split(padding: Padding) -> tuple[Padding, Padding]:
    """The padding of a K×1 and of a 1×K convolution that together pad as `padding` says."""
    if isinstance(padding, str):
        return padding, padding
    vertical, horizontal = _pair(padding)
    return (vertical, 0), (0, horizontal)


def _expect_whole(name: str, value: int, groups: int) -> None:
    if groups < 1 or value % groups:
        raise InputError(
            f"Each of {groups} groups needs its share of the {name}, and {value} is no multiple of that."
        )


class _Chain(nn.Module):
    """Convolutions run one after the other, with the attributes by which code inspects an `nn.Conv2d`."""

    def __init__(self, layers: dict[str, nn.Module], between: Between = None) -> None:
        super().__init__()
        convolutions = [layer for layer in layers.values() if isinstance(layer, nn.Conv2d)]
        last = convolutions[-1]
        self.in_channels = convolutions[0].in_channels
        self.out_channels = last.out_channels
        for name, layer in layers.items():
            self.add_module(name, layer)
            if between is not None and layer in convolutions[:-1]:
                number = convolutions.index(layer) + 1 if len(convolutions) > 2 else ""
                self.add_module(f"between{number}", make_between(between))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, M, H', W')
        for layer in self.children():
            x = layer(x)
        return x


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
        first, *others = F.conv2d(input, single, groups=self.in_channels, **rest).chunk(r, -3)  # (N, M, H', W') each
        y = sum(others, first)
        return y if bias is None else y + bias[:, None, None]


class SeparableConv2d(_Chain):
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


class AsymmetricConv2d(_Chain):
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
        _expect_whole("rank", mid, groups)
        (kh, kw), (sh, sw), (dh, dw) = _pair(kernel_size), _pair(stride), _pair(dilation)
        tall, wide = _split(padding)
        layers: dict[str, nn.Module] = {
            "vertical": nn.Conv2d(in_channels, mid, (kh, 1), (sh, 1), tall, (dh, 1), bias=False, **rest),
            "horizontal": nn.Conv2d(mid, out_channels, (1, kw), (1, sw), wide, (1, dw), bias=bias, **rest),
        }
        super().__init__(layers, between)


class StackedConv2d(_Chain):
    """Several 3×3 in place of one larger odd kernel: two for 5×5 (Simonyan & Zisserman, arXiv 1409.1556).

    The stride is the last one's; padding is shared out evenly.
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
        between: Between = None,
    ) -> None:
        rest: Any = {"padding_mode": padding_mode, "device": device, "dtype": dtype}
        kernel, spread = _pair(kernel_size), _pair(dilation)
        reach = [(k - 1) // 2 for k in kernel]  # how many 3-wide kernels each direction needs
        count = max(reach)
        if count < 2 or kernel[0] % 2 == 0 or kernel[1] % 2 == 0:
            raise InputError(f"Stacked 3×3 need an odd kernel of 5 or more, given {kernel[0]}×{kernel[1]}.")
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise InputError(f"Padding must be numbers, 'same' or 'valid', given {padding!r}.")
            padding = (spread[0] * reach[0], spread[1] * reach[1]) if padding == "same" else 0
        total = _pair(padding)
        layers: dict[str, nn.Module] = {}
        for i in range(count):
            last = i == count - 1
            layers[f"conv{i + 1}"] = nn.Conv2d(
                in_channels if i == 0 else out_channels,
                out_channels,
                (3 if i < reach[0] else 1, 3 if i < reach[1] else 1),
                stride if last else 1,
                (share(total[0], reach[0], i), share(total[1], reach[1], i)),
                spread,
                bias=bias and last,
                **rest,
            )
        super().__init__(layers, between)


def share(total: int, parts: int, index: int) -> int:
    """Part `index` of `total` shared out over `parts` as evenly as whole numbers allow; 0 beyond them."""
    parts = max(1, parts)  # a direction that needs no kernel is still padded, by the first
    return (index + 1) * total // parts - index * total // parts if index < parts else 0


class BottleneckConv2d(_Chain):
    """1×1 to `rank_in`, K×K to `rank_out`, 1×1 out (He et al., arXiv 1512.03385; Tucker-2, arXiv 1511.06530).

    Arguments:
        rank_in, rank_out: channels inside; a quarter of the outer ones where left out.
        groups: of channels that don't see each other; each has its share of the ranks.
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
    ) -> None:
        like: Any = {"groups": groups, "device": device, "dtype": dtype}
        a = groups * max(1, in_channels // 4 // groups) if rank_in is None else rank_in
        b = groups * max(1, out_channels // 4 // groups) if rank_out is None else rank_out
        _expect_whole("rank", a, groups)
        _expect_whole("rank", b, groups)
        layers: dict[str, nn.Module] = {
            "reduce": nn.Conv2d(in_channels, a, 1, bias=False, **like),
            "spatial": nn.Conv2d(
                a, b, kernel_size, stride, padding, dilation, bias=False, padding_mode=padding_mode, **like
            ),
            "expand": nn.Conv2d(b, out_channels, 1, bias=bias, **like),
        }
        super().__init__(layers, between)


class LowRankConv2d(_Chain):
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
        parts = slices * groups
        mid = parts * max(1, out_channels // 4 // parts) if rank is None else rank
        if slices < 1 or in_channels % parts or mid % parts:
            raise InputError(f"{parts} slices don't divide {in_channels} channels in and a rank of {mid}.")
        layers: dict[str, nn.Module] = {
            "spatial": nn.Conv2d(
                in_channels, mid, kernel_size, stride, padding, dilation, parts, False,
                padding_mode=padding_mode, **like,
            ),
            "expand": nn.Conv2d(mid, out_channels, 1, groups=groups, bias=bias, **like),
        }  # fmt: skip
        super().__init__(layers, between)


class ChannelShuffle(nn.Module):
    """Interleaves `groups` groups of channels, so that the next grouped layer sees all (arXiv 1707.01083)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W), or both without N
        return x.unflatten(-3, (self.groups, -1)).transpose(-4, -3).flatten(-4, -3).contiguous()

    def extra_repr(self) -> str:
        return f"groups={self.groups}"


class ShuffledConv2d(_Chain):
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
        if _pair(kernel_size) == (1, 1):  # no neighbours to look at: the grouped 1×1 is all there is
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
