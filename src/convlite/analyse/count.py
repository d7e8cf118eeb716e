"""`analyse`: what one forward of a model costs, counted without running it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from .. import kinds
from ..kinds import Conv
from . import inputs as given
from .borrow import Borrowed, borrowed, unwrap
from .table import ConvUse, Coverage, Row, Table, Unknown
from .trace import Call, Trace


def analyse(model: nn.Module, input: Any) -> Table:
    """What one forward of `model` costs, layer by layer.

    The forward runs once on the meta device, in eval mode and without gradients: nothing is computed, so
    that the largest networks take milliseconds. The model is left exactly as it was, whatever happens.

    Arguments:
        model: any `nn.Module`; one from `torch.compile` or `DistributedDataParallel` is unwrapped.
        input: a shape without the batch, `(3, 224, 224)`; or a tensor, batch included; or a tuple of them
            for several inputs; or a dictionary of named ones.

    Returns:
        A `Table`: rows, totals, and what was not counted.

    Raises:
        InputError: the forward fails on such an input (the exception it raised is the cause), or its control
            flow depends on the data; a lazy layer without sizes; a scripted module.
    """
    model = unwrap(model)
    dtype = given.float_type(model)
    inputs = given.on_meta(input, dtype)
    with borrowed(model) as loan:
        parameters, trace = _Parameters(loan), Trace(loan)
        try:
            trace.run(*inputs)
        except Exception as error:  # a model may raise anything
            raise given.failure("forward", loan.modules, trace.where, inputs, error) from error
        return _table(loan, trace, parameters, inputs)


class _Parameters:
    """Whose each parameter is, by the `id` of its stand-in, before the forward; and who then reads it."""

    def __init__(self, loan: Borrowed) -> None:
        self.size: dict[int, int] = {}
        self.owner: dict[int, str] = {}  # the first module that has it
        self.of: dict[str, dict[str, int]] = {}  # all that a module has, also those that another had first
        self.names: dict[int, list[str]] = {}
        self.frozen = 0
        self.buffers = sum(buffer.numel() for buffer in loan.model.buffers())
        for path, module in loan.modules.items():
            self.of[path] = {}
            for name, tensor in module._parameters.items():
                if tensor is None:
                    continue
                self.of[path][name] = id(tensor)
                if id(tensor) not in self.owner:
                    self.owner[id(tensor)] = path
                    self.size[id(tensor)] = tensor.numel()
                    self.frozen += 0 if tensor.requires_grad else tensor.numel()
                names = self.names.setdefault(id(tensor), [])
                names += [f"{prefix}.{name}" if prefix else name for prefix in loan.names[id(module)]]
        self.unclaimed = dict(self.size)
        self.readers: dict[int, dict[tuple[str, str], None]] = {}  # (path, operation), in order

    def claim(self, call: Call) -> int:
        """How many parameters the call is the first of their own module to read."""
        claimed = 0
        for one in call.reads:
            self.readers.setdefault(one, {})[call.frame.path, call.operation.name] = None
            if self.owner[one] == call.frame.path:
                claimed += self.unclaimed.pop(one, 0)
        return claimed

    def elsewhere(self, path: str, ids: Iterable[int]) -> tuple[str, ...]:
        """What reads these parameters outside the module at `path`, as "path: operation"."""
        readers = dict.fromkeys(reader for one in ids for reader in self.readers.get(one, ()))
        return tuple(f"{where}: {op}" for where, op in readers if where != path)

    def notes(self, call: Call) -> Iterable[str]:
        for one in call.reads:
            names = self.names[one]
            if self.owner[one] != call.frame.path:
                yield f"reads {names[0]}"
            elif len(names) > 1:
                yield f"{names[0]} is also {', '.join(names[1:])}"


def _table(loan: Borrowed, trace: Trace, parameters: _Parameters, inputs: given.Inputs) -> Table:
    modules = loan.modules
    groups: dict[tuple[Any, ...], list[Call]] = {}
    claimed: dict[tuple[Any, ...], int] = {}
    for call in trace.calls:
        key = call.frame.path, call.operation.name, call.inputs[:1], call.output, call.geometry
        groups.setdefault(key, []).append(call)
        claimed[key] = claimed.get(key, 0) + parameters.claim(call)
    rows = [_row(calls, claimed[key], parameters, trace.runs) for key, calls in groups.items()]
    convs = _convs(loan, trace, rows, parameters)
    rows += _unread(modules, parameters)
    return Table(
        model=type(loan.model).__name__,
        input=given.described(inputs),
        rows=tuple(rows),
        params=sum(parameters.size.values()),
        frozen=parameters.frozen,
        buffers=parameters.buffers,
        macs=sum(row.macs for row in rows),
        other_ops=sum(row.other_ops for row in rows),
        unknown=_unknown(trace.calls),
        coverage=_coverage(trace),
        modules={path: type(module).__name__ for path, module in modules.items()},
        idle=_idle(trace.runs, parameters),
        convs=convs,
        linears=_linears(loan, trace, parameters),
    )


def _row(calls: list[Call], params: int, parameters: _Parameters, runs: dict[str, int]) -> Row:
    first = calls[0]
    path, operation = first.frame.path, first.operation
    notes = [f"module called {runs[path]} times"] if runs[path] > 1 else []
    notes += dict.fromkeys(note for call in calls for note in parameters.notes(call))
    if operation.kind == "unknown":
        notes.append("not counted")
    return Row(
        path=path,
        type=type(first.frame.module).__name__,
        op=operation.name,
        calls=len(calls),
        params=params,
        macs=sum(call.macs for call in calls),
        other_ops=sum(call.other_ops for call in calls),
        weight_bytes=sum(call.weight_bytes for call in calls),
        input_bytes=sum(call.input_bytes for call in calls),
        output_bytes=sum(call.output_bytes for call in calls),
        input_shape=first.inputs[0] if first.inputs else (),
        output_shape=first.output,
        conv=_conv(first),
        note="; ".join(notes),
    )


def _unread(modules: dict[str, nn.Module], parameters: _Parameters) -> Iterable[Row]:
    """A row for the parameters of each module that no operation of its own reads, so that all add up."""
    by_path: dict[str, list[int]] = {}
    for one in parameters.unclaimed:
        by_path.setdefault(parameters.owner[one], []).append(one)
    for path, ids in by_path.items():
        readers = parameters.elsewhere(path, ids)
        yield Row(
            path=path, type=type(modules[path]).__name__, op="", calls=0,
            params=sum(parameters.size[one] for one in ids), macs=0, other_ops=0, weight_bytes=0,
            input_bytes=0, output_bytes=0, input_shape=(), output_shape=(),
            note=f"read by {', '.join(readers)}" if readers else "never read",
        )  # fmt: skip


def _unknown(calls: list[Call]) -> tuple[Unknown, ...]:
    found: dict[str, list[Call]] = {}
    for call in calls:
        if call.operation.kind == "unknown":
            found.setdefault(call.operation.name, []).append(call)
    return tuple(
        Unknown(
            op=name,
            calls=len(same),
            elements=sum(call.elements for call in same),
            paths=tuple(dict.fromkeys(call.frame.path for call in same)),
        )
        for name, same in found.items()
    )


def _coverage(trace: Trace) -> Coverage:
    known = [call for call in trace.calls if call.operation.kind != "unknown"]
    calls, elements = len(trace.calls) + trace.free, sum(call.elements for call in trace.calls)
    return Coverage(
        calls=(len(known) + trace.free) / calls if calls else 1.0,
        elements=sum(call.elements for call in known) / elements if elements else 1.0,
    )


def _idle(runs: dict[str, int], parameters: _Parameters) -> tuple[str, ...]:
    """Modules with parameters that never ran, and whose parameters nothing else read."""
    owners = set(parameters.owner.values())
    read = {parameters.owner[one] for one in parameters.readers}
    return tuple(path for path, times in runs.items() if path in owners - read and not times)


def _convs(loan: Borrowed, trace: Trace, rows: list[Row], parameters: _Parameters) -> dict[str, ConvUse]:
    own: dict[str, list[Conv]] = {}
    for row in rows:
        if row.conv is not None:
            own.setdefault(row.path, []).extend([row.conv] * row.calls)
    computed = {
        call.frame.path
        for call in trace.calls
        if call.geometry is not None and parameters.of[call.frame.path].get("weight") not in call.reads
    }
    uses = {}
    for path, module in loan.modules.items():
        if isinstance(module, nn.Conv2d):
            uses[path] = ConvUse(
                names=tuple(loan.names[id(module)]),
                runs=trace.runs[path],
                calls=tuple(own.get(path, ())),
                computed=path in computed,
                elsewhere=parameters.elsewhere(path, parameters.of[path].values()),
            )
    return uses


def _linears(loan: Borrowed, trace: Trace, parameters: _Parameters) -> dict[str, ConvUse]:
    own: dict[str, list[Call]] = {}
    for call in trace.calls:
        if isinstance(call.frame.module, nn.Linear) and call.macs:
            own.setdefault(call.frame.path, []).append(call)
    uses = {}
    for path, module in loan.modules.items():
        if isinstance(module, nn.Linear):
            c, m, calls = module.in_features, module.out_features, own.get(path, [])
            uses[path] = ConvUse(
                names=tuple(loan.names[id(module)]),
                runs=trace.runs[path],
                calls=tuple(
                    kinds.conv(c=c, m=m, k=1, bias=module.bias is not None, h=call.macs // (c * m), w=1)
                    for call in calls
                ),
                computed=any(parameters.of[path].get("weight") not in call.reads for call in calls),
                elsewhere=parameters.elsewhere(path, parameters.of[path].values()),
            )
    return uses


def _conv(call: Call) -> Conv | None:
    """The convolution that an operation is, as its module states it where that pads by itself."""
    if call.geometry is None:
        return None
    (m, c, *kernel), stride, padding, dilation, transposed, groups, bias = call.geometry
    if transposed or len(kernel) != 2:
        return None
    h, w = call.inputs[0][-2:]
    module = call.frame.module
    if isinstance(module, nn.Conv2d) and _is_torchs(module):
        if module.padding == "same":
            return kinds.conv_of(module, *call.output[-2:])
        if module.padding_mode != "zeros" and not isinstance(module.padding, str):
            return kinds.conv_of(module, h - 2 * module.padding[0], w - 2 * module.padding[1])
    return kinds.conv(
        c=c * groups, m=m, k=tuple(kernel), stride=_pair(stride), padding=_pair(padding),
        dilation=_pair(dilation), groups=groups, bias=bias, h=h, w=w,
    )  # fmt: skip


def _is_torchs(module: nn.Conv2d) -> bool:
    """Whether its forward is torch's own, so that it pads in no other way than its attributes say."""
    cls = type(module)
    return cls.forward is nn.Conv2d.forward and cls._conv_forward is nn.Conv2d._conv_forward


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    return values[0], values[-1]
