"""What the families share: the maker of their layers, and the ways to join them.

No activation works in place: a map may leave the network, or branch off, before the next layer reads it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..kinds import Depthwise, Kind, Normal, conv
from ..nn import ChannelShuffle
from ..nn.chain import Chain
from .pools import pair

Size = int | tuple[int, int]
Act = Callable[[], nn.Module]


def chain(**layers: nn.Module) -> nn.Sequential:
    """Named layers, run in the order written."""
    made = nn.Sequential()
    for name, layer in layers.items():
        made.add_module(name, layer)
    return made


@dataclass(frozen=True)
class Asked:
    """What every family is asked for.

    Arguments:
        conv: the kind in place of every spatial convolution; None for the published network.
        stem: the kind in the stem, which stays dense unless this is given.
        num_classes: 0 for pooled features.
    """

    conv: Kind | None = None
    stem: Kind | None = None
    num_classes: int = 1000
    in_channels: int = 3


class Maker:
    """Makes one network's layers: convolutions of the asked kind, batch norms with the family's numbers.

    Arguments:
        asked: the kinds that are to stand in it.
        published: the kind that the paper has; it also stands where the asked one is not legal.
        eps, momentum: of the batch norms.
        act: the activation.
        norm: whether units have batch norms.
        bias: whether convolutions have biases.

    `kept` tells, for each module that the asked kind could not replace, the reason.
    """

    def __init__(
        self,
        asked: Asked = Asked(),
        *,
        published: Kind = Normal(),
        eps: float = 1e-5,
        momentum: float = 0.1,
        act: Act = nn.ReLU,
        norm: bool = True,
        bias: bool = False,
    ) -> None:
        self.asked, self.published = asked, published
        self.eps, self.momentum, self.act = eps, momentum, act
        self.normed, self.bias = norm, bias
        self.kept: dict[nn.Module, str] = {}
        self.placed = 0  # modules of the asked kind

    def conv(
        self,
        c: int,
        m: int,
        k: Size = 3,
        stride: Size = 1,
        padding: Size | None = None,
        *,
        bias: bool | None = None,
        stem: bool = False,
    ) -> nn.Module:
        """A convolution of c channels to m; padded to keep the size (but for the stride) unless told.

        1×1 is always dense: a kind speaks of what looks at neighbours.
        """
        bias = self.bias if bias is None else bias
        place = conv(c=c, m=m, k=k, stride=stride, padding=padding, bias=bias)
        if place.k == (1, 1):
            return place.build()
        published, asked = (Normal(), self.asked.stem) if stem else (self.published, self.asked.conv)
        reason = asked.why_not(place) if asked else None
        if asked and reason is None:
            self.placed += 1
            return asked.build(place)
        module = published.build(place)
        if reason is not None:
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
        act: Act | bool = True,
        stem: bool = False,
    ) -> nn.Sequential:
        """Convolution, batch norm and activation: the network's, or the one given, or none."""
        return self._unit(self.conv(c, m, k, stride, padding, stem=stem), m, act)

    def separable(self, c: int, m: int, stride: int = 1, *, dilation: int = 1, act: bool = True) -> nn.Sequential:
        """Depthwise 3×3 and pointwise, each a unit of its own; or one unit of the asked kind in their place.

        This is MobileNet's separable convolution; Xception's, with nothing between, is `kinds.Separable`.
        """
        place = conv(c=c, m=m, k=3, stride=stride, dilation=dilation)
        asked = self.asked.conv
        reason = asked.why_not(place) if asked else None
        if asked and reason is None:
            self.placed += 1
            return self._unit(asked.build(place), m, act)
        depthwise = Depthwise().build(conv(c=c, m=c, k=3, stride=stride, dilation=dilation))
        if reason is not None:
            self.kept[depthwise] = reason
        return chain(depthwise=self._unit(depthwise, c, act), pointwise=self.unit(c, m, act=act))

    def _unit(self, made: nn.Module, m: int, act: Act | bool) -> nn.Sequential:
        layers = {"conv": made}
        if self.normed:
            layers["norm"] = self.norm(m)
        if act:
            layers["act"] = self.act() if act is True else act()
        return chain(**layers)


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


def eights(width: float) -> int:
    """A width as a multiple of 8, which vector units like, and never less than nine tenths of it."""
    if width <= 0:
        raise InputError(f"A number of channels must be above 0, given {width}.")
    rounded = max(8, int(width + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * width else rounded + 8


def initialise_(net: nn.Module) -> None:
    """Weights to train from scratch: He et al. (arXiv 1502.01852) for convolutions, N(0, 0.01²) for linear.

    The gain for the ReLU that follows belongs to a chain's last convolution alone: with nothing between, the
    earlier ones only have to keep the variance.
    """
    if any(parameter.is_meta for parameter in net.parameters()):
        return  # there is nothing to fill
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for module in net.modules():
        if isinstance(module, Chain):
            for layer, following in pairwise(module.children()):
                if isinstance(layer, nn.Conv2d) and isinstance(following, nn.Conv2d | ChannelShuffle):
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
