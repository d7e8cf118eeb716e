"""What stands in a traced network in another form than a convolution and is one: put as such, for the kernels."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ..kernels import GROUP

_ATEN = torch.ops.aten
_VIEWS = (
    _ATEN.flatten.using_ints, _ATEN.reshape.default, _ATEN.view.default, _ATEN._unsafe_view.default,
    _ATEN.clone.default,
)  # fmt: skip


def as_convolutions_(net: GraphModule) -> None:
    """Change a graph in place: linear layers of images become convolutions as large as the image, and sums of
    depthwise convolutions (`convlite.nn.DepthwiseConv2d` of several channels in for each out) become grouped ones.
    """
    for node in list(net.graph.nodes):
        _from_linear(net, node)
    _fold_constants(net)
    for node in list(net.graph.nodes):
        _from_sum(net, node)


def constant(net: GraphModule, node: Any) -> Tensor | None:
    """The tensor of a node that is one of the network's own."""
    named = isinstance(node, Node) and node.op == "get_attr"
    found = operator.attrgetter(str(node.target))(net) if named else None
    return found if isinstance(found, Tensor) else None


def only_user(node: Any) -> Any:
    """The node that alone reads this one, if there is one."""
    users = list(node.users)
    return users[0] if len(users) == 1 else None


def calls(node: Any, *targets: Any) -> bool:
    """Whether this is a node, and calls one of these."""
    return isinstance(node, Node) and any(node.target is target for target in targets)


def _from_linear(net: GraphModule, node: Any) -> None:
    """A linear layer, and a ReLU behind it, of all numbers of images whose size is known."""
    if not calls(node, _ATEN.linear.default) or node.args[0].meta["val"].dim() != 2:
        return
    x, weight = node.args[:2]
    while calls(x, *_VIEWS):
        x = x.args[0]
    images, (m, numbers) = x.meta["val"], weight.meta["val"].shape
    if images.dim() == 2:
        images = images[:, :, None, None]
    if images.dim() != 4 or not all(isinstance(size, int) for size in images.shape[1:]):
        return
    constants = all(each is None or each.op == "get_attr" for each in node.args[1:])
    if images.shape[1:].numel() != numbers or not constants:
        return
    relu = only_user(node)
    tail = relu if calls(relu, _ATEN.relu.default) else node
    with net.graph.inserting_before(node), images.fake_mode:

        def put(target: Any, *args: Any) -> Any:
            new = net.graph.call_function(target, args)
            new.meta["val"] = target(*(each.meta["val"] if isinstance(each, Node) else each for each in args))
            return new

        kernel = put(_ATEN.reshape.default, weight, [m, *images.shape[1:]])
        x = x if x.meta["val"].dim() == 4 else put(_ATEN.reshape.default, x, [-1, numbers, 1, 1])
        y = put(_ATEN.conv2d.default, x, kernel, *node.args[2:])
        y = y if tail is node else put(_ATEN.relu.default, y)
        tail.replace_all_uses_with(put(_ATEN.reshape.default, y, [-1, m]))


def _fold_constants(net: GraphModule) -> None:
    """What is computed from the network's own tensors alone is computed here."""
    for node in list(net.graph.nodes):
        known = {source: constant(net, source) for source in node.all_input_nodes}
        if node.op != "call_function" or not known or any(value is None for value in known.values()):
            continue
        args: Any = torch.fx.node.map_arg(node.args, known.__getitem__)
        with torch.no_grad():
            value = node.target(*args, **node.kwargs)
        if isinstance(value, Tensor):
            node.replace_all_uses_with(_own(net, node, value))


def _own(net: GraphModule, node: Node, value: Tensor) -> Node:
    """A tensor of the network's own, in the place of a node."""
    name = f"own_{len(net._buffers)}"
    net.register_buffer(name, value)
    with net.graph.inserting_before(node):
        made = net.graph.get_attr(name)
    made.meta = {"val": node.meta["val"].new_empty(value.shape) if "val" in node.meta else value}
    return made


def _from_sum(net: GraphModule, node: Any) -> None:
    """Blocks of channels of a depthwise convolution that are added up are a grouped one's groups, once they stand
    side by side in what it reads: a convolution's outputs, which can be put in any order.
    """
    if not calls(node, _ATEN.split.Tensor, _ATEN.chunk.default) or (*node.args[2:], 0)[0] not in (1, -3):
        return
    conv, m = node.args[0], node.meta["val"][0].shape[1]
    terms = sorted(node.users, key=lambda user: user.args[1])
    tail = terms[0] if terms and all(calls(each, operator.getitem) for each in terms) else None
    for term in terms[1:]:
        both: Any = None if tail is None else only_user(tail)
        plain = calls(both, _ATEN.add.Tensor) and set(both.args) == {tail, term} and not both.kwargs
        tail = both if plain and only_user(term) is both else None
    if (
        tail is None
        or not 2 <= len(terms) <= GROUP
        or not calls(conv, _ATEN.conv2d.default)
        or only_user(conv) is not node
    ):
        return
    before, r = conv.args[0], len(terms)
    single, stride, padding, dilation, groups = _conv(net, conv)
    if single is None or conv.args[2:3] not in ((), (None,)) or groups != r * m or len(single) != r * m:
        return
    if not calls(before, _ATEN.conv2d.default) or only_user(before) is not conv or _conv(net, before)[-1] != 1:
        return
    given = [constant(net, each) for each in before.args[1:3] if each is not None]
    if any(each is None for each in given):
        return
    order = torch.arange(r * m).view(r, m).t().flatten()  # output o·r + t was t·m + o
    own = [_own(net, before, each[order]) for each in given if each is not None]
    before.args = (before.args[0], own[0], own[1] if len(own) > 1 else None, *before.args[3:])
    bias = None
    added = only_user(tail)
    if calls(added, _ATEN.add.Tensor) and added.args[0] is tail and not added.kwargs:
        values = constant(net, added.args[1])
        if values is not None and tuple(values.shape) == (m, 1, 1):
            bias, tail = _own(net, conv, values.flatten()), added
    weight = _own(net, conv, single.view(r, m, *single.shape[2:]).transpose(0, 1).contiguous())
    with net.graph.inserting_before(conv):
        made = net.graph.call_function(_ATEN.conv2d.default, (before, weight, bias, stride, padding, dilation, m))
    made.meta = tail.meta
    tail.replace_all_uses_with(made)


def _conv(net: GraphModule, node: Any) -> tuple[Any, ...]:
    """Weight, stride, padding, dilation and groups of a convolution."""
    return constant(net, node.args[1]), *node.args[3:], *((1, 1), (0, 0), (1, 1), 1)[max(0, len(node.args) - 3) :]
