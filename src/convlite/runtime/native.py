"""Networks on convlite's own kernels: whatever can be one of their convolutions is, the rest is torch's."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch.fx import GraphModule, Node

from ..kernels import FusedConv2d, Part, Pool, why_not_fused
from .forms import as_convolutions_, calls, constant, only_user
from .trace import quiet

_ATEN = torch.ops.aten
FEW = 4  # channels of the shortest vector, as in vector.h


def native(program: torch.export.ExportedProgram) -> GraphModule:
    """The network of a traced one, with each convolution and what stands around it in a `FusedConv2d`.

    A grouped convolution and the 1×1 behind it become one; so do the addition and the ReLU, ReLU6 or bounds that
    alone read a convolution, and a ReLU that a grouped convolution alone reads.
    """
    with quiet():
        if not all(map(_is_plain, program.graph.nodes)):  # else spared: it takes as long as tracing
            program = program.run_decompositions({})
        net = program.module()
    assert isinstance(net, GraphModule)
    pool = Pool()
    as_convolutions_(net)
    for node in list(net.graph.nodes):
        part = _part(net, node)
        if part is not None and not _waits(net, node, part):
            _fuse(net, node, part, pool)
        if calls(node, _ATEN.view.default):  # the memory behind it may be in another order now
            node.target = _ATEN.reshape.default
    net.graph.eliminate_dead_code()
    net.delete_all_unused_submodules()
    net.recompile()
    return net


def _is_plain(node: Node) -> bool:
    """Whether an operation changes nothing in place, and says its padding in numbers."""
    schema = getattr(node.target, "_schema", None)
    return not (schema is not None and schema.is_mutable) and not calls(node, _ATEN.conv2d.padding)


def _part(net: GraphModule, node: Any) -> Part | None:
    """The convolution of a node, where its images are in fp32 and its weights are constants."""
    if not calls(node, _ATEN.conv2d.default):
        return None
    given: list[Any] = [*node.args, *(None, (1, 1), (0, 0), (1, 1), 1)[len(node.args) - 2 :]]
    x, weight, bias, *rest = given
    tensors: list[Any] = [constant(net, each) for each in (weight, bias) if each is not None]
    if any(each is None for each in tensors) or x.meta["val"].dtype != torch.float32:
        return None
    if x.meta["val"].dim() != 4 or any(tensor.dtype != torch.float32 for tensor in tensors):
        return None
    stride, padding, dilation = (tuple(size) * (2 // len(size)) for size in rest[:3])
    return Part(tensors[0], tensors[1] if bias is not None else None, stride, padding, dilation, rest[3])


def _waits(net: GraphModule, node: Any, part: Part) -> bool:
    """Whether a later node, the 1×1 that alone reads this grouped convolution, will take it in."""
    grouped, tail = _bounded(node, part)
    reader = only_user(tail)
    dense = _part(net, reader)
    return (
        part.groups > 1 and dense is not None and reader.args[0] is tail and why_not_fused(dense, grouped) is None
    )


def _fuse(net: GraphModule, node: Any, part: Part, pool: Pool) -> None:
    source, grouped, dense = node.args[0], None, None
    residual: Any = None
    tail, relu = node, False
    if part.groups == 1:
        before = _grouped_before(net, node)
        if before is not None:
            source, grouped = before
        dense, tail, residual = _with_sum(node, part)
    else:
        grouped, tail, residual = _with_sum(node, part)
    if grouped is not None and dense is not None and (terms := _terms(source, grouped)) is not None:
        source, r = terms  # convlite.nn.DepthwiseConv2d repeats its input: channel t·C + c is term t of channel c
        grouped = replace(
            grouped, groups=grouped.groups // r, weight=_by_channel(grouped.weight, r),
            bias=None if grouped.bias is None else _by_channel(grouped.bias, r),
        )  # fmt: skip
        dense = replace(dense, weight=_by_channel(dense.weight.transpose(0, 1), r).transpose(0, 1))
    if grouped is not None and calls(source, _ATEN.relu.default) and only_user(source) is not None:
        source, relu = source.args[0], True
    if grouped is not None and dense is not None and not relu:
        grouped, dense = _multiplied_out(grouped, dense)
    if why_not_fused(dense, grouped, relu) is not None:
        return
    name = f"fused_{node.name}"
    net.add_submodule(name, FusedConv2d(dense, grouped, relu=relu, pool=pool))
    with net.graph.inserting_before(tail):
        new = net.graph.call_module(name, (source,) if residual is None else (source, residual))
    new.meta = tail.meta
    tail.replace_all_uses_with(new)


def _grouped_before(net: GraphModule, node: Any) -> tuple[Any, Part] | None:
    """What is read, and the grouped convolution which this 1×1 alone reads, with its bounds."""
    between = node.args[0]
    bounds = _bounds(between)
    conv = between if bounds is None else between.args[0]
    part = _part(net, conv)
    if part is None or part.groups == 1 or not _waits(net, conv, part):
        return None
    low, high = bounds or (-math.inf, math.inf)
    return conv.args[0], replace(part, low=low, high=high)


def _terms(node: Any, part: Part) -> tuple[Any, int] | None:
    """What is repeated along the channels, and how often, where a depthwise part reads that."""
    if tuple(part.weight.shape[:2]) != (part.groups, 1):
        return None
    if not calls(node, _ATEN.cat.default) or (*node.args[1:], 0)[0] not in (1, -3) or len(set(node.args[0])) > 1:
        return None
    return node.args[0][0], len(node.args[0])


def _by_channel(tensor: torch.Tensor, r: int) -> torch.Tensor:
    """(r·C, ...) at t·C + c, put at c·r + t as in `nn.Conv2d`."""
    return tensor.unflatten(0, (r, -1)).transpose(0, 1).flatten(0, 1)


def _multiplied_out(grouped: Part, dense: Part) -> tuple[Part | None, Part]:
    """Both as one dense convolution, which is the faster of so few channels as an image has; else as they are."""
    unbounded = (grouped.low, grouped.high) == (-math.inf, math.inf)
    if grouped.weight.shape[1] > 1 or grouped.groups >= FEW or not unbounded:
        return grouped, dense
    mixing = dense.weight.flatten(1)  # (M, r·C)
    taps = grouped.weight.unflatten(0, (grouped.groups, -1)).squeeze(2)  # (C, r, Kh, Kw)
    weight = torch.einsum("mcr,crhw->mchw", mixing.unflatten(1, taps.shape[:2]), taps)
    bias = dense.bias
    if grouped.bias is not None:
        bias = mixing @ grouped.bias + (0 if bias is None else bias)
    return None, replace(grouped, weight=weight, bias=bias, groups=1, low=dense.low, high=dense.high)


def _with_sum(node: Any, part: Part) -> tuple[Part, Any, Any]:
    """A convolution with its bounds, the last of its nodes, and what is added before the bounds."""
    user = only_user(node)
    last, added = node, None
    if calls(user, _ATEN.add.Tensor) and user.kwargs.get("alpha", 1) == 1:
        others = [each for each in user.args if isinstance(each, Node) and each is not node]
        if len(others) == 1 and _shape(others[0]) == _shape(node) != ():
            last, added = user, others[0]
    part, tail = _bounded(last, part)
    return part, tail, added


def _bounded(node: Any, part: Part) -> tuple[Part, Any]:
    """A part with the bounds of the operation that alone reads its node, and the node of that."""
    user = only_user(node)
    bounds = _bounds(user)
    return (part, node) if bounds is None else (replace(part, low=bounds[0], high=bounds[1]), user)


def _bounds(node: Any) -> tuple[float, float] | None:
    """What an operation bounds its input to, if that is what it does."""
    if calls(node, _ATEN.relu.default):
        return 0.0, math.inf
    if calls(node, _ATEN.relu6.default):
        return 0.0, 6.0
    if calls(node, _ATEN.hardtanh.default):
        given: list[Any] = [*node.args[1:], *(-1.0, 1.0)[len(node.args) - 1 :]]
        return float(given[0]), float(given[1])
    return None


def _shape(node: Any) -> tuple[int, ...]:
    """As it was when the network was traced: a sum of others would be refused, not broadcast."""
    sizes = node.meta["val"].shape if "val" in node.meta else ()
    return tuple(size if isinstance(size, int) else size.node.hint for size in sizes)
