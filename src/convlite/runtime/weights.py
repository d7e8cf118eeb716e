"""Weights in sixteen bits, widened again where they are used: half the file, and nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import InputError, need

_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def rounded_(model: nn.Module, precision: str) -> nn.Module:
    """Round the weights, in place, to what sixteen bits hold; biases stay, which are few and add up.

    Raises:
        InputError: a weight lies outside the range of fp16.
    """
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            short = weight.data.to(_TYPES[precision]).float()
            if not bool(short.isfinite().all()):
                raise InputError(f"{name} holds numbers beyond the range of {precision}: use bf16 or fp32.")
            weight.data = short
    return model


def halve(graph: Any, precision: str) -> Any:
    """A copy of an ONNX model that keeps in sixteen bits all weights for which they are enough."""
    onnx, number = need("onnx", "ship"), np.float16 if precision == "fp16" else need("ml_dtypes", "ship").bfloat16
    short = onnx.ModelProto()
    short.CopyFrom(graph)
    casts = []
    for tensor in short.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        values, name = onnx.numpy_helper.to_array(tensor), tensor.name
        halves = values.astype(number)
        if (halves.astype(np.float32) == values).all():
            tensor.CopyFrom(onnx.numpy_helper.from_array(halves, f"{name}/{precision}"))
            casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *short.graph.node]
    del short.graph.node[:]
    short.graph.node.extend(nodes)
    return short
