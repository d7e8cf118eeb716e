"""Multiply-accumulates of torch's operations, as pure functions of shapes.

One multiply-accumulate is one product added to a sum: what published figures call MACs, and half of what
some call FLOPs. Only sums of products count here (convolutions, matrix products, attention); everything
else is counted apart, in `operations`. As published figures have it, products with padded zeros count, adding
a bias does not, and attention under a causal mask counts as if nothing were masked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

Shape = Sequence[int]
Formula = Callable[[tuple[Any, ...], Any], int]
"""From an operation's positional arguments and its result to its multiply-accumulates."""


def convolution(x: Shape, weight: Shape, out: Shape, transposed: bool = False) -> int:
    """A convolution of any dimension, grouped and dilated as it may be.

    Arguments:
        x: (N, C, ...), or (C, ...) without a batch.
        weight: (M, C / groups, K...); (C, M / groups, K...) for a transposed one.
        out: (N, M, ...), or without a batch.
        transposed: each *input* pixel then meets the whole kernel, rather than each output pixel.
    """
    pixels = x if transposed else out
    spatial = prod(pixels[len(pixels) - (len(weight) - 2) :])
    batch = pixels[0] if len(pixels) == len(weight) else 1
    return batch * spatial * prod(weight)


def product(a: Shape, b: Shape) -> int:
    """A matrix product (..., I, J) · (..., J, K) or (..., J) · (J): every entry of `a` meets K columns."""
    return prod(a) * (b[-1] if len(b) > 1 else 1)


def attention(query: Shape, key: Shape, value: Shape) -> int:
    """Scaled dot product attention: scores (..., L, S), then their product with the values.

    Arguments:
        query: (..., heads, L, E); key: (..., heads or fewer, S, E); value: (..., heads or fewer, S, V).
    """
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _convolution(args: tuple[Any, ...], out: Any) -> int:
    return convolution(args[0].shape, args[1].shape, out.shape, transposed=len(args) > 6 and args[6])


def _forward(args: tuple[Any, ...], out: Any) -> int:
    return convolution(args[0].shape, args[1].shape, out.shape)


def _transposed(args: tuple[Any, ...], out: Any) -> int:
    return convolution(args[0].shape, args[1].shape, out.shape, transposed=True)


def _time_first(args: tuple[Any, ...], out: Any) -> int:
    """`conv_tbc`: (T, N, C) with a kernel (K, C, M)."""
    return out.shape[0] * out.shape[1] * prod(args[1].shape)


def _product(args: tuple[Any, ...], out: Any) -> int:
    return product(args[0].shape, args[1].shape)


def _product_added(args: tuple[Any, ...], out: Any) -> int:
    """The first argument is what the product is added to."""
    return product(args[1].shape, args[2].shape)


def _linear(args: tuple[Any, ...], out: Any) -> int:
    return prod(out.shape) * args[1].shape[-1]


def _grouped_product(args: tuple[Any, ...], out: Any) -> int:
    """`_grouped_mm`: the rows of `a`, or its columns where `b` has no batch either, are dealt to the groups."""
    a, b = args[0].shape, args[1].shape
    return prod(a) * b[-1] if len(a) <= len(b) else prod(b) * a[-2]


def _trilinear(args: tuple[Any, ...], out: Any) -> int:
    """`nn.Bilinear`: one product for each pair of inputs and each output."""
    return args[0].shape[0] * prod(args[1].shape)  # N · (M, I, J)


def _attention(args: tuple[Any, ...], out: Any) -> int:
    return attention(args[0].shape, args[1].shape, args[2].shape)


MACS: dict[str, Formula] = {
    **dict.fromkeys(("convolution", "_convolution", "convolution_overrideable"), _convolution),
    **dict.fromkeys(
        (
            "conv1d", "conv2d", "conv3d", "cudnn_convolution", "cudnn_convolution_relu",
            "cudnn_convolution_add_relu", "miopen_convolution", "miopen_convolution_relu",
            "miopen_convolution_add_relu", "miopen_depthwise_convolution", "mkldnn_convolution",
            "_mps_convolution", "_slow_conv2d_forward", "slow_conv3d_forward", "slow_conv_dilated2d",
            "slow_conv_dilated3d", "_conv_depthwise2d", "conv_depthwise3d", "thnn_conv2d", "slow_conv3d",
            "_nnpack_spatial_convolution",
        ),
        _forward,
    ),
    **dict.fromkeys(
        (
            "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "cudnn_convolution_transpose",
            "miopen_convolution_transpose", "_mps_convolution_transpose", "slow_conv_transpose2d",
            "slow_conv_transpose3d",
        ),
        _transposed,
    ),
    "conv_tbc": _time_first,
    **dict.fromkeys(
        ("mm", "bmm", "mv", "dot", "vdot", "matmul", "_int_mm", "_scaled_mm"), _product
    ),
    **dict.fromkeys(("addmm", "baddbmm", "addbmm", "addmv", "_addmm_activation"), _product_added),
    **dict.fromkeys(("linear", "mkldnn_linear"), _linear),
    "_grouped_mm": _grouped_product,
    "_trilinear": _trilinear,
    **dict.fromkeys(
        (
            "scaled_dot_product_attention", "_scaled_dot_product_attention_math",
            "_scaled_dot_product_attention_math_for_mps", "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_cudnn_attention", "_scaled_dot_product_fused_attention_overrideable",
        ),
        _attention,
    ),
}  # fmt: skip
"""By the operation's name in ATen, without overload and without the underscore of an in-place form."""

ATTENTION = frozenset(name for name, formula in MACS.items() if formula is _attention)
