"""A network's operations one after the other, for images of one shape, in memory that is laid out once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.node import map_arg
from torch.utils._pytree import tree_map

from ..kernels import FusedConv2d, Step, pool, run

_ATEN = torch.ops.aten
_LINE = 16  # floats: tensors begin at a line of the cache
SHAPES = 4  # of images, whose memory is kept laid out


class Tapes:
    """Runs a graph on images of any shape it takes, from any number of threads: a `Tape` for each that is running.

    Those of the last SHAPES shapes are kept. A graph of several inputs or outputs is torch's to run.
    """

    def __init__(self, net: GraphModule) -> None:
        self._net = net
        self._plays = _has_one_of_each(net)
        self._idle: dict[tuple[int, ...], list[Tape]] = {}

    def __call__(self, x: Tensor) -> Any:
        if not self._plays or x.dim() != 4 or x.dtype != torch.float32 or not x.numel():
            return self._net(x)
        key = (*x.shape, torch.get_num_threads())
        idle = self._idle.setdefault(key, [])
        try:
            tape = idle.pop()
        except IndexError:
            tape = Tape(self._net, x)
        try:
            return tape(x)
        finally:
            idle.append(tape)
            self._idle[key] = self._idle.pop(key, idle)  # the last used stands last
            for old in list(self._idle)[:-SHAPES]:
                self._idle.pop(old, None)


class Tape:
    """Runs a graph whose convolutions are `FusedConv2d`s on images of one shape, one call at a time.

    What the kernels can do by themselves (those layers, and pools) is one call to them, however many layers it is;
    in between, other operations are torch's. Outputs of the kernels stand in one block of memory, each where
    nothing that is still needed stands.

    Arguments:
        net: takes one tensor and gives one.
        x: images (N, C, H, W) such as it will run on.

    Raises:
        Whatever the network does on these images.
    """

    def __init__(self, net: GraphModule, x: Tensor) -> None:
        seen = _Recorder(net)
        seen.run(x)
        self._nodes = {node: i for i, node in enumerate(net.graph.nodes)}
        self._constants = {
            n: v
            for n, v in seen.values.items()
            if n.op == "get_attr" or not any(isinstance(each, Tensor) for each in _leaves(v))
        }
        self._net = net
        self._images, self._scores = _ends(net)
        own = {node: _native(net, node, seen.values) for node in self._nodes}
        self._places = self._laid_out({node: made[0] for node, made in own.items() if made is not None})
        self._plays: list[_Kernels | Node] = []
        for node, made in own.items():
            if made is not None:
                self._add(node, *made)
            elif node.op.startswith("call") and node not in self._constants and not self._seen_once(node):
                self._plays.append(node)
        for play in self._plays:
            if isinstance(play, _Kernels):
                play.array = (Step * len(play.steps))(*play.steps)
        last = {source: node for node in self._nodes for source in node.all_input_nodes}
        self._dropped: dict[Node, list[Node]] = {}
        for source, node in last.items():
            self._dropped.setdefault(node, []).append(source)

    def __call__(self, x: Tensor) -> Tensor:
        found: dict[Node, Any] = {self._images: x, **self._constants, **self._places}
        for play in self._plays:
            if isinstance(play, _Kernels):
                given = [found[source].contiguous(memory_format=torch.channels_last) for _, _, source in play.given]
                for (at, what, _), tensor in zip(play.given, given):
                    setattr(play.array[at], what, tensor.data_ptr())
                run(play.array)
                continue
            found[play] = self._played(play, found)
            for done in self._dropped.get(play, ()):
                found.pop(done, None)
        return found[self._scores].clone(memory_format=torch.contiguous_format)  # its place is used again

    def _holds(self, value: Any) -> bool:
        """Whether a tensor is in the block."""
        return isinstance(value, Tensor) and 0 <= value.data_ptr() - self._block.ctypes.data < self._block.nbytes

    def _played(self, node: Node, found: dict[Node, Any]) -> Any:
        args: Any = map_arg(node.args, found.__getitem__)
        named: Any = map_arg(node.kwargs, found.__getitem__)
        return _callable(self._net, node)(*args, **named)

    def _seen_once(self, node: Node) -> bool:
        """Whether an operation only gives other views of places, as a reshape may: then it is done here, once."""
        fixed = self._constants | self._places
        if not all(source in fixed for source in node.all_input_nodes):
            return False
        if not any(self._holds(v) for source in node.all_input_nodes for v in _leaves(fixed[source])):
            return False
        views = self._played(node, fixed)
        if not all(self._holds(v) for v in _leaves(views)):
            return False
        self._constants[node] = views
        return True

    def _add(self, node: Node, step: Step, sources: dict[str, Node]) -> None:
        if not self._plays or not isinstance(self._plays[-1], _Kernels):
            self._plays.append(_Kernels([], []))
        play = self._plays[-1]
        assert isinstance(play, _Kernels)
        step.y = self._places[node].data_ptr()
        for what, source in sources.items():
            if source in self._places:
                setattr(step, what, self._places[source].data_ptr())
            else:
                play.given.append((len(play.steps), what, source))
        play.steps.append(step)

    def _laid_out(self, steps: dict[Node, Step]) -> dict[Node, Tensor]:
        """The output of each step, (N, M, H', W') channels last, in one block of memory.

        Torch's operations may give parts of what they are given, so what they read keeps its place.
        """
        ends = {}
        for node in steps:
            users = [self._nodes[user] if user in steps else len(self._nodes) for user in node.users]
            ends[node] = max(users, default=self._nodes[node])
        taken: list[tuple[int, int, int]] = []  # start, end and until when, by start
        starts, whole = {}, 0
        for node, step in steps.items():
            size = -(-int(np.prod(step.output)) // _LINE) * _LINE
            taken = [each for each in taken if each[2] >= self._nodes[node]]
            start = 0
            for begin, end, _ in taken:
                if begin - start >= size:
                    break
                start = max(start, end)
            starts[node] = start
            taken = sorted([*taken, (start, start + size, ends[node])])
            whole = max(whole, start + size)
        block = np.empty(whole + _LINE, np.float32)
        self._block = block = block[-(block.ctypes.data // 4) % _LINE :]
        places = {}
        for node, step in steps.items():
            n, m, h, w = step.output
            part = torch.from_numpy(block[starts[node] : starts[node] + n * m * h * w])
            places[node] = part.view(n, h, w, m).permute(0, 3, 1, 2)
        return places


@dataclass
class _Kernels:
    """Steps in one call; `given` says which of them read what others made: step, which of its inputs, and whose."""

    steps: list[Step]
    given: list[tuple[int, str, Node]]
    array: Any = None


class _Recorder(Interpreter):
    """What each node of a graph gives: constants, and of other tensors the shapes, for which no kernel need run."""

    def __init__(self, net: GraphModule) -> None:
        super().__init__(net)
        self.values: dict[Node, Any] = {}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        self.values[n] = value if n.op == "get_attr" else tree_map(_shape_of, value)
        return value

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        module = self.fetch_attr(target)
        if not isinstance(module, FusedConv2d):
            return super().call_module(target, args, kwargs)
        return args[0].new_empty(module.step(*args).output).contiguous(memory_format=torch.channels_last)


def _shape_of(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value


def _has_one_of_each(net: GraphModule) -> bool:
    """Whether a graph takes one tensor and gives one."""
    try:
        _ends(net)
    except ValueError:
        return False
    return True


def _ends(net: GraphModule) -> tuple[Node, Node]:
    (images,) = (node for node in net.graph.nodes if node.op == "placeholder")
    (output,) = (node for node in net.graph.nodes if node.op == "output")
    (scores,) = output.args[0] if isinstance(output.args[0], tuple | list) else output.args
    if not isinstance(scores, Node) or scores is images:
        raise ValueError
    return images, scores


def _leaves(value: Any) -> list[Any]:
    return [leaf for each in value for leaf in _leaves(each)] if isinstance(value, tuple | list) else [value]


def _callable(net: GraphModule, node: Node) -> Callable[..., Any]:
    if node.op == "call_module":
        return net.get_submodule(str(node.target))
    if node.op == "call_method":
        return getattr(torch.Tensor, str(node.target))
    assert callable(node.target)
    return node.target


def _native(net: GraphModule, node: Any, values: dict[Node, Any]) -> tuple[Step, dict[str, Node]] | None:
    """The step that does what a node does, and what it reads; None where the kernels can't."""
    if node.op == "call_module":
        module = net.get_submodule(str(node.target))
        if not isinstance(module, FusedConv2d):
            return None
        return module.step(*(values[each] for each in node.args)), dict(zip(("x", "residual"), node.args))
    made = _pool(node, values) if node.op == "call_function" else None
    return None if made is None else (made, {"x": node.args[0]})


