"""How the weights of a light network learn: the matrices between channels by Muon, all else by AdamW."""

from __future__ import annotations

import torch
from torch import nn

from ..train.recipe import Recipe

SCHEDULE = Recipe(rate=1.0, warmup=0.1, schedule="cosine")
DECAY = 1e-4  # of weights
MOMENTUM = 0.95


class Descent:
    """Two optimisers that take their steps together; a tenth of them to warm up, then cosine to zero.

    Factors of one convolution stretch each other, so that a gradient is long in few directions and short in all
    others. Muon makes it as long in all (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon), at the
    length that AdamW's steps have (Liu et al., arXiv 2502.16982). AdamW has depthwise and grouped kernels, linear
    layers, and what has one dimension.

    Arguments:
        net: all of it that asks for gradients learns.
        rate: the highest.
        steps: how many there will be.
    """

    def __init__(self, net: nn.Module, rate: float, steps: int) -> None:
        trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
        kernels = {m.weight for m in net.modules() if isinstance(m, nn.Conv2d) and m.groups == 1}
        self._kernels = [p for p in trained if p in kernels and p.is_floating_point()]  # none that is computed
        self._matrices = [nn.Parameter(k.detach().flatten(1).clone()) for k in self._kernels]  # (M, C·K·K)
        rest = [p for p in trained if p not in kernels or not p.is_floating_point()]
        real = all(parameter.is_floating_point() for parameter in rest)  # what one fused step is written for
        self._optimisers: list[torch.optim.Optimizer] = []
        if rest:
            self._optimisers.append(
                torch.optim.AdamW(rest, lr=rate, weight_decay=DECAY, fused=True if real else None)
            )
        if self._matrices:
            self._optimisers.append(
                torch.optim.Muon(
                    self._matrices, lr=rate, weight_decay=DECAY, momentum=MOMENTUM, adjust_lr_fn="match_rms_adamw"
                )
            )
        self._trained = trained
        self._schedules = [
            torch.optim.lr_scheduler.LambdaLR(each, lambda step: SCHEDULE.rate_at((step + 0.5) / steps))
            for each in self._optimisers
        ]

    def forget(self) -> None:
        """No gradients, for the next backward pass to write them."""
        for parameter in self._trained:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One, by the gradients that there are."""
        for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
            matrix.grad = None if kernel.grad is None else kernel.grad.flatten(1)
        for optimiser, schedule in zip(self._optimisers, self._schedules, strict=True):
            optimiser.step()
            schedule.step()
        for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
            kernel.copy_(matrix.view_as(kernel))
