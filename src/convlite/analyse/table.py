"""What a model costs, as one frozen value: rows that add up, and what could not be counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError
from ..kinds import Conv

Shape = tuple[int, ...]
SUMS = ("calls", "params", "macs", "other_ops", "weight_bytes", "input_bytes", "output_bytes")


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of operation in one module.

    Arguments:
        path: the module's name in the model, "" for the model itself. Operations that a forward makes by
            itself, and no module of its own, are rows of the module whose forward it is.
        type: the module's class.
        op: the operation; "" for parameters that no operation of their own module reads.
        calls: how often it ran in one forward; everything but `params` is the sum over them.
        params: parameters of this module that it is the first to read, each counted once in the whole table.
        macs: multiply-accumulates of convolutions, matrix products and attention.
        other_ops: element operations of everything else, never mixed with `macs`.
        weight_bytes, input_bytes, output_bytes: bytes it reads and writes.
        input_shape, output_shape: of the first tensor it reads, and writes, batch included.
        conv: for a 2-D convolution that is not transposed, its exact sizes.
        note: what is out of the ordinary: called twice, weights shared, not counted.
    """

    path: str
    type: str
    op: str
    calls: int
    params: int
    macs: int
    other_ops: int
    weight_bytes: int
    input_bytes: int
    output_bytes: int
    input_shape: Shape
    output_shape: Shape
    conv: Conv | None = None
    note: str = ""

    @property
    def bytes(self) -> int:
        """All bytes it moves when nothing stays in a cache."""
        return self.weight_bytes + self.input_bytes + self.output_bytes

    @property
    def intensity(self) -> float:
        """Multiply-accumulates per byte moved."""
        return self.macs / self.bytes if self.bytes else 0.0


@dataclass(frozen=True, slots=True)
class Sum:
    """The cost of a module with all modules within: the sum of its rows and theirs."""

    path: str
    type: str
    depth: int
    calls: int
    params: int
    macs: int
    other_ops: int
    weight_bytes: int
    input_bytes: int
    output_bytes: int


@dataclass(frozen=True, slots=True)
class Unknown:
    """An operation that is not known to the count: how often it ran, where, and how much it wrote."""

    op: str
    calls: int
    elements: int
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Coverage:
    """The share, from 0 to 1, of operations and of the elements they write that are known to the count."""

    calls: float
    elements: float


