"""What the chains share: running one layer after the other, and what their arguments mean."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from ..errors import InputError, nearest

Size = int | tuple[int, int]
Padding = int | tuple[int, int] | str
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
Order = Literal["depthwise_first", "pointwise_first"]
Between = str | Callable[[], nn.Module] | nn.Module | None
"""What stands between two convolutions of a chain: nothing, the name of an activation of `torch.nn`
("ReLU", "ELU"), a class or function that makes a module, or a module to copy."""


def make_between(between: str | Callable[[], nn.Module] | nn.Module) -> nn.Module:
    """A fresh module of what `between` names.

    Raises:
        InputError: no activation of that name in `torch.nn`.
    """
    if isinstance(between, nn.Module):
        return copy.deepcopy(between)
    if isinstance(between, str):
        found = {n.lower(): n for n in nn.modules.activation.__all__}.get(between.lower())
        if found is None:
            raise InputError(
                f"torch.nn has no activation {between!r}; {nearest(between, nn.modules.activation.__all__)}"
            )
        try:
            made: nn.Module = getattr(nn, found)()
        except TypeError:
            raise InputError(
                f"{found} can't be made without arguments: give a module, or another activation."
            ) from None
        return made
    return between()


def pair(value: Size) -> tuple[int, int]:
    """Height and width of what may be given as one number for both."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def split(padding: Padding) -> tuple[Padding, Padding]:
    """The padding of a K×1 and of a 1×K convolution that together pad as `padding` says."""
    if isinstance(padding, str):
        return padding, padding
    vertical, horizontal = pair(padding)
    return (vertical, 0), (0, horizontal)


def expect_whole(name: str, value: int, groups: int) -> None:
    """Refuse what can't be shared out evenly over the groups."""
    if groups < 1 or value % groups:
        raise InputError(
            f"Each of {groups} groups needs its share of the {name}, and {value} is no multiple of that."
        )


class Chain(nn.Module):
    """Convolutions run one after the other, with the attributes by which code inspects an `nn.Conv2d`.

    Only the last of them carries the bias: with nothing between, an earlier one would be redundant.
    """

    def __init__(self, layers: dict[str, nn.Module], between: Between = None) -> None:
        super().__init__()
        convolutions = [layer for layer in layers.values() if isinstance(layer, nn.Conv2d)]
        last = convolutions[-1]
        self.in_channels = convolutions[0].in_channels
        self.out_channels = last.out_channels
        for name, layer in layers.items():
            self.add_module(name, layer)
            if between is not None and layer in convolutions[:-1]:
                number = convolutions.index(layer) + 1 if len(convolutions) > 2 else ""
                self.add_module(f"between{number}", make_between(between))

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, M, H', W')
        for layer in self.children():
            x = layer(x)
        return x
