"""Convolutions with what stands before and behind them, in one pass over memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .build import library
from .memory import Pool
from .step import DEPTHWISE, IMAGE, PATCHES, Pair, Shape, Step, plain, run


@dataclass(frozen=True, eq=False)
class Part:
    """One convolution, and the bounds of what it gives.

    Arguments:
        weight: float32, (M, C / groups, Kh, Kw).
        bias: (M,), or None.
        low, high: outputs beyond become these: 0 and infinity for a ReLU, 0 and 6 for a ReLU6.
    """

    weight: Tensor
    bias: Tensor | None = None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    low: float = -math.inf
    high: float = math.inf

    def __call__(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """In torch's own operations, (N, C, H, W) -> (N, M, H', W'); the residual is added before the bounds."""
        y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
        y = y if residual is None else y + residual
        return y if (self.low, self.high) == (-math.inf, math.inf) else y.clamp(self.low, self.high)


class FusedConv2d(nn.Module):
    """A dense convolution, a depthwise one, or a 1×1 behind a depthwise one, for inference in fp32.

    `plain` defines it. `forward` gives the same, to rounding, in one pass over memory: what stands behind a few
    dozen output pixels, their patches or what the depthwise convolution gives there, goes from the cache into the
    product with the dense weights, and bias, residual and bounds are applied while the sums stand in registers. On
    processors, with channels last in memory.

    Arguments:
        dense: with one group; behind a depthwise part a 1×1, neither strided nor padded.
        depthwise: with a group for each channel, and r outputs of each, at c·r + t as in `nn.Conv2d`; r is 1 where
            it stands alone.
        relu: whether the depthwise part reads max(x, 0).
        pool: where outputs get their memory; layers of one network may share it.

    Raises:
        InputError: parts that can't stand there.
    """

    def __init__(
        self, dense: Part | None, depthwise: Part | None = None, *, relu: bool = False, pool: Pool | None = None
    ) -> None:
        super().__init__()
        if (fault := why_not_fused(dense, depthwise, relu)) is not None:
            raise InputError(f"These can't be fused: {fault}.")
        self.dense, self.depthwise, self.relu = dense, depthwise, relu
        self._pool = pool or Pool()
        self._step, self._kept = _prepared(dense, depthwise, relu)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:  # (N, C, H, W) -> (N, M, H', W')
        if x.dim() != 4 or x.shape[1] != self._step.c or x.dtype != torch.float32 or x.device.type != "cpu":
            raise InputError(
                f"Expected float32 images (N, {self._step.c}, H, W) on the processor, given {x.dtype} "
                f"{tuple(x.shape)}."
            )
        n, c, h, w = x.shape
        step = self.step((n, c, h, w))  # its own, as several threads may be in here
        if min(step.oh, step.ow) < 1:
            raise InputError(f"Images of {step.h}x{step.w} are smaller than the kernel reaches.")
        if residual is not None and (residual.shape != step.output or self.dense is None):
            given = tuple(residual.shape)
            raise InputError(f"Expected a residual of {step.output} for a dense part, given {given}.")
        x = x.contiguous(memory_format=torch.channels_last)
        y = self._pool.empty(step.output)
        added = None if residual is None else residual.contiguous(memory_format=torch.channels_last)
        step.x, step.residual, step.y = x.data_ptr(), None if added is None else added.data_ptr(), y.data_ptr()
        run([step])
        return y

    def step(self, images: Shape) -> Step:
        """What it does to images (N, C, H, W), without the places of inputs and output."""
        step = self._step.on(images)
        step.threads = torch.get_num_threads()
        return step

    def plain(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """What `forward` computes, in torch's own operations."""
        x = x.relu() if self.relu else x
        if self.dense is None:
            assert self.depthwise is not None
            return self.depthwise(x)
        return self.dense(x if self.depthwise is None else self.depthwise(x), residual)

    def extra_repr(self) -> str:
        step = self._step
        return f"{step.c}, {step.m}, kernel_size=({step.kh}, {step.kw}), depthwise={self.depthwise is not None}"


def why_not_fused(dense: Part | None, depthwise: Part | None = None, relu: bool = False) -> str | None:
    """Why a `FusedConv2d` can't be made of these; None where it can."""
    if depthwise is None:
        if dense is None or relu:
            return "there is no depthwise convolution" + (
                " that the ReLU could be for" if relu else ", and no other"
            )
        return None if dense.groups == 1 else f"the dense convolution has {dense.groups} groups"
    if depthwise.weight.shape[1] != 1 or depthwise.weight[0, 0].numel() > TAPS:
        return f"the depthwise convolution has kernels of {tuple(depthwise.weight.shape[1:])}"
    if dense is None:
        alone = len(depthwise.weight) == depthwise.groups
        return None if alone else "a depthwise convolution alone gives one channel for each it reads"
    if (*dense.weight.shape[1:], *dense.stride, *dense.padding, dense.groups) != (
        len(depthwise.weight), 1, 1, 1, 1, 0, 0, 1,
    ):  # fmt: skip
        return "behind a depthwise convolution stands a 1×1 of all its channels, neither strided nor padded"
    return None


TAPS = 1024  # of a depthwise kernel, as in columns.h


def _prepared(dense: Part | None, depthwise: Part | None, relu: bool) -> tuple[Step, list[np.ndarray]]:
    """What the kernel takes, and the tensors it points to."""
    spatial = depthwise or dense
    assert spatial is not None
    kernel = (spatial.weight.shape[2], spatial.weight.shape[3])
    step = plain(kernel, spatial.stride, spatial.padding, spatial.dilation)
    step.relu = relu
    kept = {}
    if depthwise is not None:
        step.c = depthwise.groups
        step.terms = len(depthwise.weight) // step.c
        step.source, step.m = DEPTHWISE, len(depthwise.weight)
        step.mid_low, step.mid_high = depthwise.low, depthwise.high
        by_term = depthwise.weight.unflatten(0, (step.c, step.terms)).permute(1, 3, 4, 0, 2)  # (r, Kh, Kw, C, 1)
        kept = {"taps": by_term, "mid_bias": _bias(depthwise).unflatten(0, (step.c, step.terms)).t()}
    if dense is not None:
        weight = dense.weight.permute(0, 2, 3, 1).flatten(1)  # (M, columns), those of a tap side by side
        if depthwise is not None:  # by term, as the kernel writes them
            weight = dense.weight.flatten(1).unflatten(1, (step.c, step.terms)).transpose(1, 2).flatten(1)
        else:
            step.c = dense.weight.shape[1]
            as_it_is = (*kernel, *dense.stride, *dense.padding) == (1, 1, 1, 1, 0, 0)
            step.source = IMAGE if as_it_is else PATCHES
        step.m, step.columns = weight.shape
        step.low, step.high = dense.low, dense.high
        wide = library().wide()
        rows = F.pad(weight, (0, 0, 0, -step.m % wide))  # (M rounded up, columns)
        kept["weight"] = rows.unflatten(0, (-1, wide)).transpose(1, 2)  # (M / wide, columns, wide)
        kept["bias"] = F.pad(_bias(dense), (0, -step.m % wide))
    arrays = {name: np.empty(tensor.shape, np.float32) for name, tensor in kept.items()}  # in large pages
    for name, array in arrays.items():
        torch.from_numpy(array).copy_(kept[name].detach())
        setattr(step, name, array.ctypes.data)
    return step, list(arrays.values())


def _bias(part: Part) -> Tensor:
    return part.weight.new_zeros(len(part.weight)) if part.bias is None else part.bias
