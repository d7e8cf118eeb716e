"""Aligned Xception, the encoder of DeepLabv3+ (Chen et al., arXiv 1802.02611, figure 4).

Xception with more layers, strides in separable convolutions in the place of pools, and a batch norm after the
depthwise convolution too. 71 is "Searching for Efficient Multi-Scale Architectures" (arXiv 1809.04184).
"""

from __future__ import annotations

from torch import nn

from ..kinds import Separable
from .backbone import Backbone, Family
from .head import Head
from .layers import Asked, Maker, Residual, chain, eights

Widths = tuple[int, int, int]
ENTRY = {  # (channels, stride) of each block
    41: ((128, 2), (256, 2), (728, 2)),
    65: ((128, 2), (256, 2), (728, 2)),
    71: ((128, 2), (256, 1), (256, 2), (728, 1), (728, 2)),
}
MIDDLE = {41: 8, 65: 16, 71: 16}


def xception_aligned(
    asked: Asked,
    *,
    depth: int = 65,
    preact: bool = False,
    eps: float = 1e-3,
    middle: int | None = None,
    width: float = 1.0,
) -> Backbone:
    """Three separable convolutions in every block, the last of them strided.

    Arguments:
        asked: `conv` stands in the place of each separable convolution, batch norm and activation between included,
            `stem` for the two convolutions in front.
        depth: 41, 65 or 71.
        preact: batch norm and activation before each convolution, nothing inside it (timm's variants).
        eps: of the batch norms.
        middle: blocks in the middle flow; 8 or 16, as published, where left out.
        width: times every number of channels.
    """
    maker = Maker(asked, published=Separable(), eps=eps)
    build = _preact if preact else _block
    a, c = eights(32 * width), eights(64 * width)
    conv2 = maker.conv(a, c, 3, stem=True) if preact else maker.unit(a, c, 3, stem=True)
    flows = {
        "entry": chain(conv1=maker.unit(asked.in_channels, a, 3, 2, stem=True), conv2=conv2),
        "middle": nn.Sequential(),
        "exit": nn.Sequential(),
    }
    blocks: list[tuple[str, Widths, int]] = [
        *(("entry", (c, c, c), stride) for c, stride in ENTRY[depth]),
        *(MIDDLE[depth] if middle is None else middle) * (("middle", (728, 728, 728), 1),),
        ("exit", (728, 1024, 1024), 2),
    ]
    total, ends = 2, {2: ("entry.conv2", c)}
    for number, (flow, published, stride) in enumerate(blocks, 1):
        widths = _scaled(published, width)
        same = stride == 1 and c == widths[-1]
        block = build(maker, c, widths, stride, None if same else _shortcut(maker, c, widths[-1], stride, preact))
        flows[flow].add_module(f"block{number}", block)
        c, total = widths[-1], total * stride
        ends[total] = (f"{flow}.block{number}", c)
    last = _scaled((1536, 1536, 2048), width)
    flows["exit"].add_module("last", _last(maker, c, last, preact))
    ends[total] = ("exit.last", last[-1])
    taps = {path: (channels, stride) for stride, (path, channels) in ends.items()}
    return Backbone(flows, Head(last[-1], asked.num_classes), taps, maker=maker)


def _scaled(widths: Widths, by: float) -> Widths:
    a, b, c = widths
    return eights(a * by), eights(b * by), eights(c * by)


def _shortcut(maker: Maker, c: int, m: int, stride: int, preact: bool) -> nn.Module:
    return maker.conv(c, m, 1, stride) if preact else maker.unit(c, m, 1, stride, act=False)


def _block(maker: Maker, c: int, widths: Widths, stride: int, shortcut: nn.Module | None) -> nn.Module:
    """An activation before each separable convolution, none inside; around them all the shortcut."""
    branch = nn.Sequential()
    for i, m in enumerate(widths, 1):
        branch.add_module(f"act{i}", maker.act())
        branch.add_module(f"conv{i}", maker.separable(c, m, stride if i == 3 else 1, act=False))
        c = m
    return Residual(branch, shortcut)


def _preact(maker: Maker, c: int, widths: Widths, stride: int, shortcut: nn.Module | None) -> nn.Module:
    """The shortcut starts after the first activation too."""
    branch = _preact_branch(maker, c, widths, stride)
    return chain(norm=maker.norm(c), act=maker.act(), residual=Residual(branch, shortcut))


def _preact_branch(maker: Maker, c: int, widths: Widths, stride: int) -> nn.Sequential:
    branch = nn.Sequential()
    for i, m in enumerate(widths, 1):
        if i > 1:
            branch.add_module(f"norm{i}", maker.norm(c))
            branch.add_module(f"act{i}", maker.act())
        branch.add_module(f"conv{i}", maker.conv(c, m, 3, stride if i == 3 else 1))
        c = m
    return branch


def _last(maker: Maker, c: int, widths: Widths, preact: bool) -> nn.Module:
    """The end of the exit flow: no shortcut, and activations after (and, published, inside) each convolution."""
    if preact:
        branch = _preact_branch(maker, c, widths, 1)
        return chain(norm=maker.norm(c), act=maker.act(), branch=branch, last=maker.act())
    a, b, m = widths
    return chain(conv1=maker.separable(c, a), conv2=maker.separable(a, b), conv3=maker.separable(b, m))


PAPER = "Chen et al. 2018, arXiv 1802.02611"
NETWORKS = {
    **{
        f"xception{depth}": Family(xception_aligned, PAPER, (3, 299, 299), fixed={"depth": depth, "preact": False})
        for depth in MIDDLE
    },
    "xception41p": Family(xception_aligned, PAPER, (3, 299, 299), fixed={"depth": 41, "preact": True, "eps": 1e-5}),
    "xception65p": Family(xception_aligned, PAPER, (3, 299, 299), fixed={"depth": 65, "preact": True}),
}
