"""One forward pass on the meta device, and every operation in it with the module that made it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from .borrow import Borrowed
from .operations import Operation, learn
from .shapes import RULES

Shape = tuple[int, ...]


class DataDependent(Exception):
    """The model asked for the value of a tensor that has none on the meta device."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One call of one module.

    Arguments:
        path: the module's first name in the model; "" for the model itself.
        number: which call of this module it is, from 0.
    """

    path: str
    module: nn.Module
    number: int


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One operation that ran.

    Arguments:
        frame: the innermost module call it ran in.
        macs, other_ops: what it computes.
        weight_bytes, input_bytes: what it reads, of parameters and buffers, and of activations.
        output_bytes: what it writes.
        inputs: the shapes of the tensors it reads, in order; output: of the first it writes.
        reads: the parameters among what it reads, by the `id` of their stand-ins.
        geometry: for a convolution, its (weight's shape, stride, padding, dilation, transposed, groups, bias).
    """

    frame: Frame
    operation: Operation
    macs: int
    other_ops: int
    weight_bytes: int
    input_bytes: int
    output_bytes: int
    inputs: tuple[Shape, ...]
    output: Shape
    elements: int
    reads: tuple[int, ...]
    geometry: tuple[Any, ...] | None


class Trace(TorchDispatchMode):
    """Runs operations without data and records them.

    Arguments:
        borrowed: a borrowed model: each of its modules is watched until it is given back. Forwards that keep
            an original parameter in a list of their own, as `nn.LSTM` does, get its stand-in all the same.

    Attributes:
        calls: every operation but views, in the order they ran.
        runs: how often each module ran, by its path.
        where: after an exception, the path of the module that raised it.
    """

    def __init__(self, borrowed: Borrowed) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.free = 0  # views and the like: classified, and no call of interest
        self.runs: dict[str, int] = {}
        self.where: str | None = None
        self._error: BaseException | None = None
        self._model = borrowed.model
        self._stack = [Frame("", borrowed.model, 0)]
        self._stand_ins = borrowed.stand_ins
        # kept, so that no address is used again
        self._storages = [(t, t.untyped_storage()) for t in borrowed.stand_ins.values()]
        self._weights = {
            storage._cdata: id(tensor) if isinstance(tensor, nn.Parameter) else 0
            for tensor, storage in self._storages
        }
        self._own: set[int] = set()  # storages of tensors with data that the forward itself made
        self._kept: list[Tensor] = []  # so that neither they nor their addresses go
        self._versions = contextlib.ExitStack()  # gives tensors that were not written to their version back

        for path, module in borrowed.modules.items():
            self.runs[path] = 0
            vars(module)["_call_impl"] = self._watched(path, module)  # its hooks then count as its own

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, gradients: bool = False) -> Any:
        """One forward; whatever it raises comes through, and `where` then says from which module."""
        with _quiet(gradients), self._versions, self:
            return self._model(*args, **kwargs)

    # ---- modules

    def _watched(self, path: str, module: nn.Module) -> Any:
        call, stack, runs = module._call_impl, self._stack, self.runs

        def watched(*args: Any, **kwargs: Any) -> Any:
            stack.append(Frame(path, module, runs[path]))
            runs[path] += 1
            try:
                return call(*args, **kwargs)
            except BaseException as error:
                if error is not self._error:  # not one that came up from a module within
                    self._error, self.where = error, path
                raise
            finally:
                stack.pop()

        return watched

    # ---- operations

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False, or else torch imports its compiler, which takes longer than any count; `_quiet` turns it off."""
        return False

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        operation = _known.get(function)
        if operation is None:
            operation = _known[function] = learn(function)
        tensors = _tensors(args)
        if kwargs:
            tensors += _tensors(tuple(kwargs.values()))
        else:
            kwargs = {}
        if not all(t.is_meta for t in tensors) or not tensors:
            return self._with_data(function, operation, args, kwargs, tensors)
        out = self._run(function, operation, args, kwargs)
        self._record(operation, args, tensors, out)
        return out

    def _run(self, function: Any, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        rule = RULES.get(function)
        out = rule(args) if rule else None
        if out is not None:
            return out
        try:
            return function(*args, **kwargs)
        except RuntimeError as error:
            if operation.needs_data:
                raise DataDependent(operation.name) from error
            raise

    def _with_data(
        self,
        function: Any,
        operation: Operation,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tensors: list[Tensor],
    ) -> Any:
        """An operation some of whose tensors have data: made in the forward, or attributes that are no buffers.

        While only such constants are involved it really runs, so that a forward may look at their values. Together
        with a tensor that has none, or where it would write to one that was there before, stand-ins take their
        place.
        """
        known = any(id(t) in self._stand_ins for t in tensors)
        foreign = operation.mutates and not all(_storage(t) in self._own for t in tensors)
        if foreign:
            for tensor in tensors:
                self._versions.enter_context(_unsafe_preserve_version_counter(tensor))
        if known or foreign or any(t.is_meta for t in tensors):
            args, kwargs = tree_map_only(Tensor, self._stand_in, (args, kwargs))
            out = self._run(function, operation, args, kwargs)
            tensors = _tensors(args) + _tensors(tuple(kwargs.values()))
        else:
            out = function(*args, **kwargs)
            before = {_storage(t) for t in tensors}
            made = [t for t in _tensors((out,)) if _storage(t) not in before]
            self._own.update(_storage(t) for t in made)
            self._kept += made
        self._record(operation, args, tensors, out)
        return out

    def _stand_in(self, tensor: Tensor) -> Tensor:
        if tensor.is_meta:
            return tensor
        made = self._stand_ins.get(id(tensor))
        if made is None:
            made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
            self._stand_ins[id(tensor)] = made
            self._kept.append(tensor)
        return made

    def _record(self, operation: Operation, args: tuple[Any, ...], tensors: list[Tensor], out: Any) -> None:
        if operation.kind == "free":
            self.free += 1
            return
        if operation.kind == "move" and operation.mutates:
            tensors = tensors[1:]  # the destination, which is written and not read
        weight_bytes = input_bytes = 0
        reads: list[int] = []
        for tensor in tensors:
            weight = self._weights.get(_storage(tensor))
            if weight is None:
                input_bytes += tensor.nbytes
            else:
                weight_bytes += tensor.nbytes
                if weight:
                    reads.append(weight)
        written = (out,) if isinstance(out, Tensor) else _tensors((out,))
        self.calls.append(
            Call(
                frame=self._stack[-1],
                operation=operation,
                macs=operation.formula(args, out) if operation.formula else 0,
                other_ops=operation.other_ops(args, out),
                weight_bytes=weight_bytes,
                input_bytes=input_bytes,
                output_bytes=sum(t.nbytes for t in written),
                inputs=tuple(tuple(t.shape) for t in tensors),
                output=tuple(written[0].shape) if written else (),
                elements=sum(t.numel() for t in written),
                reads=tuple(reads),
                geometry=_geometry(args) if operation.is_convolution else None,
            )
        )


_known: dict[Any, Operation] = {}


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    """The tensors among an operation's arguments; the only nesting there is are lists."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += [item for item in value if isinstance(item, Tensor)]
    return found


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _geometry(args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """Of `aten.convolution`, which every convolution on the meta device is."""
    if len(args) < 9:
        return None
    _, weight, bias, stride, padding, dilation, transposed, _, groups = args[:9]
    return (
        tuple(weight.shape),
        tuple(stride),
        tuple(padding),
        tuple(dilation),
        transposed,
        groups,
        bias is not None,
    )


@contextlib.contextmanager
def _quiet(gradients: bool) -> Iterator[None]:
    """With or without gradients, compiled functions as plain Python, the random state given back."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.set_grad_enabled(gradients))
        if "torch._dynamo" in sys.modules:  # nothing can be compiled before it is imported, which takes a second
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        state = torch.get_rng_state()
        stack.callback(torch.set_rng_state, state)
        yield
