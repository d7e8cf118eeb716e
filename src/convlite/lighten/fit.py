"""Closed forms: the factors of a kind that best stand in for a dense kernel.

"Best" is measured at the layer's OUTPUT, not at its weights. With x one input patch (D = C·Kh·Kw numbers in the
order of the weight), y the M outputs wanted for it, and Ŵ (M×D) the kernel that the factors compose to, every
form here makes

    E‖y − Ŵx‖² = E‖y‖² − 2·tr(Ŵ·Tᵀ) + tr(Ŵ·S·Ŵᵀ),   S = E[x·xᵀ] (D×D),  T = E[y·xᵀ] (M×D)

small, so that S and T are all that must be known of the data. For a layer on its own inputs T = W·S; with S the
identity it is the plain error of the weights. All matrices are float64: errors are differences of large numbers.

Truncations are singular value decompositions in that norm (whitened SVD, arXiv 2509.25136); the factor nearest the
output is then solved for exactly, and depthwise factors in turn (alternating least squares).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..kinds import Asymmetric, Bottleneck, Conv, Kind, LowRank, Separable

SWEEPS = 2  # alternations between the two factors of a separable sum
LARGEST = 1200  # unknowns beyond which a depthwise factor is not solved for again


@dataclass(frozen=True)
class Target:
    """What a layer's factors are fitted to; `second` S and `cross` T as at the top of the file.

    Arguments:
        weight: (M, D), the dense kernel.
        second: (D, D).
        cross: (M, D).
        energy: (M,), E[y²].
    """

    weight: Tensor
    second: Tensor
    cross: Tensor
    energy: Tensor

    def error(self, kernel: Tensor) -> Tensor:
        """E[(y − ŷ)²] for each output channel (M,) of a kernel (M, D); at least 0."""
        product = kernel @ self.second  # (M, D)
        return (self.energy + ((product - 2 * self.cross) * kernel).sum(1)).clamp_min(0)

    def weighted(self, rows: Tensor) -> Target:
        """The same target with each output channel's error weighted by rows² (M,)."""
        column = rows[:, None]
        return Target(column * self.weight, self.second, column * self.cross, rows**2 * self.energy)


def own_target(weight: Tensor, second: Tensor | None = None) -> Target:
    """The target of a layer on its own inputs: the dense weight (M, C, Kh, Kw) itself.

    Arguments:
        second: S (D, D); the identity where left out.
    """
    flat = weight.detach().flatten(1).double()  # (M, D)
    known = torch.eye(flat.shape[1], dtype=flat.dtype, device=flat.device) if second is None else second
    cross = flat @ known
    return Target(flat, known, cross, (cross * flat).sum(1))


@dataclass(frozen=True)
class Factors:
    """Weights of a kind's primitive convolutions, in order, and the dense kernel (M, D) they compose to."""

    weights: tuple[Tensor, ...]
    kernel: Tensor


def fit(kind: Kind, dense: Conv, target: Target) -> Factors:
    """The factors of `kind` for the convolution `dense` that come nearest `target`.

    Raises:
        InputError: the kind is no linear chain that a dense kernel can be decomposed into.
    """
    form = _FORMS.get(type(kind))
    if form is None or not kind.linear:
        raise InputError(
            f"{kind} can't hold a trained dense kernel: decompose into one of "
            f"{', '.join(sorted(known.__name__ for known in _FORMS))}, with nothing between."
        )
    return form(kind, dense, target)


def solve(gram: Tensor, right: Tensor) -> Tensor:
    """gram⁻¹·right for symmetric positive semidefinite (batches of) `gram`; directions without data get 0."""
    scale = gram.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(torch.finfo(gram.dtype).tiny)
    ridge = 1e-10 * scale[..., None, None] * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factor, failed = torch.linalg.cholesky_ex(gram + ridge)
    if failed.any():  # rounding made it indefinite: take the pseudo-inverse
        return torch.linalg.pinv(gram, hermitian=True, rtol=1e-9) @ right
    return torch.cholesky_solve(right, factor)


def _last(features: Tensor, target: Target) -> Tensor:
    """The last factor (M, q) that makes most of `features` (q, D), by least squares."""
    seen = features @ target.second  # (q, D)
    return solve(seen @ features.T, features @ target.cross.T).T


