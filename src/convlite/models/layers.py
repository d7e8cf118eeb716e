"""What the families share: the maker of their convolutions, residual steps, pools and the head.

No activation works in place: a map may leave the network, or branch off, before the next layer reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kinds import Kind, Normal, conv
from ..nn import ChannelShuffle, _Chain

Size = int | tuple[int, int]


def chain(**layers: nn.Module) -> nn.Sequential:
    """Named layers, run in the order written."""
    made = nn.Sequential()
    for name, layer in layers.items():
        made.add_module(name, layer)
    return made


class Maker:
    """Makes one network's layers: convolutions of the asked kind, batch norms with the family's numbers.

    Arguments:
        conv: the kind asked for in place of every spatial convolution; None for the published network.
        stem: the kind asked for in the stem, which stays dense unless this is given.
        published: the kind that the paper has; it also stands where the asked one is not legal.
        eps, momentum: of the batch norms.
        act: the activation.

    `kept` tells, for each module that the asked kind could not replace, the reason.
    """

    def __init__(
        self,
        conv: Kind | None = None,
        stem: Kind | None = None,
        *,
        published: Kind = Normal(),
        eps: float = 1e-5,
        momentum: float = 0.1,
        act: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        self.asked, self.asked_stem, self.published = conv, stem, published
        self.eps, self.momentum, self.act = eps, momentum, act
        self.kept: dict[nn.Module, str] = {}

    def conv(
        self,
        c: int,
        m: int,
        k: Size = 3,
        stride: Size = 1,
        padding: Size | None = None,
        *,
        bias: bool = False,
        stem: bool = False,
    ) -> nn.Module:
        """A convolution of c channels to m; padded to keep the size (but for the stride) unless told.

        1×1 is always dense: a kind speaks of what looks at neighbours.
        """
        place = conv(c=c, m=m, k=k, stride=stride, padding=padding, bias=bias)
        if place.k == (1, 1):
            return place.build()
        published, asked = (Normal(), self.asked_stem) if stem else (self.published, self.asked)
        if asked is None:
            return published.build(place)
        reason = asked.why_not(place)
        if reason is None:
            return asked.build(place)
        module = published.build(place)
        self.kept[module] = reason
        return module

    def norm(self, c: int) -> nn.BatchNorm2d:
        """A batch norm of c channels."""
        return nn.BatchNorm2d(c, eps=self.eps, momentum=self.momentum)

    def unit(
        self,
        c: int,
        m: int,
        k: Size = 1,
        stride: Size = 1,
        padding: Size | None = None,
        *,
        act: bool = True,
        stem: bool = False,
    ) -> nn.Sequential:
        """Convolution, batch norm and, unless told otherwise, activation."""
        layers = {"conv": self.conv(c, m, k, stride, padding, stem=stem), "norm": self.norm(m)}
        return chain(**layers, act=self.act()) if act else chain(**layers)


class Residual(nn.Module):
    """shortcut(x) + branch(x), then `after` (He et al., arXiv 1512.03385).

    Arguments:
        branch: what is learnt beside the shortcut.
        shortcut: identity unless given.
        after: the activation after the sum; nothing unless given.

    `drop` is the probability that an image's branch is left out in training (arXiv 1603.09382).
    """

    def __init__(
        self, branch: nn.Module, shortcut: nn.Module | None = None, after: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = nn.Identity() if shortcut is None else shortcut
        self.after = nn.Identity() if after is None else after
        self.drop = 0.0

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, M, H', W')
        branch = self.branch(x)
        if self.training and self.drop:
            kept = torch.rand(len(branch), 1, 1, 1, device=x.device) >= self.drop
            branch = branch * kept.to(branch.dtype) / (1 - self.drop)
        return self.after(self.shortcut(x) + branch)


class Subsample(nn.Module):
    """Every `stride`-th pixel, and zeros for the channels that are missing: a shortcut without parameters."""

    def __init__(self, stride: int, extra_channels: int = 0) -> None:
        super().__init__()
        self.stride: Size = stride
        self.extra_channels = extra_channels

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C + extra, H/s, W/s)
        down, across = pair(self.stride)
        x = x[:, :, ::down, ::across]
        front = self.extra_channels // 2
        return F.pad(x, (0, 0, 0, 0, front, self.extra_channels - front))

    def extra_repr(self) -> str:
        return f"stride={self.stride}, extra_channels={self.extra_channels}"


class MaxPool2d(nn.MaxPool2d):
    """Max pooling that can be dilated with all its padding, which torch limits to half a kernel.

    `ceil_mode` is Caffe's: a last window may reach one pixel beyond the image.
    """

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H', W')
        if self.dilation == 1 and not (self.ceil_mode and self.stride == (1, 1)):
            return super().forward(x)
        down, across = pair(self.padding)
        beyond = pair(self.dilation)[0] if self.ceil_mode else 0
        x = F.pad(x, (across, across + beyond, down, down + beyond), value=-math.inf)
        return F.max_pool2d(x, self.kernel_size, self.stride, 0, self.dilation)


class SameMaxPool2d(nn.MaxPool2d):
    """Max pooling with TensorFlow's SAME padding: it depends on the input's size, the odd pixel goes last."""

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, ceil(H/s), ceil(W/s))
        top, bottom = self._pads(x.shape[2])
        left, right = self._pads(x.shape[3])
        x = F.pad(x, (left, right, top, bottom), value=-math.inf)
        return F.max_pool2d(x, self.kernel_size, self.stride, 0, self.dilation)

    def _pads(self, size: int) -> tuple[int, int]:
        stride, dilation, kernel = (pair(v)[0] for v in (self.stride, self.dilation, self.kernel_size))
        total = max(0, (-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size)
        return total // 2, total - total // 2


class AvgPool2d(nn.AvgPool2d):
    """Average pooling that can also be dilated, which torch's can't."""

    dilation: Size = 1

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H', W')
        if self.dilation == 1:
            return super().forward(x)
        k, spread = pair(self.kernel_size), (self.stride, self.padding, self.dilation)
        total = F.conv2d(x, x.new_ones(x.shape[1], 1, *k), None, *spread, x.shape[1])
        if self.count_include_pad:
            return total / (k[0] * k[1])
        # at each border pixel, only what lies inside the image counts
        return total / F.conv2d(x.new_ones(1, 1, *x.shape[2:]), x.new_ones(1, 1, *k), None, *spread)


def pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    """(vertical, horizontal), of which one number stands for both."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


