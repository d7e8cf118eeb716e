"""The kinds of convolution: the study notes' five, and those that networks and lightening are made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn

from .. import nn as cnn
from ..errors import InputError
from ..nn import Between, Order
from ..nn.stacked import share
from .conv import Conv, Padding
from .grouped import Grouped, Permuted, Shuffled
from .kind import Kind
from .parts import OneConv, arguments, at_least_one, pointwise


@dataclass(frozen=True)
class Normal(OneConv):
    """Every output channel sees every input channel."""

    @property
    def formula(self) -> str:
        return "K²·C·M"

    def _chain(self, dense: Conv) -> list[Conv]:
        return [dense]


@dataclass(frozen=True)
class Depthwise(OneConv):
    """`multiplier` filters for each channel, which see that channel alone; see `convlite.nn.DepthwiseConv2d`."""

    multiplier: int = 1

    def __post_init__(self) -> None:
        at_least_one(self, multiplier=self.multiplier)

    @property
    def formula(self) -> str:
        return "K²·C" if self.multiplier == 1 else "K²·C·r"

    def _why_not(self, dense: Conv) -> str | None:
        if dense.m != dense.c * self.multiplier:
            return f"a depthwise convolution of {dense.c} channels gives {dense.c * self.multiplier}, not {dense.m}"
        return None

    def _chain(self, dense: Conv) -> list[Conv]:
        return [replace(dense, groups=dense.c)]

    def _module(self, dense: Conv, device: Any, dtype: Any) -> nn.Module:
        layer = nn.Conv2d if self.multiplier == 1 else cnn.DepthwiseConv2d
        return layer(**arguments(dense, device, dtype), groups=dense.c)


@dataclass(frozen=True)
class Pointwise(OneConv):
    """1×1: mixes channels and looks at no neighbour (arXiv 1312.4400)."""

    @property
    def formula(self) -> str:
        return "C·M"

    def _why_not(self, dense: Conv) -> str | None:
        return _resizes(dense)

    def _chain(self, dense: Conv) -> list[Conv]:
        return [replace(dense, k=(1, 1), padding=(0, 0), dilation=(1, 1))]


@dataclass(frozen=True)
class Separable(Kind):
    """Depthwise and pointwise, in either order; see `convlite.nn.SeparableConv2d`."""

    order: Order = "depthwise_first"
    between: Between = None
    multiplier: int = 1

    def __post_init__(self) -> None:
        at_least_one(self, multiplier=self.multiplier)
        if self.order not in ("depthwise_first", "pointwise_first"):
            raise InputError(f"order must be 'depthwise_first' or 'pointwise_first', given {self.order!r}.")

    @property
    def formula(self) -> str:
        r = "" if self.multiplier == 1 else "·r"
        return f"K²·C{r} + C·M{r}" if self.order == "depthwise_first" else f"C·M{r} + K²·M{r}"

    def _chain(self, dense: Conv) -> list[Conv]:
        r = self.multiplier
        if self.order == "depthwise_first":
            return [
                replace(dense, m=r * dense.c, groups=dense.c, bias=False),
                pointwise(dense, r * dense.c, dense.m, bias=dense.bias),
            ]
        return [
            pointwise(dense, dense.c, r * dense.m),
            replace(dense, c=r * dense.m, groups=dense.m),
        ]

    def _module(self, dense: Conv, device: Any, dtype: Any) -> nn.Module:
        return cnn.SeparableConv2d(
            **arguments(dense, device, dtype),
            order=self.order, multiplier=self.multiplier, between=self.between,
        )  # fmt: skip


@dataclass(frozen=True)
class Asymmetric(Kind):
    """K×1 to `rank` channels (M where left out), then 1×K; see `convlite.nn.AsymmetricConv2d`."""

    by_group: ClassVar[bool] = True

    rank: int | None = None
    between: Between = None

    def __post_init__(self) -> None:
        at_least_one(self, rank=self.rank)

    @property
    def formula(self) -> str:
        return "K·C·M + K·M·M" if self.rank is None else "K·C·R + K·R·M"

    def inner(self, dense: Conv) -> int:
        """The channels between."""
        return dense.m if self.rank is None else self.rank

    def _why_not(self, dense: Conv) -> str | None:
        return _unshared(dense, self.inner(dense))

    def _chain(self, dense: Conv) -> list[Conv]:
        mid = self.inner(dense)
        (kh, kw), (sh, sw), (dh, dw) = dense.k, dense.stride, dense.dilation
        tall: Padding = "same"
        wide: Padding = "same"
        if dense.padding != "same":
            tall, wide = (dense.padding[0], 0), (0, dense.padding[1])
        return [
            replace(dense, m=mid, k=(kh, 1), stride=(sh, 1), dilation=(dh, 1), padding=tall, bias=False),
            replace(dense, c=mid, k=(1, kw), stride=(1, sw), dilation=(1, dw), padding=wide),
        ]

    def _module(self, dense: Conv, device: Any, dtype: Any) -> nn.Module:
        return cnn.AsymmetricConv2d(
            **arguments(dense, device, dtype), groups=dense.groups, rank=self.rank, between=self.between
        )


@dataclass(frozen=True)
class Stacked(Kind):
    """3×3 convolutions in place of a larger odd kernel; see `convlite.nn.StackedConv2d`."""

    between: Between = None

    @property
    def formula(self) -> str:
        return "9·C·M + 9·M·M·(K - 3) / 2"

    def _why_not(self, dense: Conv) -> str | None:
        if max(dense.k) < 5 or dense.k[0] % 2 == 0 or dense.k[1] % 2 == 0:
            return f"stacked 3×3 need an odd kernel of 5 or more, not {dense.k[0]}×{dense.k[1]}"
        return None

    def _chain(self, dense: Conv) -> list[Conv]:
        reach = [(k - 1) // 2 for k in dense.k]
        count, total = max(reach), dense.padding
        assert total != "same"  # an odd kernel's padding is always numbers
        return [
            replace(
                dense,
                c=dense.c if i == 0 else dense.m,
                k=(3 if i < reach[0] else 1, 3 if i < reach[1] else 1),
                stride=dense.stride if i == count - 1 else (1, 1),
                padding=(share(total[0], reach[0], i), share(total[1], reach[1], i)),
                bias=dense.bias and i == count - 1,
            )
            for i in range(count)
        ]

    def _module(self, dense: Conv, device: Any, dtype: Any) -> nn.Module:
        return cnn.StackedConv2d(**arguments(dense, device, dtype), between=self.between)


@dataclass(frozen=True)
class Bottleneck(Kind):
    """1×1, K×K, 1×1 with fewer channels inside (a quarter where left out); see `nn.BottleneckConv2d`.

    The K×K works in `slices` of them (of each group's, where there are groups), alone each.
    """

    by_group: ClassVar[bool] = True

    rank_in: int | None = None
    rank_out: int | None = None
    between: Between = None
    slices: int = 1

    def __post_init__(self) -> None:
        at_least_one(self, rank_in=self.rank_in, rank_out=self.rank_out, slices=self.slices)

    @property
    def formula(self) -> str:
        return "C·P + K²·P·Q + Q·M" if self.slices == 1 else "C·P + K²·P·Q / s + Q·M"

    def ranks(self, dense: Conv) -> tuple[int, int]:
        """The channels inside: into and out of the K×K convolution."""
        parts = self.slices * dense.groups
        return (
            parts * max(1, dense.c // 4 // parts) if self.rank_in is None else self.rank_in,
            parts * max(1, dense.m // 4 // parts) if self.rank_out is None else self.rank_out,
        )

    def _why_not(self, dense: Conv) -> str | None:
        ranks, parts = self.ranks(dense), self.slices * dense.groups
        if self.slices > 1 and any(rank % parts for rank in ranks):
            return f"{parts} slices don't divide the {ranks[0]} and {ranks[1]} channels inside"
        return _unshared(dense, *ranks)

    def _chain(self, dense: Conv) -> list[Conv]:
        a, b = self.ranks(dense)
        return [
            pointwise(dense, dense.c, a, groups=dense.groups),
            replace(dense, c=a, m=b, groups=self.slices * dense.groups, bias=False),
            pointwise(dense, b, dense.m, bias=dense.bias, groups=dense.groups),
        ]

    def _module(self, dense: Conv, device: Any, dtype: Any) -> nn.Module:
        return cnn.BottleneckConv2d(
            **arguments(dense, device, dtype),
            groups=dense.groups, rank_in=self.rank_in, rank_out=self.rank_out, between=self.between,
            slices=self.slices,
        )  # fmt: skip


@dataclass(frozen=True)
class LowRank(Kind):
    """K×K to `rank` channels (a quarter of M where left out), then 1×1; see `nn.LowRankConv2d`.

    Of each rank / `slices` channels between sees one of the slices of the input (of each group's, where it has
    groups).
    """

    by_group: ClassVar[bool] = True

    rank: int | None = None
    between: Between = None
    slices: int = 1

    def __post_init__(self) -> None:
        at_least_one(self, rank=self.rank, slices=self.slices)

    @property
    def formula(self) -> str:
        return "K²·C·R + R·M" if self.slices == 1 else "K²·C·R / s + R·M"

    def inner(self, dense: Conv) -> int:
        """The channels between."""
        parts = self.slices * dense.groups
        return parts * max(1, dense.m // 4 // parts) if self.rank is None else self.rank

    def _why_not(self, dense: Conv) -> str | None:
        inner, parts = self.inner(dense), self.slices * dense.groups
        if dense.c % parts or inner % parts:
            return f"{parts} slices don't divide {dense.c} channels in and a rank of {inner}"
        return None

    def _chain(self, dense: Conv) -> list[Conv]:
        inner = self.inner(dense)
        return [
            replace(dense, m=inner, groups=self.slices * dense.groups, bias=False),
            pointwise(dense, inner, dense.m, bias=dense.bias, groups=dense.groups),
        ]

    def _module(self, dense: Conv, device: Any, dtype: Any) -> nn.Module:
        return cnn.LowRankConv2d(
            **arguments(dense, device, dtype),
            groups=dense.groups, rank=self.rank, between=self.between, slices=self.slices,
        )  # fmt: skip


def _unshared(dense: Conv, *ranks: int) -> str | None:
    """Why the groups of a convolution can't share channels inside, or None."""
    for rank in ranks:
        if rank % dense.groups:
            return f"each of {dense.groups} groups needs its share, and a rank of {rank} is no multiple of that"
    return None


def _resizes(dense: Conv) -> str | None:
    if dense.keeps_size:
        return None
    return f"a 1×1 has nothing to make up for padding {dense.padding} under a kernel of {dense.k}"


KINDS: dict[str, type[Kind]] = {
    kind.__name__.lower(): kind
    for kind in (
        Normal,
        Grouped,
        Depthwise,
        Pointwise,
        Separable,
        Asymmetric,
        Stacked,
        Bottleneck,
        LowRank,
        Shuffled,
        Permuted,
    )
}
