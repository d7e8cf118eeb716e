"""Weights rounded to integers so that what a layer gives stays near, and not each weight by itself.

Column after column of a layer's weight is rounded, and what that changes in the outputs is made up for in those
still to come, as far as the inputs' second moments allow: optimal brain quantisation (Frantar & Alistarh 2022) in
one order for all rows (GPTQ: Frantar et al. 2022, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.progress import track
from ..errors import need
from .exported import INPUT

RIDGE = 0.01  # of the inputs' mean power, as in GPTQ: less than that in a direction is more chance than knowledge
LARGEST = 2**13  # numbers that a group may read: moments of more would take gigabytes
ROWS, LEAST_ROWS = 8, 2**13  # sampled patches: for each number that a group reads, and at least
ROUNDINGS = 1e-5  # of the power about near the mean: float32 knows covariances no better
PAIRED = 64  # the largest integer of which two products with 8 bits have room in 16 (see `quantise`)
_BATCH = 8
_BLOCK = 128


def nearest(weight: Tensor, second: Tensor, scale: Tensor, limit: float) -> Tensor:
    """Integers from -limit to limit, (G, m, D), that times their scale do to a layer's inputs what its weight does.

    Arguments:
        weight: (G, m, D), of G groups.
        second: second moments of what each group reads, (G, D, D).
        scale: (G, m, 1).
    """
    d = weight.shape[2]
    power = second.diagonal(dim1=1, dim2=2)  # (G, D)
    order = power.argsort(dim=1, descending=True)  # the largest first, while most can still make up for them
    moments = second.gather(1, order[:, :, None].expand_as(second)).gather(2, order[:, None].expand_as(second))
    moments.diagonal(dim1=1, dim2=2).add_((RIDGE * power.mean(1, keepdim=True)).clamp_min(1e-30))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    factor = torch.linalg.cholesky(inverse).mT  # (G, D, D), upper
    there = order[:, None].expand_as(weight)
    left, found = weight.gather(2, there), torch.empty_like(weight)  # (G, m, D)
    for start in range(0, d, _BLOCK):
        stop = min(start + _BLOCK, d)
        errors = torch.empty_like(left[:, :, start:stop])
        for i in range(start, stop):
            column = left[:, :, i : i + 1]  # (G, m, 1)
            found[:, :, i : i + 1] = (column / scale).round().clamp(-limit, limit)
            error = (column - found[:, :, i : i + 1] * scale) / factor[:, i : i + 1, i : i + 1]
            left[:, :, i + 1 : stop] -= error * factor[:, i : i + 1, i + 1 : stop]
            errors[:, :, i - start] = error[:, :, 0]
        left[:, :, stop:] -= errors @ factor[:, start:stop, stop:]
    return torch.empty_like(found).scatter_(2, there, found)


def round_(quantised: Any, plain: Any, images: Tensor) -> None:
    """Round the weights of a quantised ONNX model anew, in place, for what its layers read of the images.

    Scales stay as they are, but where a grouped layer's weights are too large for processors that add products in
    pairs. Biases make up for what is left of the roundings' effect on an output's mean.

    Arguments:
        plain: the model that it was made from, whose nodes have the same names.
        images: float32 (N, C, H, W).
    """
    onnx = need("onnx", "ship")
    read, write = onnx.numpy_helper.to_array, onnx.numpy_helper.from_array
    numbers, originals = _numbers(quantised), _numbers(plain)
    layers = list(_layers(quantised, plain))
    moments = _moments(plain, layers, images)
    for layer, (varied, mean) in track(zip(layers, moments), len(layers), "rounding weights"):
        integers, scale, bias = numbers[layer.integers], numbers[layer.scale], numbers.get(layer.bias)
        before = layer.grouped(read(integers))  # (G, m, D)
        weight = layer.grouped(read(originals[layer.node.input[1]]))
        limit = float(before.abs().max())
        if limit > PAIRED and not layer.depthwise:  # a grouped one, which NNCF takes for depthwise
            scale.CopyFrom(write(read(scale) * np.float32(limit / PAIRED), scale.name))
            limit = PAIRED
        steps = torch.from_numpy(read(scale).astype(np.float64)).expand(weight.shape[0] * weight.shape[1])
        steps = steps.reshape(*weight.shape[:2], 1)
        second = varied if bias is not None else varied + mean[:, :, None] * mean[:, None]
        after = nearest(weight, second, steps, limit)
        integers.CopyFrom(write(layer.whole(after, integers.dims), integers.name))
        if bias is not None:
            change = ((weight - after * steps) @ mean[:, :, None]).flatten()  # (M,)
            bias.CopyFrom(write(read(bias) + change.float().numpy(), bias.name))


@dataclass(frozen=True)
class _Layer:
    node: Any  # of the plain model
    integers: str  # initializers of the quantised one
    scale: str
    bias: str
    groups: int
    columns: int  # D, the numbers that a group reads
    depthwise: bool  # a group reads one channel: no products are added in pairs
    turned: bool  # the weight is (D, M)

    def grouped(self, weight: np.ndarray) -> Tensor:
        """(M, ...) or (D, M) as (G, m, D), float64."""
        each = torch.from_numpy(weight.astype(np.float64))
        each = each.T if self.turned else each
        return each.reshape(self.groups, len(each) // self.groups, -1)

    def whole(self, weight: Tensor, shape: Iterable[int]) -> np.ndarray:
        """And back, int8."""
        each = weight.flatten(0, 1).to(torch.int8)
        return (each.T if self.turned else each).reshape(*shape).contiguous().numpy()

    def reads(self, x: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Up to `count` patches that it reads of (N, C, H, W), or rows of (..., D): (G, rows, D)."""
        if self.node.op_type != "Conv":
            rows = x.flatten(0, -2)
            rows = rows[torch.randperm(len(rows), generator=generator)[:count]]
            return rows.unflatten(1, (self.groups, -1)).transpose(0, 1)
        said = {each.name: tuple(each.ints) for each in self.node.attribute}
        top, left, bottom, right = said.get("pads", (0, 0, 0, 0))
        steps = said.get("dilations", (1, 1)), (0, 0), said.get("strides", (1, 1))
        found, each = [], math.ceil(count / len(x))
        for one in F.pad(x, (left, right, top, bottom)).split(1):  # all patches of many images are gigabytes
            patches = F.unfold(one, said["kernel_shape"], *steps)[0]  # (G·D, H'·W')
            found.append(patches[:, torch.randperm(patches.shape[1], generator=generator)[:each]])
        return torch.cat(found, 1).unflatten(0, (self.groups, -1)).mT


