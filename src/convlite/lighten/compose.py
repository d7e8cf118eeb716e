"""The dense kernel (G, m, D) that does what a chain of factors does, from their weights."""

from __future__ import annotations

import torch
from torch import Tensor


def of_slices(s: int, first: Tensor, last: Tensor) -> Tensor:
    """The kernel of a low rank in so many slices (G, s·r, D/s…) and (G, m, s·r, 1, 1)."""
    filters, shares = (each.flatten(2).unflatten(i, (s, -1)) for each, i in ((first, 1), (last, 2)))
    return torch.einsum("gmsr,gsrk->gmsk", shares, filters).flatten(2)


def of_terms(c: int, first: Tensor, last: Tensor) -> Tensor:
    """The kernel of a separable sum over so many channels (G, r·C, K²…) and (G, m, r·C, 1, 1)."""
    filters, shares = (each.flatten(2).unflatten(i, (-1, c)) for each, i in ((first, 1), (last, 2)))
    return torch.einsum("gmrc,grck->gmck", shares, filters).flatten(2)


def of_outputs(pointwise: Tensor, depthwise: Tensor) -> Tensor:
    """The kernel of pointwise first (1, r·M, C, 1, 1) and (1, M, r, Kh, Kw)."""
    terms = pointwise[0].flatten(1).unflatten(0, (-1, depthwise.shape[1]))  # (r, M, C)
    return torch.einsum("rmc,mrk->mck", terms, depthwise[0].flatten(2)).flatten(1)[None]


def of_columns(vertical: Tensor, horizontal: Tensor) -> Tensor:
    """The kernel of (G, R, C, Kh, 1) and (G, m, R, 1, Kw)."""
    return torch.einsum("gmrj,grci->gmcij", horizontal[:, :, :, 0], vertical[..., 0]).flatten(2)


def of_bottleneck(reduce: Tensor, spatial: Tensor, expand: Tensor) -> Tensor:
    """The kernel of (G, a, C, 1, 1), (G, b, a, Kh, Kw) and (G, m, b, 1, 1)."""
    inner = spatial.flatten(3)  # (G, b, a, K²)
    return torch.einsum("gmb,gbak,gac->gmck", expand[..., 0, 0], inner, reduce[..., 0, 0]).flatten(2)


def of_groups(orders: tuple[Tensor, Tensor], weight: Tensor) -> Tensor:
    """The kernel of a grouped convolution (1, M, C/g, Kh, Kw) between channels in these orders."""
    (into, out), (m, share, kh, kw) = orders, weight.shape[1:]
    kernel = weight.new_zeros(m, len(into), kh * kw)
    columns = into.view(-1, share).repeat_interleave(m * share // len(into), dim=0)  # (M, C/g)
    kernel[out[:, None], columns] = weight[0].flatten(2)
    return kernel.flatten(1)[None]


def of_canonical(first: Tensor, spatial: Tensor, expand: Tensor) -> Tensor:
    """The kernel of (G, R, C, 1, 1), (G, R, 1, Kh, Kw) and (G, m, R, 1, 1)."""
    return expand[..., 0, 0] @ products(first.flatten(2), spatial.flatten(2))


def products(inputs: Tensor, pixels: Tensor) -> Tensor:
    """The products of inputs (G, R, C) and pixels (G, R, K²): (G, R, D)."""
    return (inputs[..., None] * pixels[:, :, None]).flatten(2)