def _leading(rows: Tensor, second: Tensor, rank: int) -> Tensor:
    """The `rank` directions (…, rank, d) of the inputs that rows (…, n, d) use most, inputs having moments S.

    These are the right singular vectors of rows·S^½, times S^-½.
    """
    values, vectors = torch.linalg.eigh(second)  # ascending
    largest = values[..., -1:]
    largest = torch.where(largest > 0, largest, torch.ones_like(largest))  # inputs that are always 0
    root = values.clamp_min(1e-12 * largest).sqrt()
    half = vectors * root[..., None, :]  # S^½ up to a rotation: (…, d, d)
    whitened = rows @ half
    _, directions = torch.linalg.eigh(whitened.transpose(-2, -1) @ whitened)
    top = directions[..., -rank:].flip(-1)  # (…, d, rank)
    found = (top.transpose(-2, -1) / root[..., None, :]) @ vectors.transpose(-2, -1)
    return found / found.norm(dim=-1, keepdim=True)


def _sizes(dense: Conv) -> tuple[int, int, int, int, int]:
    kh, kw = dense.k
    return dense.m, dense.c, kh, kw, kh * kw


def _separable(kind: Separable, dense: Conv, target: Target) -> Factors:
    r = kind.multiplier
    if r > dense.k[0] * dense.k[1]:
        raise InputError(f"A kernel of {dense.k} has at most {dense.k[0] * dense.k[1]} separable terms, given {r}.")
    return (_depthwise_first if kind.order == "depthwise_first" else _pointwise_first)(r, dense, target)


def _depthwise_first(r: int, dense: Conv, target: Target) -> Factors:
    """Each input channel's M×K² slice to rank r; then pointwise and depthwise in turn (arXiv 1808.05517)."""
    m, c, kh, kw, kk = _sizes(dense)
    slices = target.weight.view(m, c, kk).transpose(0, 1)  # (C, M, K²)
    second, cross = target.second.view(c, kk, c, kk), target.cross.view(m, c, kk)
    blocks = second.diagonal(dim1=0, dim2=2).permute(2, 0, 1)  # (C, K², K²)
    depthwise = _leading(slices, blocks, r)  # (C, r, K²)

    def mixing() -> Tensor:  # (M, C·r): the pointwise weights that make most of the depthwise ones
        seen = torch.einsum("crk,ckdl->crdl", depthwise, second)
        gram = torch.einsum("crdl,dsl->crds", seen, depthwise).reshape(c * r, c * r)
        return solve(gram, torch.einsum("crk,mck->crm", depthwise, cross).reshape(c * r, m)).T

    pointwise = mixing()
    for _ in range(SWEEPS if c * r * kk <= LARGEST else 0):
        both = (pointwise.T @ pointwise).view(c, r, 1, c, r, 1)
        gram = (both * second.view(c, 1, kk, c, 1, kk)).reshape(c * r * kk, c * r * kk)
        wanted = torch.einsum("mcr,mck->crk", pointwise.reshape(m, c, r), cross)
        depthwise = solve(gram, wanted.reshape(-1, 1)).view(c, r, kk)
        depthwise = depthwise / depthwise.flatten(1).norm(dim=1).clamp_min(1e-300)[:, None, None]
        pointwise = mixing()
    terms = depthwise.transpose(0, 1).reshape(r * c, 1, kh, kw)  # channel t·C + c is term t of channel c
    mixed = pointwise.reshape(m, c, r)
    kernel = torch.einsum("mcr,crk->mck", mixed, depthwise).reshape(m, c * kk)
    return Factors((terms, mixed.transpose(1, 2).reshape(m, r * c, 1, 1)), kernel)


def _pointwise_first(r: int, dense: Conv, target: Target) -> Factors:
    """Each output channel's C×K² slice to rank r; then its pixels and its channels in turn."""
    m, c, kh, kw, kk = _sizes(dense)
    second = target.second.view(c, kk, c, kk)
    slices = target.weight.view(m, c, kk)
    spread = second.diagonal(dim1=0, dim2=2).sum(-1)  # (K², K²): moments of the pixels over all channels
    depthwise = _leading(slices, spread.expand(m, kk, kk), r)  # (M, r, K²)
    crossed = target.cross.view(m, c, kk)
    pointwise = torch.empty(m, r, c, dtype=slices.dtype, device=slices.device)
    for i in range(m):  # one output channel at a time: memory stays small
        d = depthwise[i]  # (r, K²)
        a = pointwise[i]
        for _ in range(1 if c * r > 32 else SWEEPS):
            seen = torch.einsum("rk,ckdl,sl->rcsd", d, second, d).reshape(r * c, r * c)
            a = solve(seen, torch.einsum("rk,ck->rc", d, crossed[i]).reshape(-1, 1)).view(r, c)
            a = a / a.norm(dim=1, keepdim=True).clamp_min(1e-300)
            seen = torch.einsum("rc,ckdl,sd->rksl", a, second, a).reshape(r * kk, r * kk)
            d = solve(seen, torch.einsum("rc,ck->rk", a, crossed[i]).reshape(-1, 1)).view(r, kk)
        depthwise[i], pointwise[i] = d, a
    kernel = torch.einsum("mrc,mrk->mck", pointwise, depthwise).reshape(m, c * kk)
    return Factors((pointwise.reshape(m * r, c, 1, 1), depthwise.view(m, r, kh, kw)), kernel)


