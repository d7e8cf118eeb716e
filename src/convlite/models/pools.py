"""Pools that can take part in dilation."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn


def pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    """(vertical, horizontal), of which one number stands for both."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


class MaxPool2d(nn.MaxPool2d):
    """Max pooling that can be dilated with all its padding, which torch limits to half a kernel.

    `ceil_mode` is Caffe's: a last window may reach one pixel beyond the image.
    """

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H', W')
        if self.dilation == 1 and not (self.ceil_mode and self.stride == (1, 1)):
            return super().forward(x)
        down, across = pair(self.padding)
        beyond = pair(self.dilation)[0] if self.ceil_mode else 0
        x = F.pad(x, (across, across + beyond, down, down + beyond), value=-math.inf)
        return F.max_pool2d(x, self.kernel_size, self.stride, 0, self.dilation)


class SameMaxPool2d(nn.MaxPool2d):
    """Max pooling with TensorFlow's SAME padding: it depends on the input's size, the odd pixel goes last."""

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, ceil(H/s), ceil(W/s))
        top, bottom = self._pads(x.shape[2])
        left, right = self._pads(x.shape[3])
        x = F.pad(x, (left, right, top, bottom), value=-math.inf)
        return F.max_pool2d(x, self.kernel_size, self.stride, 0, self.dilation)

    def _pads(self, size: int) -> tuple[int, int]:
        stride, dilation, kernel = (pair(v)[0] for v in (self.stride, self.dilation, self.kernel_size))
        total = max(0, (-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size)
        return total // 2, total - total // 2


class AvgPool2d(nn.AvgPool2d):
    """Average pooling that can also be dilated, which torch's can't."""

    dilation: int | tuple[int, int] = 1

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H', W')
        if self.dilation == 1:
            return super().forward(x)
        k, spread = pair(self.kernel_size), (self.stride, self.padding, self.dilation)
        total = F.conv2d(x, x.new_ones(x.shape[1], 1, *k), None, *spread, x.shape[1])
        if self.count_include_pad:
            return total / (k[0] * k[1])
        # at each border pixel, only what lies inside the image counts
        return total / F.conv2d(x.new_ones(1, 1, *x.shape[2:]), x.new_ones(1, 1, *k), None, *spread)


class CoverMaxPool2d(nn.MaxPool2d):
    """Max pooling whose windows start at every stride-th pixel, the last ones too, and may reach beyond."""

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, ceil(H/s), ceil(W/s))
        beyond = pair(self.dilation)[0] * (pair(self.kernel_size)[0] - 1)
        x = F.pad(x, (0, beyond, 0, beyond), value=-math.inf)
        return F.max_pool2d(x, self.kernel_size, self.stride, 0, self.dilation)
