"""Inception v4 and Inception-ResNet v2 (Szegedy et al., arXiv 1602.07261)."""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import InputError
from .backbone import Backbone, Family
from .branches import Concat, Unit, branch, split
from .head import Head
from .layers import Asked, Maker, Residual, chain
from .pools import AvgPool2d, MaxPool2d

TALL, WIDE = (7, 1), (1, 7)


def inception_v4(
    asked: Asked,
    *,
    blocks: tuple[int, int, int] = (4, 7, 3),
) -> Backbone:
    """The pure Inception network for 299×299 images (figures 3 to 9).

    Arguments:
        asked: `conv` stands for every convolution that looks at neighbours but the first, `stem` for that.
        blocks: modules in each stage.
    """
    _at_least_one(blocks)
    maker = Maker(asked, eps=1e-3)
    flows = {
        "stem": chain(
            **_three(maker),
            join1=Concat(pool=MaxPool2d(3, 2), conv=branch(maker, 64, (96, 3, 2))),
            join2=Concat(
                three=chain(unit1=maker.unit(160, 64), unit2=maker.unit(64, 96, 3, 1, 0)),
                seven=chain(
                    unit1=maker.unit(160, 64), unit2=maker.unit(64, 64, WIDE), unit3=maker.unit(64, 64, TALL),
                    unit4=maker.unit(64, 96, 3, 1, 0),
                ),
            ),
        ),
        "stage1": chain(
            reduction=Concat(conv=branch(maker, 192, (192, 3, 2)), pool=MaxPool2d(3, 2)),
            **{f"a{i + 1}": _a(maker) for i in range(blocks[0])},
        ),
        "stage2": chain(
            reduction=_reduction_a(maker, 384, 192, 224, 256), **{f"b{i + 1}": _b(maker) for i in range(blocks[1])}
        ),
        "stage3": chain(
            reduction=Concat(
                three=branch(maker, 1024, (192, 1), (192, 3, 2)),
                seven=branch(maker, 1024, (256, 1), (256, WIDE), (320, TALL), (320, 3, 2)),
                pool=MaxPool2d(3, 2),
            ),
            **{f"c{i + 1}": _c(maker) for i in range(blocks[2])},
        ),
    }  # fmt: skip
    taps = {
        "stem.conv3": (64, 2), "stem.join2": (192, 4), f"stage1.a{blocks[0]}": (384, 8),
        f"stage2.b{blocks[1]}": (1024, 16), f"stage3.c{blocks[2]}": (1536, 32),
    }  # fmt: skip
    head = Head(1536, asked.num_classes, dropout=0.2)
    return Backbone(flows, head, taps, maker=maker, smallest=75)


def inception_resnet_v2(
    asked: Asked,
    *,
    blocks: tuple[int, int, int] = (10, 20, 10),
) -> Backbone:
    """Inception modules as residual branches, for 299×299 images.

    The branches are scaled down before the sum (section 3.3), or training dies.

    Arguments:
        asked: `conv` stands for every convolution that looks at neighbours but the first, `stem` for that.
        blocks: modules in each stage.
    """
    _at_least_one(blocks)
    maker = Maker(asked, eps=1e-3)
    asym = (1, 3), (3, 1)
    flows = {
        "stem": chain(
            **_three(maker),
            pool1=MaxPool2d(3, 2),
            conv4=maker.unit(64, 80),
            conv5=maker.unit(80, 192, 3, 1, 0),
            pool2=MaxPool2d(3, 2),
        ),
        "stage1": chain(
            mixed=Concat(
                point=branch(maker, 192, (96, 1)),
                five=branch(maker, 192, (48, 1), (64, 5)),
                twice=branch(maker, 192, (64, 1), (96, 3), (96, 3)),
                pool=branch(maker, 192, (64, 1), pool=_pool()),
            ),
            **{
                f"a{i}": _residual(maker, 320, 0.17, ((32, 1),), ((32, 1), (32, 3)), ((32, 1), (48, 3), (64, 3)))
                for i in range(1, blocks[0] + 1)
            },
        ),
        "stage2": chain(
            reduction=_reduction_a(maker, 320, 256, 256, 384),
            **{
                f"b{i}": _residual(maker, 1088, 0.1, ((192, 1),), ((128, 1), (160, WIDE), (192, TALL)))
                for i in range(1, blocks[1] + 1)
            },
        ),
        "stage3": chain(
            reduction=Concat(
                three=branch(maker, 1088, (256, 1), (384, 3, 2)),
                other=branch(maker, 1088, (256, 1), (288, 3, 2)),
                twice=branch(maker, 1088, (256, 1), (288, 3), (320, 3, 2)),
                pool=MaxPool2d(3, 2),
            ),
            **{
                f"c{i}": _residual(
                    maker, 2080, 1.0 if i == blocks[2] else 0.2,
                    ((192, 1),), ((192, 1), (224, asym[0]), (256, asym[1])), act=i < blocks[2],
                )
                for i in range(1, blocks[2] + 1)
            },
            last=maker.unit(2080, 1536),
        ),
    }  # fmt: skip
    taps = {
        "stem.conv3": (64, 2), "stem.conv5": (192, 4), f"stage1.a{blocks[0]}": (320, 8),
        f"stage2.b{blocks[1]}": (1088, 16), "stage3.last": (1536, 32),
    }  # fmt: skip
    head = Head(1536, asked.num_classes, dropout=0.2)
    return Backbone(flows, head, taps, maker=maker, smallest=75)


