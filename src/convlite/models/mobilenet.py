"""MobileNet: v1 (Howard et al., arXiv 1704.04861), v2 (Sandler et al., arXiv 1801.04381), v3 (arXiv 1905.02244).

Each `stem` is the one convolution that reads the image.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..kinds import Depthwise
from .backbone import Backbone, Family
from .head import Head
from .layers import Act, Asked, Maker, Residual, chain, eights
from .stages import Stages

# v1, table 1: (channels out, stride) of each separable convolution
V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *5 * ((512, 1),), (1024, 2), (1024, 1))
# v2, table 2: (expansion, channels out, blocks, first stride)
V2 = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
# v3, tables 1 and 2: (kernel, expanded channels, channels out, squeeze-and-excite, h-swish, stride)
V3_LARGE = (
    (3, 16, 16, False, False, 1), (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1), (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1), (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1),
)  # fmt: skip
V3_SMALL = (
    (3, 16, 16, True, False, 2), (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1),
    (5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1),
    (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1), (5, 288, 96, True, True, 2),
    (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1),
)  # fmt: skip


def mobilenet_v1(
    asked: Asked,
    *,
    width: float = 1.0,
) -> Backbone:
    """Thirteen separable convolutions, each with batch norm and ReLU6 after both of its parts.

    Arguments:
        asked: `conv` stands in the place of each separable convolution (`Normal()` is the paper's table 4), `stem`
            for the convolution in front.
        width: times every number of channels.
    """
    maker, c = Maker(asked, act=nn.ReLU6), eights(32 * width)
    stages = Stages(chain(conv1=maker.unit(asked.in_channels, c, 3, 2, stem=True)), c, (2,))
    for channels, stride in V1:
        m = eights(channels * width)
        stages.add(maker.separable(stages.c, m, stride), m, stride)
    head = Head(stages.c, asked.num_classes)
    return Backbone(stages.flows, head, stages.taps, maker=maker)


def mobilenet_v2(
    asked: Asked,
    *,
    width: float = 1.0,
) -> Backbone:
    """Inverted residuals: 1×1 to many channels, depthwise, 1×1 back to few, with no activation after it.

    Arguments:
        asked: `conv` stands in the place of each depthwise convolution, `stem` for the convolution in front.
        width: times every number of channels.
    """
    maker, c = Maker(asked, published=Depthwise(), act=nn.ReLU6), eights(32 * width)
    stages = Stages(chain(conv1=maker.unit(asked.in_channels, c, 3, 2, stem=True)), c, (2,))
    for expansion, channels, blocks, first in V2:
        m = eights(channels * width)
        for stride in (first, *(blocks - 1) * (1,)):
            stages.add(_inverted(maker, stages.c, expansion * stages.c, m, 3, stride), m, stride)
    last = max(1280, eights(1280 * width))  # section 4.2: never narrower
    stages.add(maker.unit(stages.c, last), last)
    head = Head(last, asked.num_classes, dropout=0.2)
    return Backbone(stages.flows, head, stages.taps, maker=maker)


def mobilenet_v3(
    asked: Asked,
    *,
    large: bool = True,
    width: float = 1.0,
    eps: float = 1e-3,
) -> Backbone:
    """Found by search: squeeze-and-excite in some blocks, h-swish in the later ones.

    Arguments:
        asked: `conv` stands in the place of each depthwise convolution, `stem` for the convolution in front.
        large: the larger of the two networks.
        width: times every number of channels.
        eps: of the batch norms; the authors' and torchvision's 1e-3, or timm's 1e-5.
    """
    maker, c = Maker(asked, published=Depthwise(), eps=eps, momentum=0.01), eights(16 * width)
    first = maker.unit(asked.in_channels, c, 3, 2, act=nn.Hardswish, stem=True)
    stages = Stages(chain(conv1=first), c, (2,))
    for k, expanded, channels, squeeze, swish, stride in V3_LARGE if large else V3_SMALL:
        mid, m, act = eights(expanded * width), eights(channels * width), nn.Hardswish if swish else nn.ReLU
        stages.add(_inverted(maker, stages.c, mid, m, k, stride, act=act, squeeze=squeeze), m, stride)
    last, hidden = 6 * stages.c, 1280 if large else 1024
    stages.add(maker.unit(stages.c, last, act=nn.Hardswish), last)
    layers = (nn.Linear(last, hidden), nn.Hardswish())
    head = Head(last, asked.num_classes, hidden=layers, features=hidden, dropout=0.2)
    return Backbone(stages.flows, head, stages.taps, maker=maker)


def _inverted(
    maker: Maker,
    c: int,
    mid: int,
    m: int,
    k: int,
    stride: int,
    *,
    act: Act | bool = True,
    squeeze: bool = False,
) -> nn.Module:
    """1×1 to `mid` channels where that is more, the spatial convolution, 1×1 to m; residual where m fits c."""
    branch: dict[str, nn.Module] = {}
    if mid != c:
        branch["expand"] = maker.unit(c, mid, act=act)
    branch["spatial"] = maker.unit(mid, mid, k, stride, act=act)
    if squeeze:
        branch["squeeze"] = SqueezeExcite(mid, eights(mid / 4))
    branch["project"] = maker.unit(mid, m, act=False)
    return Residual(chain(**branch)) if stride == 1 and c == m else chain(**branch)


class SqueezeExcite(nn.Module):
    """Scales each channel by what the whole map says of it (Hu et al., arXiv 1709.01507)."""

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce, self.act = nn.Conv2d(channels, reduced, 1), nn.ReLU()
        self.expand, self.gate = nn.Conv2d(reduced, channels, 1), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        scale = self.gate(self.expand(self.act(self.reduce(self.pool(x)))))  # (N, C, 1, 1)
        return x * scale


PAPERS = (
    "Howard et al. 2017, arXiv 1704.04861",
    "Sandler et al. 2018, arXiv 1801.04381",
    "Howard et al. 2019, arXiv 1905.02244",
)
V3_NUMBERS = {"timm mobilenet": {"eps": 1e-5}}  # torchvision trained with the paper's 1e-3
NETWORKS = {
    "mobilenet_v1": Family(mobilenet_v1, PAPERS[0]),
    "mobilenet_v2": Family(mobilenet_v2, PAPERS[1]),
    "mobilenet_v3_small": Family(mobilenet_v3, PAPERS[2], fixed={"large": False}, numbers=V3_NUMBERS),
    "mobilenet_v3_large": Family(mobilenet_v3, PAPERS[2], fixed={"large": True}, numbers=V3_NUMBERS),
}
