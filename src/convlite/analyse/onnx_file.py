"""The same table from an ONNX file as from a torch network: its graph, with the shapes that ONNX itself infers."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from ..errors import InputError, need
from ..kinds import Conv, conv
from . import onnx_ops as ops
from .inputs import Spec
from .table import ConvUse, Coverage, Row, Shape, Table, Unknown

_LARGE = 1 << 10  # numbers; no shape is computed from a tensor of more
_SAME_WEIGHT = ("Identity", "Cast", "DequantizeLinear", "Transpose", "Reshape", "Squeeze", "Unsqueeze")


def read_onnx(file: Path, input: Sequence[Spec] = (), batch: int = 1) -> Table:
    """What one run of an ONNX graph costs.

    Weights are not read, so that a file of any size takes seconds. Parameters are the constants of floating point
    or of 8 bits and less that operators learn; scales, zero points and other settings are none.

    Arguments:
        input: sizes of its inputs where the file leaves them free, in order or by name.
        batch: the first size of inputs where the file leaves that free.

    Raises:
        InputError: no ONNX file; a size that is free and not given, or given and not what the file says.
    """
    onnx = need("onnx", "ship")
    model = _loaded(onnx, file)
    _fix_inputs(model.graph, input, batch)
    try:
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise InputError(f"The shapes in {file} don't fit one another or the input: {reason}.") from error
    return _Walk(onnx, model.graph).table()


def _loaded(onnx: Any, file: Path) -> Any:
    from google.protobuf.message import DecodeError  # which onnx is made with

    try:
        model = onnx.load(file, load_external_data=False)
    except OSError as error:
        raise InputError(f"Can't read {file}: {error.strerror or error}.") from error
    except DecodeError as error:
        raise InputError(f"{file} is no ONNX file, or it is cut short.") from error
    if not model.graph.node:
        raise InputError(f"{file} holds no ONNX graph.")
    for tensor in model.graph.initializer:
        if prod(tensor.dims) > _LARGE:
            for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
                tensor.ClearField(field)
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def _fix_inputs(graph: Any, specs: Sequence[Spec], batch: int) -> None:
    """Write the sizes that are given into the graph; what it says of values in between no longer holds then."""
    constants = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: value.type.tensor_type.shape.dim for value in graph.input if value.name not in constants}
    if len(specs) > len(inputs):
        raise InputError(f"The file takes {', '.join(inputs)}: given {len(specs)} inputs.")
    given: dict[str, tuple[int, ...]] = {}
    for name, spec in zip(inputs, specs):
        if spec.name and spec.name not in inputs:
            raise InputError(f"The file has no input {spec.name!r}: it takes {', '.join(inputs)}.")
        given[spec.name or name] = spec.shape
    changed = False
    for name, dims in inputs.items():
        wanted = (batch, *given[name]) if name in given else (batch,)
        if name in given and len(wanted) != len(dims):
            raise InputError(f"The input {name!r} has {len(dims)} sizes with the batch, given {len(wanted)}.")
        for i, dim in enumerate(dims):
            size = wanted[i] if i < len(wanted) else 0
            if dim.dim_value:
                free_batch = i == 0 and batch == 1
                if size not in (0, dim.dim_value) and not free_batch:
                    raise InputError(f"Size {i} of the input {name!r} is {dim.dim_value}, given {size}.")
            elif not size:
                what = f" ({dim.dim_param})" if dim.dim_param else ""
                raise InputError(f"Size {i}{what} of the input {name!r} is free: give sizes with --input.")
            else:
                dim.dim_value = size
                changed = True
    if changed:
        del graph.value_info[:]
        for value in graph.output:
            value.type.tensor_type.ClearField("shape")


@dataclass(frozen=True, slots=True)
class _Value:
    """A tensor of the graph: its shape and the bytes of one number."""

    shape: Shape
    itemsize: int
    kind: str

    @property
    def bytes(self) -> int:
        return prod(self.shape) * self.itemsize


class _Walk:
    """Goes through a graph once, in the order its operators run."""

    def __init__(self, onnx: Any, graph: Any) -> None:
        self.onnx, self.graph = onnx, graph
        self.values: dict[str, _Value] = {}
        self.stored = {tensor.name: tensor.name for tensor in graph.initializer}  # and what is made of nothing else
        self.rows: list[Row] = []
        self.modules: dict[str, str] = {"": graph.name or "graph"}
        self.readers: dict[str, list[str]] = {}  # stored tensor → the paths that read it as a parameter
        self.unclaimed: dict[str, int] = {}
        self.buffers: dict[str, int] = {}
        self.convs: dict[str, list[tuple[str | None, Conv]]] = {}
        self.missing: dict[str, list[tuple[str, int]]] = {}
        for tensor in graph.initializer:
            self.values[tensor.name] = self._value(tensor.dims, tensor.data_type)
        for info in (*graph.input, *graph.value_info, *graph.output):
            tensor = info.type.tensor_type
            dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
            if info.name not in self.values and tensor.HasField("shape") and min(dims, default=0) >= 0:
                self.values[info.name] = self._value(dims, tensor.elem_type)

    def _value(self, dims: Iterable[int], elem_type: int) -> _Value:
        kind = self.onnx.helper.tensor_dtype_to_np_dtype(elem_type)
        return _Value(tuple(dims), kind.itemsize, str(kind))

    def table(self) -> Table:
        constants = set(self.stored)
        inputs = [one.name for one in self.graph.input if one.name not in constants]
        for node in self.graph.node:
            self._visit(node)
        calls, lost = len(self.graph.node), sum(map(len, self.missing.values()))
        elements = sum(n for found in self.missing.values() for _, n in found)
        written = sum(prod(row.output_shape) for row in self.rows)
        return Table(
            model=self.modules[""],
            input=tuple(
                {"name": name, "shape": list(self.values[name].shape), "dtype": self.values[name].kind}
                for name in inputs
                if name in self.values
            ),
            rows=tuple(self.rows),
            params=sum(row.params for row in self.rows),
            frozen=0,
            buffers=sum(self.buffers.values()),
            macs=sum(row.macs for row in self.rows),
            other_ops=sum(row.other_ops for row in self.rows),
            unknown=tuple(
                Unknown(op, len(found), sum(n for _, n in found), tuple(dict.fromkeys(path for path, _ in found)))
                for op, found in self.missing.items()
            ),
            coverage=Coverage(1 - lost / calls, 1 - elements / written if written else float(not lost)),
            modules=self.modules,
            idle=(),
            convs={path: self._use(path, found) for path, found in self.convs.items()},
        )

    def _visit(self, node: Any) -> None:
        attributes = {one.name: self.onnx.helper.get_attribute_value(one) for one in node.attribute}
        op = node.op_type
        if op == "Constant":
            return
        kernel = self._kernel(node)
        path = self._place(node, kernel)
        if op in _SAME_WEIGHT and node.input[0] in self.stored:
            self.stored[node.output[0]] = self.stored[node.input[0]]
            return  # done once, when the file is loaded
        if ops.is_free(op):
            return
        names = [name for name in node.output if name]
        read = [self.values.get(name) for name in node.input]
        needed = [*node.input[: ops.needed(op, len(node.input))], *(() if ops.moves(op) else names)]
        known = all(name in self.values for name in needed if name)
        out = self.values.get(node.output[0], _Value((), 0, ""))
        shapes = [() if one is None else one.shape for one in read]
        own = node.domain in ("", "ai.onnx")
        others = ops.other_ops(op, shapes, out.shape, attributes) if own and known else None
        params, weight_bytes = self._claim(node, path)
        if others is None:
            label = op if own else f"{node.domain}.{op}"
            self.missing.setdefault(label, []).append((path, prod(out.shape) if out.kind else 0))
        value = self._conv(node, shapes, out.shape, attributes) if own and known else None
        if value is not None:
            self.convs.setdefault(path, []).append((kernel, value))
        self.rows.append(
            Row(
                path=path, type=self.modules[path], op="conv" if op == "ConvTranspose" else op.lower(), calls=1,
                params=params,
                macs=0 if others is None else ops.macs(op, shapes, out.shape, attributes),
                other_ops=others or 0,
                weight_bytes=weight_bytes,
                input_bytes=sum(
                    one.bytes for name, one in zip(node.input, read) if one is not None and name not in self.stored
                ),
                output_bytes=sum(self.values[name].bytes for name in names if name in self.values),
                input_shape=shapes[0] if shapes else (), output_shape=out.shape, conv=value,
                note="not counted" if others is None else "" if out.kind else "size not known",
            )
        )  # fmt: skip

    def _kernel(self, node: Any) -> str | None:
        """The stored tensor that it reads as its weight."""
        index = ops.WEIGHT.get(node.op_type, 1)
        name = node.input[index] if len(node.input) > index else ""
        return self.stored.get(name)

    def _place(self, node: Any, kernel: str | None) -> str:
        """The module that an operator comes from, as its exporter tells it."""
        told = {one.key: one.value for one in node.metadata_props}
        scopes = _list(told.get("pkg.torch.onnx.name_scopes"))
        classes = [name.rpartition(".")[2] for name in _list(told.get("pkg.torch.onnx.class_hierarchy"))]
        types = dict(zip(scopes, classes))
        if kernel is not None and kernel.endswith(".weight"):
            path = kernel.removesuffix(".weight")  # also where an optimiser melted two modules into one
        elif scopes:
            path = scopes[-2] if len(scopes) > 1 else ""
        else:
            scope = [part for part in node.name.split("/") if part]
            path = ".".join(scope[:-1]) or node.name or node.output[0]
        taken = self.convs.get(path)
        if taken and node.op_type == "Conv" and taken[0][0] != kernel:
            path = f"{path}.{node.name or node.output[0]}"
        if "" in types:
            self.modules[""] = types[""]
        parts = path.split(".") if path else []
        for i in range(1, len(parts) + 1):
            above = ".".join(parts[:i])
            self.modules.setdefault(above, types.get(above, node.op_type if above == path else ""))
        return path

    def _claim(self, node: Any, path: str) -> tuple[int, int]:
        """Parameters that it is the first to read, and the bytes of all that it reads."""
        op, claimed, size = node.op_type, 0, 0
        for i, name in enumerate(node.input):
            stored = self.stored.get(name)
            if stored is None or i in ops.NOT_LEARNT.get(op, ()):
                continue
            value = self.values[stored]
            if not value.shape or not (value.itemsize == 1 or "float" in value.kind):
                continue
            size += value.bytes
            if i in ops.STATISTICS.get(op, ()):
                self.buffers[stored] = prod(value.shape)
                continue
            readers = self.readers.setdefault(stored, [])
            claimed += 0 if readers else prod(value.shape)
            readers.append(path)
        return claimed, size

    def _conv(self, node: Any, shapes: Sequence[Shape], out: Shape, attributes: ops.Attributes) -> Conv | None:
        """The exact sizes of a 2-D convolution, unless it pads its sides unevenly."""
        index = ops.WEIGHT.get(node.op_type, 1)
        if node.op_type not in ("Conv", "ConvInteger", "QLinearConv"):
            return None
        groups = attributes.get("group", 1)
        if shapes[0][1] != shapes[index][1] * groups:  # which ONNX does not look at
            raise InputError(
                f"{node.name or node.output[0]} takes {shapes[index][1] * groups} channels, given {shapes[0][1]}."
            )
        if len(shapes[index]) != 4:
            return None
        (m, _, *k), (_, channels, h, w) = shapes[index], shapes[0]
        stride, dilation = ((*attributes.get(name, (1, 1)),) for name in ("strides", "dilations"))
        before = attributes.get("pads", (0, 0, 0, 0))[:2]
        bias = sum(1 for name in node.input if name) > {"Conv": 2, "QLinearConv": 8, "ConvInteger": 4}[node.op_type]
        for padding in (tuple(before), "same"):
            if padding == "same" and stride != (1, 1):
                continue
            value = conv(
                c=channels, m=m, k=(k[0], k[1]), stride=stride, padding=padding, dilation=dilation,
                groups=groups, bias=bias, h=h, w=w,
            )  # fmt: skip
            fits = all(value.h + 2 * p > value.extent(i) for i, p in enumerate(before)) or padding == "same"
            if fits and value.out_size == tuple(out[2:]):
                return value
        return None

    def _use(self, path: str, found: list[tuple[str | None, Conv]]) -> ConvUse:
        kernel = found[0][0]
        others = () if kernel is None else tuple(dict.fromkeys(one for one in self.readers[kernel] if one != path))
        return ConvUse((path,), len(found), tuple(one for _, one in found), kernel is None, others)


def _list(text: str | None) -> list[str]:
    return [] if text is None else [str(one) for one in ast.literal_eval(text)]
