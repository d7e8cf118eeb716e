"""A moving average of a network's weights, which mostly answers better than the last of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The exponential moving average of all floating tensors of a network (Polyak and Juditsky 1992).

    Arguments:
        decay: share of the old average in the new one; smaller in the first steps, (1 + n) / (10 + n), so that
            short runs don't keep what the network was before it had learnt anything.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.tensors = {name: tensor.clone() for name, tensor in _floating(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after one more step."""
        self.steps += 1
        new = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(list(self.tensors.values()), list(_floating(model).values()), new)

    def load(self, tensors: Mapping[str, Tensor], steps: int) -> None:
        """Go on from an average that was saved."""
        self.steps = steps
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])

    def copy_to(self, model: nn.Module) -> None:
        """Make the network the average; the whole numbers in it stay its own."""
        _copy(self.tensors, model)

    @contextmanager
    def within(self, model: nn.Module) -> Iterator[None]:
        """Meanwhile the network is the average, and afterwards what it was, to the last bit."""
        own = {name: tensor.clone() for name, tensor in _floating(model).items()}
        self.copy_to(model)
        try:
            yield
        finally:
            _copy(own, model)


def _floating(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


@torch.no_grad()
def _copy(tensors: Mapping[str, Tensor], model: nn.Module) -> None:
    for name, tensor in _floating(model).items():
        tensor.copy_(tensors[name])
