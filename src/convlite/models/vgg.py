"""VGG (Simonyan and Zisserman, "Very Deep Convolutional Networks", arXiv 1409.1556)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .backbone import Backbone, Family
from .head import Head, fully_connected
from .layers import Asked, Maker, chain, eights
from .pools import MaxPool2d

CONVOLUTIONS = {  # in each stage, between two pools (table 1: A, B, D, E)
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
WIDTHS = (64, 128, 256, 512, 512)


def vgg(
    asked: Asked,
    *,
    depth: int = 16,
    norm: bool = False,
    hidden: Sequence[int] = (4096, 4096),
    width: float = 1.0,
) -> Backbone:
    """Stages of 3×3 convolutions, each closed by a 2×2 pool.

    Arguments:
        asked: `conv` stands for every convolution but the first, `stem` for the first.
        depth: layers with weights: 11, 13, 16 or 19.
        norm: batch norms after the convolutions, which the paper does not have.
        hidden: sizes of the fully connected layers.
        width: times every number of channels.
    """
    maker, c = Maker(asked, norm=norm, bias=True), asked.in_channels
    flows, taps = {}, {}
    for stage, (count, channels) in enumerate(zip(CONVOLUTIONS[depth], WIDTHS), 1):
        m = eights(channels * width)
        steps: dict[str, nn.Module] = {}
        for i in range(1, count + 1):
            steps[f"conv{i}"] = maker.unit(c, m, 3, stem=stage == i == 1)
            c = m
        taps[f"stage{stage}.conv{count}"] = (m, 2 ** (stage - 1))
        flows[f"stage{stage}"] = chain(**steps, pool=MaxPool2d(2, 2))
    taps["stage5.pool"] = (c, 32)
    pixels = 7 if hidden else 1
    layers = fully_connected(c * pixels**2, hidden, dropout=0.5)
    head = Head(
        c,
        asked.num_classes,
        pool=nn.AdaptiveAvgPool2d(pixels),
        hidden=layers,
        features=(c, *hidden)[-1],
        dropout=0.5,
    )
    return Backbone(flows, head, taps, maker=maker, smallest=32)


PAPER = "Simonyan and Zisserman 2014, arXiv 1409.1556"
NETWORKS = {
    f"vgg{depth}{'_bn' * norm}": Family(vgg, PAPER, fixed={"depth": depth, "norm": norm})
    for norm in (False, True)
    for depth in CONVOLUTIONS
}
