"""Inception v2, BN-Inception (Ioffe and Szegedy, "Batch Normalization", arXiv 1502.03167, figure 5)."""

from __future__ import annotations

from torch import nn

from .backbone import Backbone, Family
from .branches import Concat, branch
from .head import Head
from .layers import Asked, Maker, chain
from .pools import AvgPool2d, CoverMaxPool2d, MaxPool2d


def inception_v2(
    asked: Asked,
    *,
    caffe: bool = True,
) -> Backbone:
    """Inception v1 with batch norms, two 3×3 in the place of 5×5, and strided modules between the stages.

    Arguments:
        asked: `conv` stands for every 3×3 convolution, `stem` for the 7×7 in front.
        caffe: the network of the checkpoint published for Caffe: convolutions have biases, and the pools of
            modules 4c and 4d project to 128 channels, where the paper has 96.
    """
    maker, wide = Maker(asked, bias=caffe), 128 if caffe else 96
    c4 = 480 + wide
    flows = {
        "stem": chain(
            conv1=maker.unit(asked.in_channels, 64, 7, 2, stem=True),
            pool1=MaxPool2d(3, 2, ceil_mode=True),
            conv2=maker.unit(64, 64),
            conv3=maker.unit(64, 192, 3),
            pool2=MaxPool2d(3, 2, ceil_mode=True),
        ),
        "stage1": chain(
            a=_module(maker, 192, 64, (64, 64), (64, 96), 32),
            b=_module(maker, 256, 64, (64, 96), (64, 96), 64),
        ),
        "stage2": chain(
            reduction=_reduction(maker, 320, (128, 160), (64, 96)),
            a=_module(maker, 576, 224, (64, 96), (96, 128), 128),
            b=_module(maker, 576, 192, (96, 128), (96, 128), 128),
            c=_module(maker, 576, 160, (128, 160), (128, 160), wide),
            d=_module(maker, c4, 96, (128, 192), (160, 192), wide),
        ),
        "stage3": chain(
            reduction=_reduction(maker, c4, (128, 192), (192, 256)),
            a=_module(maker, c4 + 448, 352, (192, 320), (160, 224), 128),
            b=_module(maker, 1024, 352, (192, 320), (192, 224), 128, pool=MaxPool2d(3, 1, padding=1)),
        ),
    }
    taps = {
        "stem.conv1": (64, 2), "stem.conv3": (192, 4), "stage1.b": (320, 8),
        "stage2.d": (c4, 16), "stage3.b": (1024, 32),
    }  # fmt: skip
    head = Head(1024, asked.num_classes)
    return Backbone(flows, head, taps, maker=maker, smallest=7)


def _module(
    maker: Maker,
    c: int,
    point: int,
    three: tuple[int, int],
    twice: tuple[int, int],
    projection: int,
    pool: nn.Module | None = None,
) -> nn.Module:
    """1×1; reduction and 3×3; reduction and two 3×3; a pool, averaging unless given, and a projection."""
    return Concat(
        point=branch(maker, c, (point, 1)),
        three=branch(maker, c, (three[0], 1), (three[1], 3)),
        twice=branch(maker, c, (twice[0], 1), (twice[1], 3), (twice[1], 3)),
        pool=branch(maker, c, (projection, 1), pool=AvgPool2d(3, 1, padding=1) if pool is None else pool),
    )


def _reduction(maker: Maker, c: int, three: tuple[int, int], twice: tuple[int, int]) -> nn.Module:
    """Half the pixels; the pool passes on all its channels."""
    return Concat(
        three=branch(maker, c, (three[0], 1), (three[1], 3, 2), pad=True),
        twice=branch(maker, c, (twice[0], 1), (twice[1], 3), (twice[1], 3, 2), pad=True),
        pool=CoverMaxPool2d(3, 2),
    )


PAPER = "Ioffe and Szegedy 2015, arXiv 1502.03167"
NETWORKS = {
    "inception_v2": Family(inception_v2, PAPER, fixed={"caffe": True}),
    "inception_v2_paper": Family(inception_v2, PAPER, fixed={"caffe": False}),
}