def _at_least_one(blocks: tuple[int, int, int]) -> None:
    if len(blocks) != 3 or min(blocks) < 1:
        raise InputError(f"blocks are three numbers of at least 1, given {blocks}.")


def _three(maker: Maker) -> dict[str, nn.Module]:
    """How both stems begin."""
    return {
        "conv1": maker.unit(maker.asked.in_channels, 32, 3, 2, 0, stem=True),
        "conv2": maker.unit(32, 32, 3, 1, 0),
        "conv3": maker.unit(32, 64, 3),
    }


def _pool() -> nn.Module:
    return AvgPool2d(3, 1, padding=1, count_include_pad=False)


def _a(maker: Maker) -> nn.Module:
    """Figure 4, on 35×35."""
    return Concat(
        point=branch(maker, 384, (96, 1)),
        three=branch(maker, 384, (64, 1), (96, 3)),
        twice=branch(maker, 384, (64, 1), (96, 3), (96, 3)),
        pool=branch(maker, 384, (96, 1), pool=_pool()),
    )


def _b(maker: Maker) -> nn.Module:
    """Figure 5, on 17×17."""
    return Concat(
        point=branch(maker, 1024, (384, 1)),
        seven=branch(maker, 1024, (192, 1), (224, WIDE), (256, TALL)),
        twice=branch(maker, 1024, (192, 1), (192, TALL), (224, WIDE), (224, TALL), (256, WIDE)),
        pool=branch(maker, 1024, (128, 1), pool=_pool()),
    )


def _c(maker: Maker) -> nn.Module:
    """Figure 6, on 8×8."""
    into = (256, ((1, 3), (3, 1)))
    return Concat(
        point=branch(maker, 1536, (256, 1)),
        three=split(maker, 1536, (384, 1), into=into),
        twice=split(maker, 1536, (384, 1), (448, (3, 1)), (512, (1, 3)), into=into),
        pool=branch(maker, 1536, (256, 1), pool=_pool()),
    )


def _reduction_a(maker: Maker, c: int, k: int, middle: int, m: int) -> nn.Module:
    """Figure 7; k, middle (l) and m as in table 1, and 384 (n)."""
    return Concat(
        three=branch(maker, c, (384, 3, 2)),
        twice=branch(maker, c, (k, 1), (middle, 3), (m, 3, 2)),
        pool=MaxPool2d(3, 2),
    )


def _residual(maker: Maker, c: int, scale: float, *branches: tuple[Unit, ...], act: bool = True) -> nn.Module:
    """Figures 16, 17 and 19: branches, a 1×1 back to c channels without activation, and the scaled sum."""
    joined = Concat(**{f"branch{i}": branch(maker, c, *units) for i, units in enumerate(branches, 1)})
    back = maker.conv(sum(units[-1][0] for units in branches), c, 1, bias=True)
    return Residual(chain(join=joined, back=back, scale=Scale(scale)), after=maker.act() if act else None)


class Scale(nn.Module):
    """Times a fixed number."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return x * self.by

    def extra_repr(self) -> str:
        return str(self.by)


PAPER = "Szegedy et al. 2016, arXiv 1602.07261"
NETWORKS = {
    "inception_v4": Family(inception_v4, PAPER, (3, 299, 299)),
    "inception_resnet_v2": Family(inception_resnet_v2, PAPER, (3, 299, 299)),
}
