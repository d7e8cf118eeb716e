"""What a convolution reads and writes at chosen output positions, and the second moments of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kinds import Conv
from .target import Target, by_group

ROWS_PER_COLUMN = 24  # sampled patches for each number in a patch: enough that moments are well determined
LEAST_ROWS = 2**14
BLOCK = 256  # columns of moments that are worked out at once
CHUNK = 2**25  # numbers of patches held at once (256 MiB in float64)


def columns_of(dense: Conv) -> int:
    """D, the numbers of a patch that one group reads."""
    return dense.c // dense.groups * dense.k[0] * dense.k[1]


def as_maps(x: Tensor, module: nn.Module, value: Conv) -> Tensor:
    """What a layer reads or writes, as a convolution does: rows (N, ..., C) of an `nn.Linear` as (N, C, H, 1)."""
    if not isinstance(module, nn.Linear):
        return x
    return x.reshape(-1, value.h, x.shape[-1]).transpose(1, 2)[..., None]


def sized(layer: Conv, maps: Tensor) -> Conv:
    """A layer as it runs on maps (N, C, H, W)."""
    return replace(layer, h=maps.shape[2], w=maps.shape[3])


def sample_positions(dense: Conv, images: int, generator: torch.Generator) -> Tensor:
    """Output positions to look at: (images, P) indices into the flattened output, all where few suffice."""
    oh, ow = dense.out_size
    columns = columns_of(dense)
    count = min(oh * ow, max(1, -(-max(LEAST_ROWS, ROWS_PER_COLUMN * columns) // images)))
    if count == oh * ow:
        return torch.arange(count).expand(images, count)
    return torch.rand(images, oh * ow, generator=generator).topk(count, dim=1).indices.sort(dim=1).values


def images_for(layers: Iterable[Conv]) -> int:
    """How many images it takes to determine the moments of every layer's patches well."""
    return max((-(-ROWS_PER_COLUMN * columns_of(one) // math.prod(one.out_size)) for one in layers), default=1)


def read_patches(x: Tensor, dense: Conv, positions: Tensor) -> Tensor:
    """The patches under the given output positions: (N, C, H, W) and (N, P) -> (N·P, C·Kh·Kw)."""
    (kh, kw), (sh, sw), (dh, dw) = dense.k, dense.stride, dense.dilation
    if dense.padding == "same":
        pads = [(extent // 2, extent - extent // 2) for extent in (dense.extent(0), dense.extent(1))]
    else:
        pads = [(p, p) for p in dense.padding]
    mode = "constant" if dense.padding_mode == "zeros" else dense.padding_mode
    x = F.pad(x, (*pads[1], *pads[0]), mode=mode)  # (N, C, H', W')
    n, c, _, width = x.shape
    _, ow = dense.out_size
    corner = (positions // ow) * sh * width + (positions % ow) * sw  # (N, P)
    offsets = [i * dh * width + j * dw for i in range(kh) for j in range(kw)]
    index = corner[:, :, None] + torch.tensor(offsets, device=corner.device)  # (N, P, K²)
    flat = x.flatten(2).gather(2, index.view(n, 1, -1).expand(n, c, -1))  # (N, C, P·K²)
    return flat.view(n, c, -1, kh * kw).transpose(1, 2).reshape(-1, c * kh * kw)


def read_outputs(y: Tensor, positions: Tensor) -> Tensor:
    """The outputs at the given positions: (N, M, H', W') and (N, P) -> (N, P, M)."""
    n, m = y.shape[:2]
    return y.flatten(2).gather(2, positions[:, None].expand(n, m, -1)).transpose(1, 2)


@dataclass
class Sums:
    """Running sums over patches x and wanted outputs y of each group of a layer, in float64.

    With G groups, D is what one of them reads and m what it gives.
    """

    second: Tensor  # Σ x·xᵀ (G, D, D)
    cross: Tensor  # Σ y·xᵀ (G, m, D)
    energy: Tensor  # Σ y² (G, m)
    x: Tensor  # Σ x (G, D)
    y: Tensor  # Σ y (G, m)
    rows: int = 0

    @classmethod
    def empty(cls, layer: Conv, device: torch.device) -> Sums:
        """Nothing seen yet."""
        g, d, m = layer.groups, columns_of(layer), layer.m // layer.groups

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        return cls(zeros(g, d, d), zeros(g, m, d), zeros(g, m), zeros(g, d), zeros(g, m))

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take in patches (rows, G·D) and their outputs (rows, G·m)."""
        step, groups = max(1, CHUNK // x.shape[1]), len(self.second)
        for some in zip(x.split(step), y.split(step)):
            xs, ys = (
                each.unflatten(1, (groups, -1)).transpose(0, 1) for each in some
            )  # (G, rows, D), (G, rows, m)
            # products in the data's own precision, sums over the chunks in float64
            for first in range(0, xs.shape[2], BLOCK):  # what mirrors another block is not worked out
                last = first + BLOCK
                block = xs[..., first:].mT @ xs[..., first:last]  # (G, D - first, BLOCK)
                self.second[:, first:, first:last] += block
                self.second[:, first:last, last:] += block[:, BLOCK:].mT
            self.cross += ys.mT @ xs
            self.energy += (ys * ys).sum(1)
            self.x += xs.sum(1)
            self.y += ys.sum(1)
            self.rows += xs.shape[1]

    def __add__(self, other: Sums) -> Sums:
        """Those of both."""
        return Sums(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def target(self, weight: Tensor, *, centred: bool, ridge: float = 0.0) -> Target:
        """The target that these sums set to a layer with weight (M, ...).

        Arguments:
            centred: leave the means out, for a layer whose bias can make up for them.
            ridge: a pull towards the dense weight, relative to the mean power of the inputs: it decides where
                the data says nothing.
        """
        flat = by_group(weight.detach().double(), len(self.second))  # (G, m, D)
        second, cross, energy = self.second / self.rows, self.cross / self.rows, self.energy / self.rows
        if centred:  # in place: these may be large
            x, y = self.x / self.rows, self.y / self.rows
            second.baddbmm_(x[:, :, None], x[:, None], alpha=-1)
            cross.baddbmm_(y[:, :, None], x[:, None], alpha=-1)
            energy -= y * y
        own = second.diagonal(dim1=1, dim2=2)
        pull = ridge * own.mean(1)[:, None]  # (G, 1)
        own += pull
        cross += pull[..., None] * flat
        energy += pull * (flat * flat).sum(2)
        return Target(flat, second, cross, energy)
