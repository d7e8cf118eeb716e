"""ResNet (He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385) and ResNeXt.

ResNeXt (Xie et al., "Aggregated Residual Transformations", arXiv 1611.05431) has grouped 3×3 convolutions in
the same place.
"""

from __future__ import annotations

from torch import nn

from ..kinds import Grouped, Normal
from .backbone import Backbone, Family
from .head import Head
from .layers import Asked, Maker, Residual, Subsample, chain, eights
from .pools import MaxPool2d
from .stages import Stages

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}  # table 1


def resnet(
    asked: Asked,
    *,
    depth: int = 50,
    groups: int = 1,
    group_width: int = 64,
    width: float = 1.0,
) -> Backbone:
    """The networks for ImageNet; a bottleneck's stride is in its 3×3, as every published checkpoint has it.

    Arguments:
        asked: `conv` stands for every 3×3 convolution, `stem` for the 7×7 in front.
        depth: 18, 34 (two 3×3 a block), 50, 101 or 152 (bottlenecks).
        groups, group_width: ResNeXt's cardinality and its channels a group in the first stage.
        width: times every number of channels.
    """
    maker = Maker(asked, published=Grouped(groups) if groups > 1 else Normal())
    first = eights(64 * width)
    conv1 = maker.unit(asked.in_channels, first, 7, 2, stem=True)
    stages = Stages(chain(conv1=conv1, pool=MaxPool2d(3, 2, padding=1)), first, (2, 2))
    for stage, count in enumerate(BLOCKS[depth]):
        inner = first * 2**stage  # of a bottleneck; it gives four times as many
        m = inner if depth < 50 else 4 * inner
        for i in range(count):
            c, stride = stages.c, 2 if i == 0 and stage > 0 else 1
            branch = (
                _two(maker, c, m, stride)
                if depth < 50
                else _bottleneck(maker, c, inner * groups * group_width // 64, m, stride)
            )
            shortcut = maker.unit(c, m, 1, stride, act=False) if c != m or stride > 1 else None
            stages.add(Residual(branch, shortcut, maker.act()), m, stride)
    head = Head(stages.c, asked.num_classes)
    return Backbone(stages.flows, head, stages.taps, maker=maker)


def cifar_resnet(
    asked: Asked,
    *,
    depth: int = 20,
) -> Backbone:
    """The networks of section 4.2, for 32×32 images: 6n + 2 layers, widths 16, 32 and 64.

    Shortcuts have no parameters (option A): pixels are skipped, missing channels are zeros.

    Arguments:
        asked: `conv` stands for every 3×3 convolution after the first, `stem` for the first.
        depth: 6n + 2.
    """
    maker = Maker(asked)
    stages = Stages(chain(conv1=maker.unit(asked.in_channels, 16, 3, stem=True)), 16, (1,))
    for m in (16, 32, 64):
        for _ in range((depth - 2) // 6):
            c, stride = stages.c, m // stages.c  # twice the channels on half the pixels
            shortcut = Subsample(stride, m - c) if stride > 1 else None
            stages.add(Residual(_two(maker, c, m, stride), shortcut, maker.act()), m, stride)
    head = Head(stages.c, asked.num_classes)
    return Backbone(stages.flows, head, stages.taps, maker=maker)


def _two(maker: Maker, c: int, m: int, stride: int) -> nn.Module:
    """Two 3×3 (figure 5, left)."""
    return chain(unit1=maker.unit(c, m, 3, stride), unit2=maker.unit(m, m, 3, act=False))


def _bottleneck(maker: Maker, c: int, mid: int, m: int, stride: int) -> nn.Module:
    """1×1 down, 3×3, 1×1 up (figure 5, right)."""
    return chain(
        unit1=maker.unit(c, mid),
        unit2=maker.unit(mid, mid, 3, stride),
        unit3=maker.unit(mid, m, act=False),
    )


PAPER = "He et al. 2015, arXiv 1512.03385"
PLAIN = {"groups": 1, "group_width": 64}
RESNEXT = Family(resnet, "Xie et al. 2016, arXiv 1611.05431", fixed={"depth": 50, "groups": 32, "group_width": 4})
NETWORKS = {
    **{f"resnet{depth}": Family(resnet, PAPER, fixed={"depth": depth, **PLAIN}) for depth in BLOCKS},
    "resnext50_32x4d": RESNEXT,
    **{
        f"resnet{depth}": Family(cifar_resnet, PAPER, (3, 32, 32), 10, {"depth": depth})
        for depth in (20, 32, 44, 56)
    },
}
