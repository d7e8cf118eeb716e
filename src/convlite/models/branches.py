"""The Inception module: branches that read the same map, side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import Maker, Size

Unit = tuple[int, Size] | tuple[int, Size, int]
"""(channels, kernel), or (channels, kernel, stride)."""


class Concat(nn.Module):
    """What each branch gives, one after the other along the channels; `None` is a branch left out."""

    def __init__(self, **branches: nn.Module | None) -> None:
        super().__init__()
        for name, branch in branches.items():
            if branch is not None:
                self.add_module(name, branch)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, sum of the branches' channels, H', W')
        return torch.cat([branch(x) for branch in self.children()], 1)


def branch(maker: Maker, c: int, *units: Unit, pool: nn.Module | None = None, pad: bool = False) -> nn.Sequential:
    """Units one after the other, after a pool where one is given.

    Arguments:
        c: channels that it reads.
        pad: whether a strided unit is padded; those of v3 and later are not.
    """
    made = nn.Sequential()
    if pool is not None:
        made.add_module("pool", pool)
    for i, (m, k, *rest) in enumerate(units, 1):
        stride = rest[0] if rest else 1
        made.add_module(f"unit{i}", maker.unit(c, m, k, stride, 0 if stride > 1 and not pad else None))
        c = m
    return made


def split(maker: Maker, c: int, *units: Unit, into: tuple[int, tuple[Size, Size]]) -> nn.Sequential:
    """Units one after the other, then two side by side: `into` is (channels of each, (kernel, kernel))."""
    made = branch(maker, c, *units)
    m, (one, other) = into
    last = units[-1][0]
    made.add_module("split", Concat(one=maker.unit(last, m, one), other=maker.unit(last, m, other)))
    return made
