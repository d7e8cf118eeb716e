"""What the commonest operations return on the meta device, without computing it in torch.

Torch's own shape functions for batch normalisation, convolution and element-wise operations are written in
Python: they take milliseconds where a count needs microseconds, and the first call imports a compiler. Each
rule here gives the tensor that torch would give (shape, dtype and strides), or None where the case is not the
plain one; then torch is asked, and raises its own error where the shapes don't fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Rule = Callable[[tuple[Any, ...]], Any]
aten = torch.ops.aten


def _new(like: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device="meta")  # contiguous; ten times faster than new_empty


def _convolution(args: tuple[Any, ...]) -> Tensor | None:
    x, weight, bias, stride, padding, dilation, transposed, _, groups = args
    shape, kernel = x.shape, weight.shape
    dims = len(kernel) - 2
    plain = not transposed and len(shape) == dims + 2 and x.dtype == weight.dtype and x.is_contiguous()
    if (
        not plain
        or shape[1] != kernel[1] * groups
        or kernel[0] % groups
        or not len(stride) == len(dilation) == dims
    ):
        return None
    if bias is not None and (bias.shape != kernel[:1] or bias.dtype != x.dtype):
        return None
    out = [shape[0], kernel[0]]
    for i in range(dims):
        pad = padding[i] if len(padding) > 1 else padding[0]
        spare = shape[i + 2] + 2 * pad - dilation[i] * (kernel[i + 2] - 1) - 1
        if spare < 0 or not shape[i + 2]:
            return None
        out.append(spare // stride[i] + 1)
    return _new(x, out)


def _max_pool2d(args: tuple[Any, ...]) -> tuple[Tensor, Tensor] | None:
    x, kernel, stride, padding, dilation, ceil = [*args, *_POOL_DEFAULTS[len(args) - 2 :]]
    if ceil or x.dim() != 4 or not x.is_contiguous():
        return None
    out = [*x.shape[:2]]
    for i in (0, 1):
        k, s, p, d = (values[i % len(values)] for values in (kernel, stride or kernel, padding, dilation))
        spare = x.shape[i + 2] + 2 * p - d * (k - 1) - 1
        if spare < 0 or 2 * p > k:
            return None
        out.append(spare // s + 1)
    return _new(x, out), torch.empty(out, dtype=torch.int64, device="meta")


_POOL_DEFAULTS: list[Any] = [[], [0], [1], False]


def _mean(args: tuple[Any, ...]) -> Tensor | None:
    x, dims, keep = [*args, False][:3]
    if (
        not dims
        or not x.is_floating_point()
        or not x.is_contiguous()
        or not all(-x.dim() <= d < x.dim() for d in dims)
    ):
        return None
    reduced = {d % x.dim() for d in dims}
    if len(reduced) < len(dims):
        return None
    return _new(x, [1 if i in reduced else n for i, n in enumerate(x.shape) if keep or i not in reduced])


def _batch_norm(args: tuple[Any, ...]) -> tuple[Tensor, Tensor, Tensor] | None:
    x, *vectors, training, _momentum, _eps = args
    if training or x.dim() < 2 or not x.is_floating_point() or not x.is_contiguous():
        return None
    if any(v is not None and (v.shape != x.shape[1:2] or v.dtype != x.dtype) for v in vectors):
        return None
    nothing = _new(x, (0,))  # a processor keeps no statistics in eval mode
    return _new(x, x.shape), nothing, nothing


def _unary(args: tuple[Any, ...]) -> Tensor | None:
    x = args[0]
    return _new(x, x.shape) if x.is_floating_point() and x.is_contiguous() else None


def _unary_(args: tuple[Any, ...]) -> Tensor:
    return args[0]


def _fits(a: Any, b: Any) -> bool:
    """Whether `b` broadcasts to `a` without changing anything about it."""
    if not isinstance(a, Tensor) or not a.is_floating_point():
        return False
    if not isinstance(b, Tensor):
        return isinstance(b, (int, float))
    if a.dtype != b.dtype or b.dim() > a.dim():
        return False
    return all(n in (1, m) for m, n in zip(reversed(a.shape), reversed(b.shape)))


def _binary(args: tuple[Any, ...]) -> Tensor | None:
    a, b = args[:2]
    return _new(a, a.shape) if _fits(a, b) and a.is_contiguous() else None


def _binary_(args: tuple[Any, ...]) -> Tensor | None:
    a, b = args[:2]
    return a if _fits(a, b) else None


def _addmm(args: tuple[Any, ...]) -> Tensor | None:
    bias, a, b = args[:3]
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0] or not a.dtype == b.dtype == bias.dtype:
        return None
    if bias.shape not in ((b.shape[1],), (a.shape[0], b.shape[1])):
        return None
    return _new(a, (a.shape[0], b.shape[1]))


def _layer_norm(args: tuple[Any, ...]) -> tuple[Tensor, Tensor, Tensor] | None:
    x, normalized, weight, bias, _eps = args
    dims = len(normalized)
    if list(x.shape[x.dim() - dims :]) != list(normalized) or not x.is_contiguous() or x.dtype != torch.float32:
        return None
    if any(v is not None and (list(v.shape) != list(normalized) or v.dtype != x.dtype) for v in (weight, bias)):
        return None
    statistics = [*x.shape[: x.dim() - dims], *[1] * dims]
    return _new(x, x.shape), _new(x, statistics), _new(x, statistics)


RULES: dict[Any, Rule] = {
    aten.convolution.default: _convolution,
    aten.native_batch_norm.default: _batch_norm,
    aten.native_layer_norm.default: _layer_norm,
    aten.addmm.default: _addmm,
    aten.max_pool2d_with_indices.default: _max_pool2d,
    aten.mean.dim: _mean,
    **dict.fromkeys(
        (
            aten.relu.default, aten.gelu.default, aten.silu.default, aten.hardswish.default,
            aten.hardsigmoid.default, aten.hardtanh.default, aten.sigmoid.default, aten.tanh.default,
            aten.leaky_relu.default, aten.elu.default,
        ),
        _unary,
    ),
    **dict.fromkeys(
        (
            aten.relu_.default, aten.silu_.default, aten.hardswish_.default, aten.hardsigmoid_.default,
            aten.hardtanh_.default, aten.sigmoid_.default, aten.leaky_relu_.default, aten.elu_.default,
        ),
        _unary_,
    ),
    **dict.fromkeys((aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor), _binary),
    **dict.fromkeys((aten.add_.Tensor, aten.sub_.Tensor, aten.mul_.Tensor, aten.div_.Tensor), _binary_),
}  # fmt: skip
"""By overload. A rule sees positional arguments only; keywords (`alpha`, `approximate`) change no shape."""