class Head(nn.Module):
    """Pool, optional hidden layers, dropout, classifier.

    Arguments:
        channels: of the last map.
        num_classes: 0 for none: the head then gives what the classifier would read.
        pool: global average pooling unless given.
        hidden: layers between the pooled map, flattened, and the dropout.
        features: how many numbers `hidden` gives; `channels` where there is none.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        pool: nn.Module | None = None,
        hidden: Sequence[nn.Module] = (),
        features: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.features = channels if features is None else features
        self.pool = nn.AdaptiveAvgPool2d(1) if pool is None else pool
        self.hidden = nn.Sequential(*hidden)
        self.dropout = nn.Dropout(dropout)
        self.classifier = classifier(self.features, num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, classes)
        x = self.pool(x).flatten(1)  # (N, C) with global pooling
        return self.classifier(self.dropout(self.hidden(x)))


def classifier(features: int, classes: int, device: Any = None, dtype: Any = None) -> nn.Module:
    """A fresh linear classifier, or nothing for 0 classes."""
    if classes == 0:
        return nn.Identity()
    made = nn.Linear(features, classes, device=device, dtype=dtype)
    nn.init.normal_(made.weight, std=0.01)
    nn.init.zeros_(made.bias)
    return made


def initialise_(net: nn.Module) -> None:
    """Weights to train from scratch: He et al. (arXiv 1502.01852) for convolutions, N(0, 0.01²) for linear.

    The gain for the ReLU that follows belongs to a chain's last convolution alone: with nothing between, the
    earlier ones only have to keep the variance.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for module in net.modules():
        if isinstance(module, _Chain):
            for layer, following in pairwise(module.children()):
                if isinstance(layer, nn.Conv2d) and isinstance(following, nn.Conv2d | ChannelShuffle):
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
