"""Convolutions that learn on processors: those of small groups in the compiled kernels, forward and backward.

Torch is slow for groups of a few channels, for several channels out of each channel in, for what large depthwise
kernels learn, and for many channels of small maps; and strided 1×1 convolutions of few channels are not safe in it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from ..errors import RunError
from .build import library, why_not
from .fused import Part, prepared, why_not_fused
from .product import Product, cast, has_many, is_small
from .step import Pair, Step, run

VECTOR = 16  # fp32 numbers of the widest vectors


@contextmanager
def convolutions(
    net: nn.Module,
    say: Callable[[str], object] = lambda text: None,
    *,
    compiled: bool = True,
    products: bool = True,
) -> Iterator[None]:
    """Meanwhile the network's convolutions of small groups run in the kernels, if it has any and there can be any.

    Whoever calls them, also anew in a backward pass: layers need not know. Those of many channels and small maps
    are products of matrices. Strided 1×1 ones of few channels run so that they are safe, with the kernels or
    without: see `conv2d`.

    Arguments:
        say: told what is done.
        compiled: whether the kernels may run; they are for fp32.
        products: whether products may take the place of convolutions; `torch.compile` can't see through them.
    """
    every = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    layers = [layer for layer in every if layer.weight.device.type == "cpu"]
    taken = [layer for layer in layers if _unsafe(layer.weight, layer.stride, layer.groups)]
    if products:
        taken += [layer for layer in layers if has_many(layer.weight, layer.groups)]
    gaining = [layer for layer in layers if compiled and _gains(layer.weight, layer.groups)]
    if gaining:
        say("kernels: convolutions of small groups run in convlite's own, compiled at their first use (some 15 s)")
        if (fault := why_not()) is None:
            taken += gaining
        else:
            say(f"kernels: they run in torch: {fault}")
            compiled = False
    mode = _Convolutions(compiled, products)
    hooks = [layer.register_forward_pre_hook(mode.begin, prepend=True) for layer in taken]
    hooks += [layer.register_forward_hook(mode.end, always_call=True) for layer in taken]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        while mode.depth:  # a layer that Ctrl-C came upon calls no hook
            mode.end()


class _Convolutions(TorchFunctionMode):
    """While a layer runs, `conv2d` takes the place of torch's.

    For no longer: a mode around a whole step would be gone in its backward pass, where layers may run again.
    """

    def __init__(self, compiled: bool, products: bool) -> None:
        super().__init__()
        self._conv2d = partial(conv2d, compiled=compiled, products=products)
        self.depth = 0

    def begin(self, *_: object) -> None:
        self.__enter__()
        self.depth += 1

    def end(self, *_: object) -> None:
        self.depth -= 1
        self.__exit__(None, None, None)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.conv2d:
            return self._conv2d(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair | str = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    *,
    compiled: bool = True,
    products: bool = True,
) -> Tensor:
    """As `torch.nn.functional.conv2d`, to rounding, with its gradient; (N, C, H, W) -> (N, M, H', W').

    Of strided 1×1 convolutions of few channels the pixels that are skipped go first: what oneDNN learns of such
    weights, where channels are last and fill no vector, it writes past its memory. The process crashes, hangs, or
    learns what is wrong (https://github.com/uxlfoundation/oneDNN/issues/6035).

    What the kernels are not for goes to torch: other devices and types, dense convolutions but those of many
    channels and small maps, depthwise ones of 3×3 and less, groups of more than GROUP channels, and what strided
    ones say of images; and what is no convolution, for torch to say so.

    Arguments:
        compiled: whether the kernels may run.
        products: whether a product of matrices may.
    """
    if not isinstance(padding, str):
        how = _pair(stride), _pair(padding), _pair(dilation)
        if compiled and _gains(weight, groups) and _takes(part := Part(weight, bias, *how, groups), input):
            return _Convolution.apply(input, weight, bias, part)
        if products and has_many(weight, groups) and is_small(input, weight, bias, *how):
            return Product.apply(cast(input), cast(weight), None if bias is None else cast(bias), *how)
    if padding in (0, (0,), (0, 0)) and input.dim() == 4 and _unsafe(weight, stride, groups):
        down, right = _pair(stride)
        input, stride = input[..., ::down, ::right], 1
    return F.conv2d(input, weight, bias, stride, padding, dilation, groups)


def _unsafe(weight: Tensor, stride: int | tuple[int, ...], groups: int) -> bool:
    if weight.device.type != "cpu" or weight.dim() != 4 or groups != 1 or tuple(weight.shape[2:]) != (1, 1):
        return False
    each = _pair(stride)
    return weight.shape[1] < VECTOR and min(each) >= 1 and max(each) > 1


def _gains(weight: Tensor, groups: int) -> bool:
    if weight.dim() != 4 or groups <= 1 or len(weight) % groups:
        return False
    m, each, *kernel = weight.shape
    if m == groups and each == 1 and max(kernel) <= 3:
        return False
    return why_not_fused(None, Part(weight, groups=groups)) is None


def _takes(part: Part, x: Tensor) -> bool:
    weight, bias = part.weight, part.bias
    given = [x, weight] if bias is None else [x, weight, bias]
    if torch.is_autocast_enabled("cpu") or x.dim() != 4 or x.numel() == 0:
        return False
    if any(each.device.type != "cpu" or each.dtype != torch.float32 for each in given):
        return False
    if x.shape[1] != weight.shape[1] * part.groups or (bias is not None and bias.shape != weight.shape[:1]):
        return False
    if min(*part.stride, *part.dilation) < 1 or min(part.padding) < 0:
        return False
    sizes = zip(x.shape[2:], weight.shape[2:], part.padding, part.dilation)
    return all(size + 2 * p > d * (k - 1) for size, k, p, d in sizes)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, part: Part) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        ctx.part = part
        return _run(part, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        given = given.contiguous(memory_format=torch.channels_last)
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        return (
            _of_images(ctx.part, weight, x, given) if of_x else None,
            _of_weights(ctx.part, weight, x, given) if of_weight else None,
            given.sum((0, 2, 3)) if of_bias else None,
            None,
        )


def _step(part: Part, x: Tensor, y: Tensor | None = None) -> tuple[Step, Tensor, list[Any]]:
    """The step that reads x and writes y, by default a new one, and what must be kept meanwhile."""
    step, kept = prepared(None, part)
    n, c, h, w = x.shape
    step = step.on((n, c, h, w))
    step.threads = torch.get_num_threads()
    y = torch.empty(step.output, memory_format=torch.channels_last) if y is None else y
    step.x, step.y = x.data_ptr(), y.data_ptr()
    return step, y, kept


def _run(part: Part, x: Tensor) -> Tensor:
    step, y, _kept = _step(part, x)
    run([step])
    return y


def _of_images(part: Part, weight: Tensor, x: Tensor, given: Tensor) -> Tensor:
    """A convolution of what is given with the kernels turned round, inputs for outputs: (N, C, H, W)."""
    padding = [d * (k - 1) - p for k, d, p in zip(weight.shape[2:], part.dilation, part.padding)]
    if part.stride == (1, 1) and min(padding) >= 0:
        groups = weight.detach().unflatten(0, (part.groups, -1))  # (g, M / g, C / g, Kh, Kw)
        turned = groups.transpose(1, 2).flatten(0, 1).flip(2, 3)  # (C, M / g, Kh, Kw)
        back = Part(turned, None, (1, 1), (padding[0], padding[1]), part.dilation, part.groups)
        if why_not_fused(None, back) is None:
            return _run(back, given)
    return torch.ops.aten.convolution_backward(
        given, x, weight, None, part.stride, part.padding, part.dilation, False, (0, 0), part.groups,
        (True, False, False),
    )[0]  # fmt: skip


def _of_weights(part: Part, weight: Tensor, x: Tensor, given: Tensor) -> Tensor:
    """Of each weight the sum, over output pixels, of its input times what is given: (M, C / g, Kh, Kw)."""
    step, _, _kept = _step(part, x, given)
    m, each, *kernel = weight.shape
    sums = torch.zeros((step.threads, each, *kernel, m))  # of each slice of the pixels
    if library().learn(ctypes.byref(step), ctypes.c_int64(len(sums)), ctypes.c_void_p(sums.data_ptr())):
        raise RunError("There is no memory for the planes of a convolution: give fewer images at once.")
    return sums.sum(0).permute(3, 0, 1, 2)


def _pair(value: int | tuple[int, ...]) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])  # torch takes one number for both
