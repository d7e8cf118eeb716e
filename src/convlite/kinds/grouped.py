"""Kinds in which groups of channels do not see each other, and what lets them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from .. import nn as cnn
from ..nn import Between
from .conv import Conv
from .kind import Kind
from .parts import OneConv, arguments, at_least_one, pointwise


@dataclass(frozen=True)
class Grouped(OneConv):
    """Channels in `groups` groups that do not see each other (AlexNet; ResNeXt, arXiv 1611.05431)."""

    groups: int

    def __post_init__(self) -> None:
        at_least_one(self, groups=self.groups)

    @property
    def formula(self) -> str:
        return "K²·C·M / g"

    def _why_not(self, dense: Conv) -> str | None:
        return indivisible(self.groups, dense)

    def _chain(self, dense: Conv) -> list[Conv]:
        return [replace(dense, groups=self.groups)]


@dataclass(frozen=True)
class Permuted(Grouped):
    """A grouped convolution between two permutations of channels; see `convlite.nn.PermutedConv2d`."""

    def _module(self, dense: Conv, device: Any, dtype: Any) -> nn.Module:
        return cnn.PermutedConv2d(**arguments(dense, device, dtype), groups=self.groups)


@dataclass(frozen=True)
class Shuffled(Kind):
    """Grouped 1×1, channel shuffle, depthwise K×K; see `convlite.nn.ShuffledConv2d`."""

    groups: int
    between: Between = None

    def __post_init__(self) -> None:
        at_least_one(self, groups=self.groups)

    @property
    def formula(self) -> str:
        return "C·M / g + K²·M"

    def _why_not(self, dense: Conv) -> str | None:
        return indivisible(self.groups, dense)

    def _chain(self, dense: Conv) -> list[Conv]:
        if dense.k == (1, 1):
            return [replace(dense, groups=self.groups)]
        return [
            pointwise(dense, dense.c, dense.m, groups=self.groups),
            replace(dense, c=dense.m, groups=dense.m),
        ]

    def _module(self, dense: Conv, device: Any, dtype: Any) -> nn.Module:
        return cnn.ShuffledConv2d(**arguments(dense, device, dtype), groups=self.groups, between=self.between)


def indivisible(groups: int, dense: Conv) -> str | None:
    """Why channels can't be shared out over the groups, or None."""
    if dense.c % groups or dense.m % groups:
        return f"{groups} groups don't divide {dense.c} channels in and {dense.m} out"
    return None
