"""What a convolution reads and writes at chosen output positions, and the second moments of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kinds import Conv
from .target import Target

ROWS_PER_COLUMN = 24  # sampled patches for each number in a patch: enough that moments are well determined
LEAST_ROWS = 2**14
CHUNK = 2**25  # numbers of patches held at once (256 MiB in float64)


def sample_positions(dense: Conv, images: int, generator: torch.Generator) -> Tensor:
    """Output positions to look at: (images, P) indices into the flattened output, all where few suffice."""
    oh, ow = dense.out_size
    columns = dense.c * dense.k[0] * dense.k[1]
    count = min(oh * ow, max(1, -(-max(LEAST_ROWS, ROWS_PER_COLUMN * columns) // images)))
    if count == oh * ow:
        return torch.arange(count).expand(images, count)
    return torch.rand(images, oh * ow, generator=generator).topk(count, dim=1).indices.sort(dim=1).values


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
    """Running sums over patches x (rows, D) and wanted outputs y (rows, M), in float64."""

    second: Tensor  # Σ x·xᵀ (D, D)
    cross: Tensor  # Σ y·xᵀ (M, D)
    energy: Tensor  # Σ y² (M,)
    x: Tensor  # Σ x (D,)
    y: Tensor  # Σ y (M,)
    rows: int = 0

    @classmethod
    def empty(cls, columns: int, outputs: int, device: torch.device) -> Sums:
        """Nothing seen yet."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        return cls(zeros(columns, columns), zeros(outputs, columns), zeros(outputs), zeros(columns), zeros(outputs))

    def add(self, x: Tensor, y: Tensor) -> None:
        """Take in patches (rows, D) and their outputs (rows, M)."""
        step = max(1, CHUNK // x.shape[1])
        for xs, ys in zip(x.split(step), y.split(step)):
            # products in the data's own precision, sums over the chunks in float64
            self.second += xs.T @ xs
            self.cross += ys.T @ xs
            self.energy += (ys * ys).sum(0)
            self.x += xs.sum(0)
            self.y += ys.sum(0)
            self.rows += len(xs)

    def target(self, weight: Tensor, *, centred: bool, ridge: float = 0.0) -> Target:
        """The target these sums set to a layer with dense weight (M, C, Kh, Kw).

        Arguments:
            centred: leave the means out, for a layer whose bias can make up for them.
            ridge: a pull towards the dense weight, relative to the mean power of the inputs: it decides where
                the data says nothing.
        """
        flat = weight.detach().flatten(1).double()  # (M, D)
        second, cross, energy = self.second / self.rows, self.cross / self.rows, self.energy / self.rows
        if centred:
            x, y = self.x / self.rows, self.y / self.rows
            second, cross, energy = second - torch.outer(x, x), cross - torch.outer(y, x), energy - y * y
        pull = ridge * second.diagonal().mean()
        second = second + pull * torch.eye(len(second), dtype=second.dtype, device=second.device)
        cross = cross + pull * flat
        energy = energy + pull * (flat * flat).sum(1)
        return Target(flat, second, cross, energy)
