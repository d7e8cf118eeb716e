"""Convolutions of small maps as products of matrices: torch's take up to four times as long for them in bf16.

So it is where the processor has AMX; elsewhere, and in fp32, less is gained, and that only of the smallest maps.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .processor import has
from .step import Pair

WEIGHTS = 2**16  # of each kernel position, at least
PIXELS = {torch.bfloat16: 16, torch.float32: 4}  # of an output map, at most: where torch's are slower


def has_many(weight: Tensor, groups: int) -> bool:
    """Whether a convolution has as many weights as this is for."""
    many = weight.dim() == 4 and weight.shape[:2].numel() >= WEIGHTS
    return many and groups == 1 and weight.shape[2:].numel() > 1


def is_small(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair) -> bool:
    """Whether these are on a processor, of the right types, and the map that the convolution gives is small."""
    given = [x, weight] if bias is None else [x, weight, bias]
    if any(each.device.type != "cpu" or _type(each) != _type(x) for each in given):
        return False
    if x.dim() != 4 or x.numel() == 0 or x.shape[1] != weight.shape[1]:
        return False
    if (bias is not None and bias.shape != weight.shape[:1]) or min(*stride, *dilation) < 1 or min(padding) < 0:
        return False
    height, width = _size(x, weight, stride, padding, dilation)
    return min(height, width) > 0 and height * width <= _most(_type(x))


def cast(tensor: Tensor) -> Tensor:
    """As autocast, where it is on, has it in a convolution."""
    return tensor.to(_type(tensor))


def _type(tensor: Tensor) -> torch.dtype:
    autocast = torch.is_autocast_enabled("cpu") and tensor.is_floating_point() and tensor.dtype != torch.float64
    return torch.get_autocast_dtype("cpu") if autocast else tensor.dtype


class Product(torch.autograd.Function):
    """(N, C, H, W), (M, C, Kh, Kw), (M,) or None -> (N, M, H', W')."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = stride, padding, dilation
        return _product(x, weight, bias, *ctx.how)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias, *_ = ctx.needs_input_grad
        return (
            _of_images(given, x, weight, *ctx.how) if of_x else None,
            _of_weights(given, x, weight, *ctx.how) if of_weight else None,
            given.sum((0, 2, 3)) if of_bias else None,
            None, None, None,
        )  # fmt: skip


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    size = _size(x, weight, stride, padding, dilation)
    patches = _patches(x, weight, stride, padding, dilation)
    columns = weight.permute(2, 3, 1, 0).flatten(0, 2)  # (Kh Kw C, M)
    y = patches @ columns if bias is None else torch.addmm(bias, patches, columns)
    return y.view(len(x), *size, len(weight)).permute(0, 3, 1, 2)  # channels last in memory


def _of_images(given: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """A convolution of what is given with the kernel turned round: (N, C, H, W)."""
    back = [d * (k - 1) - p for k, d, p in zip(weight.shape[2:], dilation, padding)]
    if stride == (1, 1) and min(back) >= 0:
        turned = weight.transpose(0, 1).flip(2, 3)  # (C, M, Kh, Kw)
        return _product(given, turned, None, stride, (back[0], back[1]), dilation)
    return torch.ops.aten.convolution_backward(
        given, x, weight, None, stride, padding, dilation, False, (0, 0), 1, (True, False, False)
    )[0]


def _of_weights(given: Tensor, x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    rows = given.permute(0, 2, 3, 1).reshape(-1, len(weight))  # (N H' W', M)
    learnt = rows.T @ _patches(x, weight, stride, padding, dilation)  # (M, Kh Kw C)
    return learnt.view(len(weight), *weight.shape[2:], -1).permute(0, 3, 1, 2)


def _patches(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> Tensor:
    """What each output pixel sees: (N H' W', Kh Kw C)."""
    (down, right), (over, across), (kh, kw) = padding, stride, weight.shape[2:]
    pixels = F.pad(x.permute(0, 2, 3, 1), (0, 0, right, right, down, down)).contiguous()  # (N, H, W, C)
    image, row, pixel, channel = pixels.stride()
    size = _size(x, weight, stride, padding, dilation)
    seen = pixels.as_strided(
        (len(x), *size, kh, kw, x.shape[1]),
        (image, row * over, pixel * across, row * dilation[0], pixel * dilation[1], channel),
    )
    return seen.reshape(-1, kh * kw * x.shape[1])


def _most(dtype: torch.dtype) -> int:
    """Pixels of an output map that is small."""
    return 0 if dtype == torch.bfloat16 and not has("amx_bf16") else PIXELS.get(dtype, 0)


def _size(x: Tensor, weight: Tensor, stride: Pair, padding: Pair, dilation: Pair) -> tuple[int, int]:
    height, width = (
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    )
    return height, width
