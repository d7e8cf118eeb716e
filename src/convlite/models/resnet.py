"""ResNet (He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385)."""

from __future__ import annotations

from torch import nn

from ..kinds import Kind
from .backbone import Backbone, Family
from .layers import Head, Maker, Residual, Subsample, chain


def cifar_resnet(
    *,
    conv: Kind | None = None,
    stem: Kind | None = None,
    num_classes: int = 10,
    in_channels: int = 3,
    depth: int = 20,
) -> Backbone:
    """The networks of section 4.2, for 32×32 images: 6n + 2 layers, widths 16, 32 and 64.

    Shortcuts have no parameters (option A): pixels are skipped, missing channels are zeros.

    Arguments:
        conv: the kind of every 3×3 convolution after the first.
        stem: the kind of the first.
        depth: 6n + 2.
    """
    maker, blocks, c = Maker(conv, stem), (depth - 2) // 6, 16
    flows = {"stem": chain(conv1=maker.unit(in_channels, c, 3, stem=True))}
    taps = {}
    for stage, m in enumerate((16, 32, 64), 1):
        flow = nn.Sequential()
        for i in range(1, blocks + 1):
            flow.add_module(f"block{i}", _basic(maker, c, m, stride=2 if i == 1 and stage > 1 else 1))
            c = m
        flows[f"stage{stage}"] = flow
        taps[f"stage{stage}.block{blocks}"] = (m, 2 ** (stage - 1))
    return Backbone(flows, Head(c, num_classes), taps, in_channels=in_channels, maker=maker)


def _basic(maker: Maker, c: int, m: int, stride: int) -> Residual:
    """Two 3×3 (figure 5, left)."""
    branch = chain(unit1=maker.unit(c, m, 3, stride), unit2=maker.unit(m, m, 3, act=False))
    return Residual(branch, Subsample(stride, m - c) if stride > 1 else None, maker.act())


PAPER = "He et al. 2015, arXiv 1512.03385"
NETWORKS = {
    f"resnet{depth}": Family(cifar_resnet, PAPER, (3, 32, 32), 10, {"depth": depth})
    for depth in (20, 32, 44, 56)
}
