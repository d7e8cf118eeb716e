"""ShuffleNet: v1 (Zhang et al., arXiv 1707.01083) and v2 (Ma et al., arXiv 1807.11164)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..kinds import Depthwise
from ..nn import ChannelShuffle
from .backbone import Backbone, Family
from .branches import Concat
from .head import Head
from .layers import Asked, Maker, Residual, chain
from .pools import AvgPool2d, MaxPool2d
from .stages import Stages

V1 = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # groups: channels of the first stage (table 1)
V2 = {0.5: (48, 96, 192, 1024), 1.0: (116, 232, 464, 1024)}  # table 5: width of each stage, and of the last 1×1
BLOCKS = (4, 8, 4)


def shufflenet_v1(
    asked: Asked,
    *,
    groups: int = 3,
) -> Backbone:
    """Bottlenecks of grouped 1×1 convolutions with a channel shuffle between.

    Arguments:
        asked: `conv` stands in the place of each depthwise convolution, `stem` for the convolution in front.
        groups: of the 1×1 convolutions: 3 or 8.
    """
    maker = Maker(asked, published=Depthwise())
    stages = _stem(maker)
    for stage in range(3):
        m = V1[groups] * 2**stage
        for i in range(BLOCKS[stage]):
            stride = 2 if i == 0 else 1
            stages.add(_v1(maker, stages.c, m, stride, groups, first=stage == i == 0), m, stride)
    head = Head(stages.c, asked.num_classes)
    return Backbone(stages.flows, head, stages.taps, maker=maker)


def shufflenet_v2(
    asked: Asked,
    *,
    width: float = 1.0,
) -> Backbone:
    """Half of the channels pass by untouched, the other half goes through the branch; then they are shuffled.

    Arguments:
        asked: `conv` stands in the place of each depthwise convolution, `stem` for the convolution in front.
        width: 0.5 or 1.0.
    """
    maker = Maker(asked, published=Depthwise())
    stages = _stem(maker)
    *widths, last = V2[width]
    for m, blocks in zip(widths, BLOCKS):
        for i in range(blocks):
            stride = 2 if i == 0 else 1
            stages.add(_v2(maker, stages.c, m, stride), m, stride)
    stages.add(maker.unit(stages.c, last), last)
    head = Head(last, asked.num_classes)
    return Backbone(stages.flows, head, stages.taps, maker=maker)


def _stem(maker: Maker) -> Stages:
    conv1 = maker.unit(maker.asked.in_channels, 24, 3, 2, stem=True)
    return Stages(chain(conv1=conv1, pool=MaxPool2d(3, 2, padding=1)), 24, (2, 2))


def _v1(maker: Maker, c: int, m: int, stride: int, groups: int, *, first: bool) -> nn.Module:
    """Figure 2: (b), and with a stride (c), where the pooled input is set beside the branch.

    The very first 1×1 is dense: it reads few channels (section 3.2).
    """
    out, mid = m - c if stride > 1 else m, m // 4
    branch = chain(
        reduce=_grouped(maker, c, mid, 1 if first else groups, act=True),
        shuffle=ChannelShuffle(groups),
        spatial=maker.unit(mid, mid, 3, stride, act=False),
        expand=_grouped(maker, mid, out, groups, act=False),
    )
    if stride == 1:
        return Residual(branch, after=maker.act())
    return chain(join=Concat(pool=AvgPool2d(3, stride, padding=1), branch=branch), act=maker.act())


def _grouped(maker: Maker, c: int, m: int, groups: int, *, act: bool) -> nn.Sequential:
    layers = {"conv": nn.Conv2d(c, m, 1, groups=groups, bias=False), "norm": maker.norm(m)}
    return chain(**layers, act=maker.act()) if act else chain(**layers)


def _v2(maker: Maker, c: int, m: int, stride: int) -> nn.Module:
    """Figure 3: (c), and with a stride (d), where both halves are computed from the whole input."""
    half = m // 2
    branch = chain(
        reduce=maker.unit(c if stride > 1 else half, half),
        spatial=maker.unit(half, half, 3, stride, act=False),
        expand=maker.unit(half, half),
    )
    if stride == 1:
        return chain(join=Beside(branch), shuffle=ChannelShuffle(2))
    other = chain(spatial=maker.unit(c, c, 3, stride, act=False), point=maker.unit(c, half))
    return chain(join=Concat(other=other, branch=branch), shuffle=ChannelShuffle(2))


class Beside(nn.Module):
    """The first half of the channels as they are, the second half through the branch."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        one, other = x.chunk(2, dim=1)  # (N, C/2, H, W) each
        return torch.cat((one, self.branch(other)), dim=1)


PAPERS = ("Zhang et al. 2017, arXiv 1707.01083", "Ma et al. 2018, arXiv 1807.11164")
NETWORKS = {
    "shufflenet_v1_g3": Family(shufflenet_v1, PAPERS[0], fixed={"groups": 3}),
    "shufflenet_v1_g8": Family(shufflenet_v1, PAPERS[0], fixed={"groups": 8}),
    "shufflenet_v2_x0_5": Family(shufflenet_v2, PAPERS[1], fixed={"width": 0.5}),
    "shufflenet_v2_x1_0": Family(shufflenet_v2, PAPERS[1], fixed={"width": 1.0}),
}