def _asymmetric(kind: Asymmetric, dense: Conv, target: Target) -> Factors:
    """SVD of the (Kw·M)×(C·Kh) unfolding (Jaderberg et al., arXiv 1405.3866), then the 1×K solved for."""
    m, c, kh, kw, _ = _sizes(dense)
    rank = min(dense.m if kind.rank is None else kind.rank, c * kh)
    rows = target.weight.view(m, c * kh, kw).permute(0, 2, 1).reshape(m * kw, c * kh)
    columns = target.second.view(c * kh, kw, c * kh, kw).diagonal(dim1=1, dim2=3).sum(-1)  # (C·Kh, C·Kh)
    vertical = _leading(rows, columns, rank)  # (R, C·Kh)
    each = torch.eye(kw, dtype=vertical.dtype, device=vertical.device)
    features = torch.einsum("rx,jl->rjxl", vertical, each).reshape(rank * kw, c * kh * kw)
    horizontal = _last(features, target)  # (M, R·Kw)
    weights = vertical.view(rank, c, kh, 1), horizontal.view(m, rank, 1, kw)
    return Factors(_widened(weights, 0 if kind.rank is None else kind.rank - rank), horizontal @ features)


def _low_rank(kind: LowRank, dense: Conv, target: Target) -> Factors:
    """The leading directions of the output (Zhang et al., arXiv 1505.06798): reduced-rank regression."""
    m, c, kh, kw, _ = _sizes(dense)
    wanted = dense.m // 4 or 1 if kind.rank is None else kind.rank
    rank = min(wanted, m)
    expand = _output_directions(target.weight, target.second, rank)  # (M, R)
    spatial = expand.T @ target.weight  # (R, D)
    weights = spatial.view(rank, c, kh, kw), expand.reshape(m, rank, 1, 1)
    return Factors(_widened(weights, wanted - rank), expand @ spatial)


def _bottleneck(kind: Bottleneck, dense: Conv, target: Target) -> Factors:
    """Tucker-2 (Kim et al., arXiv 1511.06530): input directions, the K×K solved for, output directions."""
    m, c, kh, kw, kk = _sizes(dense)
    a, b = kind.ranks(dense)
    if a > c or b > m:
        raise InputError(f"{kind} is wider inside than the {c} channels in or the {m} out: lower the ranks.")
    rows = target.weight.view(m, c, kk).transpose(1, 2).reshape(m * kk, c)
    channels = target.second.view(c, kk, c, kk).diagonal(dim1=1, dim2=3).sum(-1)  # (C, C)
    reduce = _leading(rows, channels, a)  # (a, C)
    each = torch.eye(kk, dtype=reduce.dtype, device=reduce.device)
    features = torch.einsum("ac,kl->akcl", reduce, each).reshape(a * kk, c * kk)
    core = _last(features, target)  # (M, a·K²)
    expand = _output_directions(core, features @ target.second @ features.T, b)  # (M, b)
    spatial = expand.T @ core
    kernel = expand @ spatial @ features
    return Factors((reduce.view(a, c, 1, 1), spatial.view(b, a, kh, kw), expand.reshape(m, b, 1, 1)), kernel)


def _output_directions(kernel: Tensor, second: Tensor, rank: int) -> Tensor:
    """The `rank` directions (M, rank) along which the outputs of `kernel` (M, D) vary most."""
    _, vectors = torch.linalg.eigh(kernel @ second @ kernel.T)
    return vectors[:, -rank:].flip(-1)


def _widened(weights: tuple[Tensor, Tensor], extra: int) -> tuple[Tensor, ...]:
    """The same factors with `extra` idle channels between, for a rank beyond the full one."""
    first, last = weights
    if extra <= 0:
        return weights
    return (
        torch.cat([first, first.new_zeros(extra, *first.shape[1:])]),
        torch.cat([last, last.new_zeros(last.shape[0], extra, *last.shape[2:])], dim=1),
    )


_FORMS: dict[type[Kind], Callable[..., Factors]] = {
    Separable: _separable,
    Asymmetric: _asymmetric,
    LowRank: _low_rank,
    Bottleneck: _bottleneck,
}