def _numbers(model: Any) -> Mapping[str, Any]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def _layers(quantised: Any, plain: Any) -> Iterator[_Layer]:
    """Those whose weights are integers in the quantised model."""
    numbers, nodes = _numbers(quantised), {node.name: node for node in quantised.graph.node}
    made = {node.output[0]: node for node in quantised.graph.node if node.op_type == "DequantizeLinear"}
    for node in plain.graph.node:
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.name not in nodes:
            continue
        inputs = nodes[node.name].input
        source = made.get(inputs[1])
        if source is None or source.input[0] not in numbers:
            continue
        said, shape = {each.name: each.i for each in node.attribute}, numbers[source.input[0]].dims
        turned = node.op_type == "MatMul" or (node.op_type == "Gemm" and not said.get("transB"))
        columns = shape[0] if turned else math.prod(shape[1:])
        if columns <= LARGEST:
            bias = inputs[2] if len(inputs) > 2 else ""
            integers, scale = source.input[:2]
            groups, depthwise = said.get("group") or 1, node.op_type == "Conv" and shape[1] == 1
            yield _Layer(node, integers, scale, bias, groups, columns, depthwise, turned)


def _moments(plain: Any, layers: Sequence[_Layer], images: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of what each layer reads of the images: covariances (G, D, D) and means (G, D), float64.

    Sums are taken about the mean of the first images: in float32 nothing would be left of small changes of much.
    """
    onnx, onnxruntime = need("onnx", "ship"), need("onnxruntime", "ship")
    model = onnx.ModelProto()
    model.CopyFrom(plain)
    names = sorted({layer.node.input[0] for layer in layers} - {INPUT})
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    sums = [_Sums() for _ in layers]
    parts = images.split(_BATCH)
    for part in track(parts, len(parts), "what layers read"):
        given = {INPUT: part.numpy()}
        found = given | (dict(zip(names, session.run(names, given))) if names else {})
        for layer, total in zip(layers, sums):
            count = math.ceil(max(LEAST_ROWS, ROWS * layer.columns) / len(parts))
            total.add(layer.reads(torch.from_numpy(found[layer.node.input[0]]), count, generator))
    return [total.moments() for total in sums]


class _Sums:
    """Over rows (G, rows, D), about the mean of the first ones."""

    def __init__(self) -> None:
        self._rows, self._about, self._first, self._second = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())

    def add(self, x: Tensor) -> None:
        if not self._rows:
            self._about = x.mean(1, keepdim=True)  # (G, 1, D)
        x = x - self._about
        self._second = self._second + (x.mT @ x).double()
        self._first = self._first + x.sum(1).double()
        self._rows += x.shape[1]

    def moments(self) -> tuple[Tensor, Tensor]:
        second, first = self._second / self._rows, self._first / self._rows  # (G, D, D), (G, D)
        varied = second - first[:, :, None] * first[:, None]
        power = second.diagonal(dim1=1, dim2=2).mean(1, keepdim=True)  # (G, 1)
        varied.diagonal(dim1=1, dim2=2).add_(ROUNDINGS * power)
        return varied, first + self._about[:, 0].double()