@dataclass(frozen=True, slots=True)
class ConvUse:
    """How one `nn.Conv2d`, or `nn.Linear`, of a model is used.

    Arguments:
        names: every name it has in the model; the first is the one that rows carry.
        runs: how often the module was called in one forward.
        calls: each convolution that ran inside those calls, with its exact sizes.
        computed: whether any of them ran with a weight that its forward computes, and not the parameter
            itself.
        elsewhere: what read its parameters outside its own calls, as "path: operation".
    """

    names: tuple[str, ...]
    runs: int
    calls: tuple[Conv, ...]
    computed: bool
    elsewhere: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """What one forward of a model costs.

    Arguments:
        model: the model's class.
        input: each input's name, shape (batch included) and dtype.
        rows: in the order they first ran, then parameters that nothing of their own module read.
        params: parameters, each counted once however many modules share it; frozen ones too.
        frozen: those among them that need no gradient.
        buffers: elements of buffers, such as running statistics; not among `params`.
        macs: multiply-accumulates; those of all images where the input is a batch.
        other_ops: element operations of everything that is no multiply-accumulate.
        unknown: operations that were not counted.
        coverage: how much of the forward is known.
        modules: every module's path and class, parents first.
        idle: modules with parameters that never ran, and whose parameters nothing else read.
        convs: how each `nn.Conv2d` is used, by the path its rows carry.
        linears: how each `nn.Linear` is, as the 1×1 convolution of a column of pixels, its rows.
    """

    model: str
    input: tuple[Mapping[str, Any], ...]
    rows: tuple[Row, ...]
    params: int
    frozen: int
    buffers: int
    macs: int
    other_ops: int
    unknown: tuple[Unknown, ...]
    coverage: Coverage
    modules: Mapping[str, str]
    idle: tuple[str, ...]
    convs: Mapping[str, ConvUse]
    linears: Mapping[str, ConvUse] = field(default_factory=dict)

    def by_module(self, depth: int | None = None) -> dict[str, Sum]:
        """Each module with everything within it, parents first.

        Arguments:
            depth: how many levels below the model; all where left out.
        """
        totals = {path: dict.fromkeys(SUMS, 0) for path in self.modules}
        for row in self.rows:
            for path in _ancestors(row.path):
                for name in SUMS:
                    totals[path][name] += getattr(row, name)
        return {
            path: Sum(path=path, type=kind, depth=_depth(path), **totals[path])
            for path, kind in self.modules.items()
            if depth is None or _depth(path) <= depth
        }

    def top(self, count: int, by: str = "macs") -> tuple[Row, ...]:
        """The `count` rows with the most of `by`, largest first."""
        return tuple(sorted(self.rows, key=lambda row: -getattr(row, by))[:count])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "model": self.model,
            "input": [dict(one) for one in self.input],
            "params": self.params,
            "frozen": self.frozen,
            "buffers": self.buffers,
            "macs": self.macs,
            "other_ops": self.other_ops,
            "coverage": dataclasses.asdict(self.coverage),
            "unknown": [{**dataclasses.asdict(one), "paths": list(one.paths)} for one in self.unknown],
            "idle": list(self.idle),
            "modules": dict(self.modules),
            "rows": [_plain(row) for row in self.rows],
            "convs": {path: _use_to_dict(use) for path, use in self.convs.items()},
            "linears": {path: _use_to_dict(use) for path, use in self.linears.items()},
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Table:
        """The table that `to_dict` was asked of; what else stands in `found` is left out.

        Raises:
            InputError: it is no such dictionary.
        """
        try:
            return cls(
                **{name: found[name] for name in ("model", "params", "frozen", "buffers", "macs", "other_ops")},
                input=tuple(dict(one) for one in found["input"]),
                rows=tuple(_row(one) for one in found["rows"]),
                unknown=tuple(Unknown(**{**one, "paths": tuple(one["paths"])}) for one in found["unknown"]),
                coverage=Coverage(**found["coverage"]),
                modules=dict(found["modules"]),
                idle=tuple(found["idle"]),
                convs={path: _use(one) for path, one in found["convs"].items()},
                linears={path: _use(one) for path, one in found.get("linears", {}).items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"This is no report of what a model costs ({type(error).__name__}: {error}): "
                "save one with convlite cost MODEL --json."
            ) from error

    def to_html(self) -> str:
        """A page that needs nothing else; see `formats`."""
        from .formats import to_html  # which knows this class

        return to_html(self.to_dict())


def _plain(row: Row) -> dict[str, Any]:
    values = {field.name: getattr(row, field.name) for field in dataclasses.fields(row)}
    values["input_shape"], values["output_shape"] = list(row.input_shape), list(row.output_shape)
    values["conv"] = None if row.conv is None else conv_to_dict(row.conv)
    return {**values, "bytes": row.bytes, "intensity": row.intensity}


def _row(found: Mapping[str, Any]) -> Row:
    values = {field.name: found[field.name] for field in dataclasses.fields(Row)}
    values["input_shape"], values["output_shape"] = tuple(found["input_shape"]), tuple(found["output_shape"])
    values["conv"] = None if found["conv"] is None else _conv(found["conv"])
    return Row(**values)


def _use_to_dict(use: ConvUse) -> dict[str, Any]:
    return {**dataclasses.asdict(use), "calls": [conv_to_dict(conv) for conv in use.calls]}


def _use(found: Mapping[str, Any]) -> ConvUse:
    return ConvUse(
        names=tuple(found["names"]),
        runs=found["runs"],
        calls=tuple(_conv(one) for one in found["calls"]),
        computed=found["computed"],
        elsewhere=tuple(found["elsewhere"]),
    )


def _conv(found: Mapping[str, Any]) -> Conv:
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}
    return Conv(**values)


def conv_to_dict(conv: Conv) -> dict[str, Any]:
    """A convolution's sizes as plain JSON types."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(conv).items()}


def _ancestors(path: str) -> Iterator[str]:
    """The path itself and all that contain it, "" last."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""


def _depth(path: str) -> int:
    return path.count(".") + 1 if path else 0