def _pool(node: Any, values: dict[Node, Any]) -> Step | None:
    if node.target not in _POOLS or node.kwargs:
        return None
    x, y = values[node.args[0]], values[node]
    if x.dim() != 4 or x.dtype != torch.float32 or x.numel() == 0:
        return None
    given = [*node.args[1:], *_POOLS[node.target][len(node.args) - 1 :]]
    made: Step | None = None
    if node.target is _ATEN.max_pool2d.default:
        kernel, stride, padding, dilation = (_pair(each) for each in (given[0], given[1] or given[0], *given[2:4]))
        made = pool(x.shape, y.shape[2:], kernel, stride, padding, dilation, largest=True)
    elif node.target is _ATEN.avg_pool2d.default:
        kernel, stride, padding = (_pair(each) for each in (given[0], given[1] or given[0], given[2]))
        over = given[5] or (kernel[0] * kernel[1] if given[4] else 0)
        if given[3] and given[4] and not given[5]:
            return None  # windows over the edge count what padding there is
        made = pool(x.shape, y.shape[2:], kernel, stride, padding, largest=False, over=over)
    elif tuple(y.shape[2:]) == (1, 1):
        made = pool(x.shape, (1, 1), tuple(x.shape[2:]), (1, 1), largest=False)
    if made is not None:
        made.threads = torch.get_num_threads()
    return made


_POOLS: dict[Any, tuple[Any, ...]] = {  # and the arguments behind the images where they are left out
    _ATEN.max_pool2d.default: (None, [], 0, 1, False),
    _ATEN.avg_pool2d.default: (None, [], 0, False, True, None),
    _ATEN.adaptive_avg_pool2d.default: (None,),
}


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (tuple(size) * (2 // len(size)))
