"""What kinds have in common."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import InputError
from .conv import Conv
from .kind import Kind


def at_least_one(kind: Kind, **values: int | None) -> None:
    """Refuse numbers below 1; None stands for a default."""
    for name, value in values.items():
        if value is not None and value < 1:
            raise InputError(f"{kind.name} needs {name} of at least 1, given {value}.")


def arguments(dense: Conv, device: Any, dtype: Any) -> dict[str, Any]:
    """What `nn.Conv2d`, and each of our modules, takes; a kind says itself how it groups."""
    return {
        "in_channels": dense.c, "out_channels": dense.m, "kernel_size": dense.k, "stride": dense.stride,
        "padding": dense.padding, "dilation": dense.dilation, "bias": dense.bias,
        "padding_mode": dense.padding_mode, "device": device, "dtype": dtype,
    }  # fmt: skip


def pointwise(dense: Conv, c: int, m: int, *, bias: bool = False, groups: int = 1) -> Conv:
    """A 1×1 in the place of a dense convolution, from c channels to m."""
    return Conv(c=c, m=m, k=(1, 1), groups=groups, bias=bias, h=dense.h, w=dense.w)


class OneConv(Kind):
    """A kind that is a single `nn.Conv2d`."""

    def _module(self, dense: Conv, device: Any, dtype: Any) -> nn.Module:
        return self._chain(dense)[0].build(device, dtype)
