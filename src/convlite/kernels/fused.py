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
from .step import DEPTHWISE, GROUPED, IMAGE, PATCHES, Pair, Step, plain, run


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
    """A dense convolution, one of small groups, or a 1×1 behind one of those, for inference in fp32.

    `plain` defines it. `forward` gives the same, to rounding, in one pass over memory: what stands behind a few
    dozen output pixels, their patches or what the grouped convolution gives there, goes from the cache into the
    product with the dense weights, and bias, residual and bounds are applied while the sums stand in registers. On
    processors, with channels last in memory.

    Arguments:
        dense: with one group; behind a grouped part a 1×1, neither strided nor padded.
        grouped: with groups of at most GROUP channels in; depthwise, or any others.
        relu: whether the grouped part reads max(x, 0).
        pool: where outputs get their memory; layers of one network may share it.

    Raises:
        InputError: parts that can't stand there.
    """

    def __init__(
        self, dense: Part | None, grouped: Part | None = None, *, relu: bool = False, pool: Pool | None = None
    ) -> None:
        super().__init__()
        if (fault := why_not_fused(dense, grouped, relu)) is not None:
            raise InputError(f"These can't be fused: {fault}.")
        self.dense, self.grouped, self.relu = dense, grouped, relu
        self._pool = pool or Pool()
        self._step, self._kept = prepared(dense, grouped, relu)

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:  # (N, C, H, W) -> (N, M, H', W')
        step = self.step(x, residual)  # its own, as several threads may be in here
        if any(each is not None and each.device.type != "cpu" for each in (x, residual)):
            raise InputError(f"Expected images on the processor, given some on {x.device}: move them with .cpu().")
        x = x.contiguous(memory_format=torch.channels_last)
        y = self._pool.empty(step.output)
        added = None if residual is None else residual.contiguous(memory_format=torch.channels_last)
        step.x, step.residual, step.y = x.data_ptr(), None if added is None else added.data_ptr(), y.data_ptr()
        run([step])
        return y

    def step(self, x: Tensor, residual: Tensor | None = None) -> Step:
        """What it does to such images, but for where they and the output stand.

        Raises:
            InputError: what it can't take.
        """
        if x.dim() != 4 or x.shape[1] != self._step.c or x.dtype != torch.float32:
            raise InputError(
                f"Expected float32 images (N, {self._step.c}, H, W) on the processor, given {x.dtype} "
                f"{tuple(x.shape)} on {x.device}."
            )
        n, c, h, w = x.shape
        step = self._step.on((n, c, h, w))
        if min(step.oh, step.ow) < 1:
            raise InputError(f"Images of {step.h}x{step.w} are smaller than the kernel reaches.")
        if residual is not None and (residual.shape != step.output or residual.dtype != x.dtype):
            given = f"{residual.dtype} {tuple(residual.shape)}"
            raise InputError(f"Expected a residual of {x.dtype} {step.output}, given {given}.")
        step.threads = torch.get_num_threads()
        if residual is not None and self.dense is None:  # the bounds are those of the sum
            step.low, step.high = step.mid_low, step.mid_high
            step.mid_low, step.mid_high = -math.inf, math.inf
        return step

    def plain(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """What `forward` computes, in torch's own operations."""
        x = x.relu() if self.relu else x
        if self.dense is None:
            assert self.grouped is not None
            return self.grouped(x, residual)
        return self.dense(x if self.grouped is None else self.grouped(x), residual)

    def extra_repr(self) -> str:
        step, groups = self._step, self.grouped.groups if self.grouped else 1
        return f"{step.c}, {step.m}, kernel_size=({step.kh}, {step.kw}), groups={groups}"


def why_not_fused(dense: Part | None, grouped: Part | None = None, relu: bool = False) -> str | None:
    """Why a `FusedConv2d` can't be made of these; None where it can."""
    if grouped is None:
        if dense is None or relu:
            return "there is no grouped convolution" + (" that the ReLU could be for" if relu else ", and no other")
        return None if dense.groups == 1 else f"the dense convolution has {dense.groups} groups"
    _, each, *kernel = grouped.weight.shape
    if each > GROUP or each * math.prod(kernel) > TAPS:
        return f"the grouped convolution has {grouped.groups} groups and kernels of {(each, *kernel)}"
    if dense is None:
        return None
    if (*dense.weight.shape[1:], *dense.stride, *dense.padding, dense.groups) != (
        len(grouped.weight), 1, 1, 1, 1, 0, 0, 1,
    ):  # fmt: skip
        return "behind a grouped convolution stands a 1×1 of all its channels, neither strided nor padded"
    return None


_TYPES = {torch.float32: np.float32, torch.int32: np.int32}
GROUP = 4  # channels that a group reads at most: torch's own kernels are the faster for more
TAPS = 1024  # of an output, as in columns.h


def prepared(dense: Part | None, grouped: Part | None, relu: bool = False) -> tuple[Step, list[np.ndarray]]:
    """What the kernel takes, and the tensors it points to."""
    spatial = grouped or dense
    assert spatial is not None
    kernel = (spatial.weight.shape[2], spatial.weight.shape[3])
    step = plain(kernel, spatial.stride, spatial.padding, spatial.dilation)
    step.relu, step.m = relu, len(spatial.weight)
    step.c = spatial.weight.shape[1] * spatial.groups
    kept = {}
    if grouped is not None:
        step.mid_low, step.mid_high = grouped.low, grouped.high
        step.mid, step.planes, outputs = step.m, spatial.weight.shape[1], step.m // grouped.groups
        if step.planes == 1 and (outputs == 1 or dense is not None):
            step.source, step.terms = DEPTHWISE, outputs
            by_term = grouped.weight.unflatten(0, (step.c, outputs)).permute(1, 3, 4, 0, 2)  # (r, Kh, Kw, C, 1)
            kept = {"taps": by_term, "mid_bias": _bias(grouped).unflatten(0, (step.c, outputs)).t()}
        else:
            step.source = GROUPED
            first = torch.arange(step.m) // outputs * step.planes  # of the channels that each output's group reads
            index = first + torch.arange(step.planes)[:, None]  # (planes, M)
            taps = grouped.weight.permute(1, 2, 3, 0)  # (planes, Kh, Kw, M)
            kept = {"taps": taps, "mid_bias": _bias(grouped), "index": index.to(torch.int32)}
    if dense is not None:
        weight = dense.weight.permute(0, 2, 3, 1).flatten(1)  # (M, columns), those of a tap side by side
        if grouped is None:
            as_it_is = (*kernel, *dense.stride, *dense.padding) == (1, 1, 1, 1, 0, 0)
            step.source = IMAGE if as_it_is else PATCHES
        elif step.source == DEPTHWISE:  # by term, as the kernel writes them
            weight = dense.weight.flatten(1).unflatten(1, (step.c, step.terms)).transpose(1, 2).flatten(1)
        step.m, step.columns = weight.shape
        step.low, step.high = dense.low, dense.high
        wide = library().wide()
        rows = F.pad(weight, (0, 0, 0, -step.m % wide))  # (M rounded up, columns)
        kept["weight"] = rows.unflatten(0, (-1, wide)).transpose(1, 2)  # (M / wide, columns, wide)
        kept["bias"] = F.pad(_bias(dense), (0, -step.m % wide))
    arrays = {name: np.empty(tensor.shape, _TYPES[tensor.dtype]) for name, tensor in kept.items()}
    for name, array in arrays.items():  # numpy has large ones in large pages
        torch.from_numpy(array).copy_(kept[name].detach())
        setattr(step, name, array.ctypes.data)
    return step, list(arrays.values())


def _bias(part: Part) -> Tensor:
    return part.weight.new_zeros(len(part.weight)) if part.bias is None else part.bias
