"""Random legal convolutions, and the kinds that can stand in their place."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn

from convlite.kinds import (
    Asymmetric,
    Bottleneck,
    Conv,
    Depthwise,
    Grouped,
    Kind,
    LowRank,
    Normal,
    Permuted,
    Pointwise,
    Separable,
    Shuffled,
    Stacked,
    conv,
)

small = st.integers(1, 3)
pairs = st.tuples(small, small)
BETWEEN = [None, None, "ReLU", "elu", nn.SiLU, nn.LeakyReLU(0.3)]


@st.composite
def convs(draw: st.DrawFn, modes=("zeros", "zeros", "zeros", "reflect", "replicate", "circular")) -> Conv:
    """A dense convolution of any legal shape, kernels even and rectangular among them."""
    k = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)) | st.sampled_from([(5, 5), (7, 7), (3, 5)]))
    stride, dilation = draw(pairs), draw(pairs)
    numbers = st.tuples(st.integers(0, 4), st.integers(0, 4))
    padding = draw(st.one_of(st.sampled_from([None, "same", "valid"]), numbers))
    extents = [dilation[i] * (k[i] - 1) for i in (0, 1)]
    if padding in (None, "same") and any(extent % 2 for extent in extents):
        stride = (1, 1)  # sides that differ leave no other choice
    mode = draw(st.sampled_from(modes))
    pads = padding if isinstance(padding, tuple) else (0, 0) if padding == "valid" else extents
    # Torch's other modes can't pad by more than there is, neither here nor inside a chain.
    least = [
        max(1, e + 1 - 2 * p) if mode == "zeros" or padding in (None, "same") else e + p + 1
        for e, p in zip(extents, pads)
    ]
    if mode != "zeros" and padding in (None, "same"):
        least = [e + 1 for e in extents]
    g = draw(st.integers(1, 4))
    c = g * draw(small)
    return conv(
        c=c,
        m=draw(st.one_of(small.map(lambda a: g * a), small.map(lambda r: r * c))),
        k=k,
        stride=stride,
        padding=padding,
        dilation=dilation,
        bias=draw(st.booleans()),
        padding_mode=mode,
        h=least[0] + draw(st.integers(0, 9)),
        w=least[1] + draw(st.integers(0, 9)),
    )


@dataclass(frozen=True)
class Options:
    """One value for each argument that a kind can take."""

    multiplier: int
    rank: int | None
    order: str
    between: Any


ranks = st.none() | st.integers(1, 9)
orders = st.sampled_from(["depthwise_first", "pointwise_first"])
linear = st.builds(Options, small, ranks, orders, st.none())
options = st.builds(Options, small, ranks, orders, st.sampled_from(BETWEEN))


def every_kind(dense: Conv, o: Options) -> list[Kind]:
    """Each kind that can stand in the place of `dense`, with those options."""
    common = math.gcd(dense.c, dense.m)
    groups = max(g for g in range(1, 1 + o.multiplier) if common % g == 0)
    kinds = [
        Normal(),
        Pointwise(),
        Grouped(groups),
        Depthwise(max(1, dense.m // dense.c)),
        Separable(o.order, o.between, o.multiplier),
        Asymmetric(o.rank, o.between),
        Stacked(o.between),
        Bottleneck(o.rank, o.multiplier, o.between),
        Bottleneck(None if o.rank is None else groups * o.rank, groups * o.multiplier, o.between, groups),
        LowRank(o.rank, o.between),
        LowRank(None if o.rank is None else groups * o.rank, o.between, groups),
        Shuffled(groups, o.between),
        Permuted(groups),
    ]
    return [kind for kind in kinds if kind.why_not(dense) is None]


def touched(module: nn.Module, dense: Conv, device: str = "meta") -> tuple[list[tuple], torch.Tensor]:
    """One image through `module`: what each nn.Conv2d in it touched, in the order they ran, and the output.

    For each: (the module, its input's shape, parameters, multiply-accumulates, bytes written).
    """
    seen = []

    def hook(layer: nn.Conv2d, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        params = sum(p.numel() for p in layer.parameters())
        each = layer.weight[0].numel()  # one filter: multiply-accumulates for each number of the output
        seen.append((layer, inputs[0].shape, params, each * output.numel(), output.nbytes))

    handles = [m.register_forward_hook(hook) for m in module.modules() if isinstance(m, nn.Conv2d)]
    output = module(torch.empty(1, dense.c, dense.h, dense.w, device=device))
    for handle in handles:
        handle.remove()
    return seen, output
