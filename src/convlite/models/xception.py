"""Xception (Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", arXiv 1610.02357).

Inception taken to its extreme: every convolution after the stem is depthwise separable, nothing stands
between its two parts, and a residual connection runs around every module. `_network` is the paper's figure 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from operator import mul
from typing import Literal

from torch import nn

from ..errors import InputError
from ..kinds import Separable
from ..nn import Between, Order
from .backbone import Backbone, Family
from .head import Head, fully_connected
from .layers import Asked, Maker, Residual, chain, eights
from .pools import MaxPool2d, SameMaxPool2d

Mode = Literal["timm", "keras"]


@dataclass(frozen=True)
class Shape:
    """Channels and strides; the published ones unless told otherwise."""

    stem: tuple[int, ...] = (32, 64)
    stem_stride: int = 2
    stem_padding: int = 0
    entry: tuple[int, ...] = (128, 256, 728)  # the middle flow keeps the last
    entry_strides: tuple[int, ...] = (2, 2, 2)
    exit: tuple[int, ...] = (1024, 1536, 2048)
    smallest: int = 7

    def wider(self, by: float) -> Shape:
        """Every width times `by`, to a multiple of 8."""
        stem, entry, exit = (tuple(eights(c * by) for c in w) for w in (self.stem, self.entry, self.exit))
        return replace(self, stem=stem, entry=entry, exit=exit)


PUBLISHED = Shape()
# For images of 32 to 96 pixels: no stride in the stem and in the third block, so that the middle flow of a
# 32×32 image works on 8×8. Its dense twin costs 48 million multiply-accumulates there, near resnet20's 41.
SMALL = Shape(
    stem=(16, 16), stem_stride=1, stem_padding=1,
    entry=(24, 48, 64), entry_strides=(2, 2, 1), exit=(96, 128, 192), smallest=1,
)  # fmt: skip


def xception(
    asked: Asked,
    *,
    residual: bool = True,
    order: Order | None = None,
    between: Between = None,
    hidden: Sequence[int] = (),
    depth: int = 8,
    width: float = 1.0,
    mode: Mode = "timm",
) -> Backbone:
    """The published network for 299×299 images.

    Arguments:
        asked: `conv` stands for every convolution after the stem, `Separable()` as published (`Normal()` gives the
            dense twin), `stem` for the two convolutions in front.
        residual: whether connections run around the modules (figure 9 of the paper: they are essential).
        order: "depthwise_first" (published) or "pointwise_first", of the separable convolutions.
        between: what stands between depthwise and pointwise; nothing (figure 10: better than ReLU and ELU).
        hidden: sizes of fully connected layers before the classifier.
        depth: modules in the middle flow.
        width: times every number of channels.
        mode: whose numbers: "timm" (batch norm eps 1e-5, symmetric pool padding), or "keras" (eps 1e-3, SAME
            pool padding, momentum 0.01), in which checkpoints published for Keras give their own outputs.
    """
    maker = _maker(asked, order, between, mode)
    return _network(maker, PUBLISHED.wider(width), residual, hidden, depth, mode)


def xception_small(
    asked: Asked,
    *,
    residual: bool = True,
    order: Order | None = None,
    between: Between = None,
    hidden: Sequence[int] = (),
    depth: int = 2,
    width: float = 1.0,
    mode: Mode = "timm",
) -> Backbone:
    """The same structure, narrow and with fewer strides, for images of 32 to 96 pixels; see `xception`."""
    maker = _maker(asked, order, between, mode)
    return _network(maker, SMALL.wider(width), residual, hidden, depth, mode)


def _maker(asked: Asked, order: Order | None, between: Between, mode: Mode) -> Maker:
    if asked.conv is not None and (order is not None or between is not None):
        raise InputError(f"order and between belong to the kind itself: give them inside conv={asked.conv}.")
    if mode not in ("timm", "keras"):
        raise InputError(f"mode must be 'timm' or 'keras', given {mode!r}.")
    published = Separable(order=order or "depthwise_first", between=between)
    eps, momentum = (1e-5, 0.1) if mode == "timm" else (1e-3, 0.01)
    return Maker(asked, published=published, eps=eps, momentum=momentum)


def _network(
    maker: Maker,
    shape: Shape,
    residual: bool,
    hidden: Sequence[int],
    depth: int,
    mode: Mode,
) -> Backbone:
    if depth < 0:
        raise InputError(f"depth is a number of modules, 0 or more; given {depth}.")

    def block(c: int, widths: Sequence[int], stride: int = 1, *, first: bool = False) -> nn.Module:
        return _block(maker, c, widths, stride, first=first, residual=residual, mode=mode)

    (a, b), (c, d, e), (f, g, h) = shape.stem, shape.entry, shape.exit
    pad = shape.stem_padding
    entry = chain(
        conv1=maker.unit(maker.asked.in_channels, a, 3, shape.stem_stride, pad, stem=True),
        conv2=maker.unit(a, b, 3, padding=pad, stem=True),
        block1=block(b, (c, c), shape.entry_strides[0], first=True),
        block2=block(c, (d, d), shape.entry_strides[1]),
        block3=block(d, (e, e), shape.entry_strides[2]),
    )
    middle = chain(**{f"block{4 + i}": block(e, (e, e, e)) for i in range(depth)})
    exit = chain(
        block12=block(e, (e, f), 2),
        conv3=maker.unit(f, g, 3),
        conv4=maker.unit(g, h, 3),
    )
    last = f"middle.block{3 + depth}" if depth else "entry.block3"
    ends = (("entry.conv2", b), ("entry.block1", c), ("entry.block2", d), (last, e), ("exit.conv4", h))
    strides = accumulate((shape.stem_stride, *shape.entry_strides, 2), mul)
    deepest = dict(zip(strides, ends))  # where several maps have the same stride, the last
    taps = {path: (channels, stride) for stride, (path, channels) in deepest.items()}
    head = Head(h, maker.asked.num_classes, hidden=fully_connected(h, hidden), features=(h, *hidden)[-1])
    flows = {"entry": entry, "middle": middle, "exit": exit}
    return Backbone(flows, head, taps, maker=maker, smallest=shape.smallest)


def _block(
    maker: Maker, c: int, widths: Sequence[int], stride: int, *, first: bool, residual: bool, mode: Mode
) -> nn.Module:
    """ReLU, convolution, batch norm for each width, then a strided pool; a 1×1 shortcut where sizes change.

    The first block follows an activation already, so it starts with none.
    """
    branch, before = nn.Sequential(), c
    for i, m in enumerate(widths, 1):
        if not (first and i == 1):
            branch.add_module(f"act{i}", maker.act())
        branch.add_module(f"conv{i}", maker.conv(before, m, 3))
        branch.add_module(f"norm{i}", maker.norm(m))
        before = m
    if stride > 1:
        pool = SameMaxPool2d(3, stride) if mode == "keras" else MaxPool2d(3, stride, padding=1)
        branch.add_module("pool", pool)
    if not residual:
        return branch
    same = stride == 1 and before == c
    return Residual(branch, None if same else maker.unit(c, before, 1, stride, act=False))


PAPER = "Chollet 2017, arXiv 1610.02357"
NETWORKS = {
    "xception": Family(xception, PAPER, (3, 299, 299)),
    "xception_small": Family(xception_small, PAPER, (3, 32, 32), 10),
}
