"""Batch norms over several processes: the statistics of the whole batch, not of each process's part.

torch's SyncBatchNorm runs on GPUs only. This one runs wherever torch.distributed does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from . import processes


@contextmanager
def shared(model: nn.Module) -> Iterator[None]:
    """Meanwhile the network's batch norms, in training mode, see all processes' images; alone, nothing changes."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)] if processes.count() > 1 else []
    for norm in norms:
        norm.forward = partial(_forward, norm)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


def _forward(norm: _BatchNorm, x: Tensor) -> Tensor:  # (N, C, ...) -> the same
    if not norm.training and norm.running_mean is not None:  # frozen
        return type(norm).forward(norm, x)
    norm._check_input_dim(x)
    y, mean, var, count = _Normalise.apply(x, norm.weight, norm.bias, norm.eps)
    if norm.training and norm.running_mean is not None and norm.running_var is not None:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean.to(norm.running_mean), share)
        norm.running_var.lerp_((var * count / (count - 1).clamp(min=1)).to(norm.running_var), share)
    return y


class _Normalise(torch.autograd.Function):
    """(x - mean) / sqrt(var + eps) · weight + bias; two sums over the processes, one each way."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dims = [0, *range(2, x.dim())]
        n = x.numel() // x.shape[1]
        wide = torch.float64 if x.device.type != "mps" else torch.float32
        own = _full(x).mean(dims)  # (C,)
        about = (_full(x) - own.view(1, -1, *(1,) * (x.dim() - 2))).square_().sum(dims).to(wide)  # (C,), about it
        own = own.to(wide)
        # Moments about 0 add up over processes; in double precision nothing is lost by it.
        sums = processes.add_up_(torch.cat([own * n, about + own**2 * n, own.new_tensor([n])]))
        count = sums[-1]
        mean, square = (sums[:-1] / count).chunk(2)
        var = (square - mean**2).clamp(min=0)
        mean_, var_ = mean.to(_full(x).dtype), var.to(_full(x).dtype)
        ctx.save_for_backward(x, weight, mean_, torch.rsqrt(var_ + eps), count)
        ctx.mark_non_differentiable(mean, var, count)
        # With the statistics given, torch's own kernel does the rest.
        return F.batch_norm(x, mean_, var_, weight, bias, False, 0.0, eps), mean, var, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        shape, n = (1, -1, *(1,) * (x.dim() - 2)), x.numel() // x.shape[1]
        wide = _full(x)
        gain = torch.ones_like(scale) if weight is None else weight
        # torch's kernel, as if there were this process's images alone, and then what the others change in it.
        dx, d_weight, d_bias = torch.ops.aten.native_batch_norm_backward(
            _full(gradients[0]), wide, gain, None, None, mean, scale, True, 0.0, [True, True, True]
        )
        own = torch.cat([d_bias, d_weight])
        more = own / n - processes.add_up_(own.clone()) / count.to(own.dtype)
        by_bias, by_weight = (each * gain * scale for each in more.chunk(2))  # (C,) each
        dx = dx.addcmul_(wide, (by_weight * scale).view(shape)).add_(
            (by_bias - by_weight * mean * scale).view(shape)
        )
        if weight is None:
            return dx.to(x.dtype), None, None, None
        return dx.to(x.dtype), d_weight.to(weight.dtype), d_bias.to(weight.dtype), None


def _full(x: Tensor) -> Tensor:
    """In single precision, where half would lose the sums."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
