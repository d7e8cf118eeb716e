"""Which layers of a network can be replaced, and why the others can't."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn.utils import parametrize

from ..analyse import ConvUse, Table, analyse, float_type
from ..analyse.borrow import unwrap
from ..cost import Cost
from ..kinds import Conv, Kind
from .candidates import candidates
from .patches import columns_of
from .plan import Left

COLUMNS = 10 * 2**10  # of the largest patch whose moments are taken: they are 800 MB
NOTHING = "no lighter kind pays off there"

__all__ = ["Layer", "Survey", "survey", "unwrap"]


@dataclass(frozen=True)
class Layer:
    """A layer that can be replaced.

    Arguments:
        calls: each time it runs for one image, with its exact sizes; of a linear layer those of the 1×1
            convolution of its rows.
        itemsize: bytes a number.
    """

    calls: tuple[Conv, ...]
    itemsize: int = 4

    @property
    def conv(self) -> Conv:
        """The first call."""
        return self.calls[0]

    def cost(self, kind: Kind | None) -> Cost:
        """What `kind` (None: the layer as it is) costs in its place, over all calls."""
        each = [
            conv.cost(self.itemsize) if kind is None else kind.cost(conv, itemsize=self.itemsize)
            for conv in self.calls
        ]
        every = sum(each, start=Cost())
        return replace(every, params=each[0].params, weight_bytes=each[0].weight_bytes)


@dataclass(frozen=True)
class Survey:
    """What there is to lighten.

    Arguments:
        layers: path → layer, in the order of the network.
        left: what can't be replaced, and why.
        cost: params and macs of the whole network for one image.
        input: shape of that image, (C, H, W).
    """

    layers: Mapping[str, Layer]
    left: tuple[Left, ...]
    cost: Cost
    input: tuple[int, ...]


def survey(net: nn.Module, shape: tuple[int, ...]) -> Survey:
    """Look through `net` without running it on data.

    Arguments:
        shape: one image, (C, H, W).

    Raises:
        InputError: the network can't take such an image.
    """
    table = analyse(net, shape)
    macs, twice = (_macs(each) for each in (table, analyse(net, torch.empty(2, *shape, dtype=float_type(net)))))
    modules = dict(net.named_modules())
    layers: dict[str, Layer] = {}
    left: list[Left] = []
    for path, module in modules.items():
        if isinstance(module, nn.Conv2d | nn.Linear):
            use = (table.convs if isinstance(module, nn.Conv2d) else table.linears)[path]
            reason = _why_left(module, use)
            if reason is None and isinstance(modules[path.rpartition(".")[0]], nn.TransformerEncoderLayer):
                reason = "the TransformerEncoderLayer around it reads its weight by itself"  # its fast path
            if reason is None and twice[path] != 2 * macs[path]:
                reason = "it does not run image by image: two cost it other than twice as much"
            if reason is None:
                layers[path] = Layer(use.calls, module.weight.element_size())
            else:
                left.append(Left(path, reason))
        elif isinstance(module, nn.modules.conv._ConvNd):
            left.append(Left(path, f"a {type(module).__name__} is no 2-D convolution to decompose"))
    left += _functional(table, modules)
    weight_bytes = sum(p.numel() * p.element_size() for p in net.parameters())
    return Survey(layers, tuple(left), Cost(table.params, table.macs, weight_bytes), shape)


def _why_left(module: nn.Conv2d | nn.Linear, use: ConvUse) -> str | None:
    """Why this layer must stay as it is, or None."""
    if parametrize.is_parametrized(module):
        return "its weight is parametrised: remove the parametrisation first"
    if use.computed:
        return "its weight is computed on the way: bake it in first"
    if use.elsewhere:
        return f"its weight is also read by {', '.join(use.elsewhere)}"
    if not use.runs or not use.calls:
        return "it never ran on an image of this size"
    if not _is_torchs(module):
        return f"{type(module).__name__} has a forward of its own"
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
        return "hooks are attached to it, and would be lost"
    if isinstance(module, nn.Linear) and len(set(use.calls)) > 1:
        return "it runs on several numbers of rows"
    if not bool(module.weight.isfinite().all()):
        return "its weights are not finite"
    if columns_of(use.calls[0]) > COLUMNS:
        return f"it reads {columns_of(use.calls[0]):,} numbers at once, whose second moments are too large"
    if not candidates(use.calls[0]):
        return NOTHING
    return None


def _macs(table: Table) -> Counter[str]:
    """By path."""
    found: Counter[str] = Counter()
    for row in table.rows:
        found[row.path] += row.macs
    return found


def _is_torchs(module: nn.Conv2d | nn.Linear) -> bool:
    own = type(module)
    if isinstance(module, nn.Linear):
        return own.forward is nn.Linear.forward
    return own.forward is nn.Conv2d.forward and own._conv_forward is nn.Conv2d._conv_forward


def _functional(table: Table, modules: Mapping[str, nn.Module]) -> list[Left]:
    """Convolutions that a forward computes by itself: there is no module to replace."""
    paths = [
        row.path for row in table.rows if row.conv is not None and not isinstance(modules[row.path], nn.Conv2d)
    ]
    return [Left(path, "a functional convolution in its forward is no module") for path in dict.fromkeys(paths)]
