"""Inception v3 (Szegedy et al., "Rethinking the Inception Architecture", arXiv 1512.00567).

5×5 as two 3×3, 7×7 as 1×7 and 7×1, and reductions with a strided convolution beside the pool.
"""

from __future__ import annotations

from torch import nn

from .backbone import Backbone, Family
from .branches import Concat, branch, split
from .head import Head, classifier
from .layers import Asked, Maker, chain
from .pools import AvgPool2d, MaxPool2d


def inception_v3(
    asked: Asked,
    *,
    aux: bool = False,
) -> Backbone:
    """The network for 299×299 images.

    Arguments:
        asked: `conv` stands for every convolution that looks at neighbours, 1×7 and 7×1 too, but the first; `stem`
            for that.
        aux: the auxiliary classifier of the paper's section 4, for training.
    """
    maker = Maker(asked, eps=1e-3)
    flows = {
        "stem": chain(
            conv1=maker.unit(asked.in_channels, 32, 3, 2, 0, stem=True),
            conv2=maker.unit(32, 32, 3, 1, 0),
            conv3=maker.unit(32, 64, 3),
            pool1=MaxPool2d(3, 2),
            conv4=maker.unit(64, 80),
            conv5=maker.unit(80, 192, 3, 1, 0),
            pool2=MaxPool2d(3, 2),
        ),
        "stage1": chain(a1=_a(maker, 192, 32), a2=_a(maker, 256, 64), a3=_a(maker, 288, 64)),
        "stage2": chain(
            reduction=Concat(
                conv=branch(maker, 288, (384, 3, 2)),
                twice=branch(maker, 288, (64, 1), (96, 3), (96, 3, 2)),
                pool=MaxPool2d(3, 2),
            ),
            **{f"c{i}": _c(maker, mid) for i, mid in enumerate((128, 160, 160, 192), 1)},
        ),
        "stage3": chain(
            reduction=Concat(
                conv=branch(maker, 768, (192, 1), (320, 3, 2)),
                asymmetric=branch(maker, 768, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)),
                pool=MaxPool2d(3, 2),
            ),
            e1=_e(maker, 1280),
            e2=_e(maker, 2048),
        ),
    }
    taps = {
        "stem.conv3": (64, 2), "stem.conv5": (192, 4), "stage1.a3": (288, 8),
        "stage2.c4": (768, 16), "stage3.e2": (2048, 32),
    }  # fmt: skip
    heads = {"stage2.c4": _aux(maker)} if aux else None
    head = Head(2048, asked.num_classes, dropout=0.5)
    return Backbone(flows, head, taps, maker=maker, smallest=75, aux=heads)


def _pool() -> nn.Module:
    return AvgPool2d(3, 1, padding=1)


def _a(maker: Maker, c: int, pooled: int) -> nn.Module:
    """Figure 5."""
    return Concat(
        point=branch(maker, c, (64, 1)),
        five=branch(maker, c, (48, 1), (64, 5)),
        twice=branch(maker, c, (64, 1), (96, 3), (96, 3)),
        pool=branch(maker, c, (pooled, 1), pool=_pool()),
    )


def _c(maker: Maker, mid: int) -> nn.Module:
    """Figure 6."""
    tall, wide = (7, 1), (1, 7)
    return Concat(
        point=branch(maker, 768, (192, 1)),
        seven=branch(maker, 768, (mid, 1), (mid, wide), (192, tall)),
        twice=branch(maker, 768, (mid, 1), (mid, tall), (mid, wide), (mid, tall), (192, wide)),
        pool=branch(maker, 768, (192, 1), pool=_pool()),
    )


def _e(maker: Maker, c: int) -> nn.Module:
    """Figure 7."""
    into = (384, ((1, 3), (3, 1)))
    return Concat(
        point=branch(maker, c, (320, 1)),
        three=split(maker, c, (384, 1), into=into),
        twice=split(maker, c, (448, 1), (384, 3), into=into),
        pool=branch(maker, c, (192, 1), pool=_pool()),
    )


def _aux(maker: Maker) -> nn.Module:
    """Figure 8; pooled to 5×5 whatever the image's size."""
    return chain(
        pool=nn.AdaptiveAvgPool2d(5),
        conv1=maker.unit(768, 128),
        conv2=maker.unit(128, 768, 5, 1, 0),
        squeeze=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        classifier=classifier(768, maker.asked.num_classes),
    )


NETWORKS = {"inception_v3": Family(inception_v3, "Szegedy et al. 2015, arXiv 1512.00567", (3, 299, 299))}
