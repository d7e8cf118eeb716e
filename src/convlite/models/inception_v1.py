"""Inception v1, GoogLeNet (Szegedy et al., "Going Deeper with Convolutions", arXiv 1409.4842)."""

from __future__ import annotations

from torch import nn

from .backbone import Backbone, Family
from .branches import Concat, branch
from .head import Head, classifier
from .layers import Asked, Maker, chain
from .pools import MaxPool2d

# table 1: channels of 1×1; of 3×3 and the reduction in front; of 5×5 and its reduction; of the pool's projection
Widths = tuple[int, int, int, int, int, int]
MODULES: dict[str, dict[str, Widths]] = {
    "stage1": {"a": (64, 96, 128, 16, 32, 32), "b": (128, 128, 192, 32, 96, 64)},
    "stage2": {
        "a": (192, 96, 208, 16, 48, 64),
        "b": (160, 112, 224, 24, 64, 64),
        "c": (128, 128, 256, 24, 64, 64),
        "d": (112, 144, 288, 32, 64, 64),
        "e": (256, 160, 320, 32, 128, 128),
    },
    "stage3": {"a": (256, 160, 320, 32, 128, 128), "b": (384, 192, 384, 48, 128, 128)},
}


def inception_v1(
    asked: Asked,
    *,
    norm: bool = False,
    naive: bool = False,
    large: int = 5,
    last_pool: int = 3,
    aux: bool = False,
) -> Backbone:
    """Nine modules of parallel 1×1, 3×3, 5×5 convolutions and a pool.

    Arguments:
        asked: `conv` stands for every 3×3 and 5×5 convolution, `stem` for the 7×7 in front.
        norm: batch norms in the place of biases and local response normalisation.
        naive: figure 2(a): no 1×1 in front of 3×3 and 5×5, none after the pool.
        large: the kernel of the 5×5 convolutions; torchvision's network has 3 there.
        last_pool: the kernel of the pool before the last two modules; torchvision's network has 2.
        aux: the two auxiliary classifiers of the paper's section 5, for training.
    """
    maker = Maker(asked, eps=1e-3, norm=norm, bias=not norm)
    build = _naive if naive else _module

    def respond() -> dict[str, nn.Module]:
        return {} if norm else {"respond": nn.LocalResponseNorm(5)}

    flows = {
        "stem": chain(
            conv1=maker.unit(asked.in_channels, 64, 7, 2, stem=True),
            pool1=chain(pool=_pool(), **respond()),
            conv2=maker.unit(64, 64),
            conv3=maker.unit(64, 192, 3),
        )
    }
    c, heads = 192, {}
    taps = {"stem.conv1": (64, 2), "stem.conv3": (192, 4)}
    for i, (stage, modules) in enumerate(MODULES.items()):
        kernel = last_pool if stage == "stage3" else 3
        before = respond() if stage == "stage1" else {}
        flow = chain(pool=chain(**before, pool=_pool(kernel)))
        for name, widths in modules.items():
            made, c = build(maker, c, widths, large)
            flow.add_module(name, made)
            if aux and stage == "stage2" and name in ("a", "d"):
                heads[f"{stage}.{name}"] = _aux(maker, c)
        flows[stage] = flow
        taps[f"{stage}.{max(modules)}"] = (c, 8 * 2**i)
    head = Head(c, asked.num_classes, dropout=0.4)
    smallest = 16 * last_pool - 17  # below it, nothing is left for the last pool
    return Backbone(flows, head, taps, maker=maker, smallest=smallest, aux=heads)


def _pool(kernel: int = 3) -> nn.Module:
    return MaxPool2d(kernel, 2, ceil_mode=True)


def _module(maker: Maker, c: int, widths: Widths, large: int) -> tuple[nn.Module, int]:
    """Figure 2(b): 1×1 convolutions reduce the channels in front of the large kernels."""
    point, reduce3, three, reduce5, five, projection = widths
    made = Concat(
        point=branch(maker, c, (point, 1)),
        three=branch(maker, c, (reduce3, 1), (three, 3)),
        five=branch(maker, c, (reduce5, 1), (five, large)),
        pool=branch(maker, c, (projection, 1), pool=MaxPool2d(3, 1, padding=1)),
    )
    return made, point + three + five + projection


def _naive(maker: Maker, c: int, widths: Widths, large: int) -> tuple[nn.Module, int]:
    """Figure 2(a): every module gives all that it reads, pooled, and more."""
    point, _, three, _, five, _ = widths
    made = Concat(
        point=branch(maker, c, (point, 1)),
        three=branch(maker, c, (three, 3)),
        five=branch(maker, c, (five, large)),
        pool=MaxPool2d(3, 1, padding=1),
    )
    return made, point + three + five + c


def _aux(maker: Maker, c: int) -> nn.Module:
    """Section 5; pooled to 4×4 whatever the image's size."""
    return chain(
        pool=nn.AdaptiveAvgPool2d(4),
        conv=maker.unit(c, 128),
        flatten=nn.Flatten(),
        hidden=nn.Linear(2048, 1024),
        act=nn.ReLU(),
        dropout=nn.Dropout(0.7),
        classifier=classifier(1024, maker.asked.num_classes),
    )


PAPER = "Szegedy et al. 2014, arXiv 1409.4842"
NETWORKS = {
    "inception_v1": Family(inception_v1, PAPER, fixed={"norm": False, "naive": False}),
    "inception_v1_bn": Family(inception_v1, PAPER, fixed={"norm": True, "naive": False}),
    "inception_v1_naive": Family(inception_v1, PAPER, fixed={"norm": True, "naive": True}),
    "googlenet": Family(inception_v1, PAPER, fixed={"norm": True, "naive": False, "large": 3, "last_pool": 2}),
}
