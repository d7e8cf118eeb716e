"""Networks that are a stem and then blocks, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


class Stages:
    """Gathers blocks into flows: the stem, then a new stage wherever a block strides.

    Arguments:
        stem: its steps, named, all of them giving c channels.
        c: channels so far.
        strides: of each step of the stem.

    `flows` and `taps` are what `Backbone` takes; a tap is the last step at its stride.
    """

    def __init__(self, stem: nn.Sequential, c: int, strides: Sequence[int]) -> None:
        self.flows = {"stem": stem}
        self.c, self.stride = c, 1
        self._ends: dict[int, tuple[str, int]] = {}
        for (name, _), stride in zip(stem.named_children(), strides):
            self.stride *= stride
            self._ends[self.stride] = (f"stem.{name}", c)

    def add(self, block: nn.Module, c: int, stride: int = 1) -> None:
        """One more block, which gives c channels."""
        if stride > 1 or len(self.flows) == 1:
            self.flows[f"stage{len(self.flows)}"] = nn.Sequential()
        name, flow = list(self.flows.items())[-1]
        flow.add_module(f"block{len(flow) + 1}", block)
        self.c, self.stride = c, self.stride * stride
        self._ends[self.stride] = (f"{name}.block{len(flow)}", c)

    @property
    def taps(self) -> dict[str, tuple[int, int]]:
        """{"flow.step": (channels, stride)}, the finest first."""
        return {path: (c, stride) for stride, (path, c) in self._ends.items()}
