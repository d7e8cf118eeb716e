"""Closed forms: for each kind, the factors that best stand in for a dense kernel (see `target.py` for "best").

A form is made for one layer and answers for every rank: what all ranks share, the decompositions, is worked out
once. The factor nearest the output is solved for exactly; depthwise factors of narrow layers in turn with it
(alternating least squares).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..kinds import Asymmetric, Bottleneck, Conv, Kind, LowRank, Separable
from .target import Prefixes, Target, leading, solve

SWEEPS = 2  # alternations between the two factors of a separable sum
LARGEST = 1200  # unknowns beyond which a depthwise factor is not solved for again


class Factors:
    """Weights of a kind's primitive convolutions, in order, and the dense kernel (M, D) they compose to."""

    def __init__(self, weights: tuple[Tensor, ...], kernel: Tensor) -> None:
        self.weights, self.kernel = weights, kernel


class Form(ABC):
    """One kind's closed form for one layer.

    Arguments:
        dense: the convolution.
        target: what to come near.
        most: the largest rank that will be asked for (of a Bottleneck the larger of its input ranks).
    """

    def __init__(self, dense: Conv, target: Target, most: int) -> None:
        self.dense, self.target, self.most = dense, target, most
        self.m, self.c, (self.kh, self.kw) = dense.m, dense.c, dense.k
        self.kk = self.kh * self.kw

    @abstractmethod
    def fit(self, kind: Any) -> Factors:
        """The factors of that kind, with its rank."""

    def error(self, kind: Any) -> float:
        """The error that `fit` makes, over all outputs."""
        return float(self.target.error(self.fit(kind).kernel).sum())

    @cached_property
    def energy(self) -> float:
        """Of the wanted outputs."""
        return float(self.target.energy.sum())

    @property
    def blocks(self) -> Tensor:
        """S by input channel and pixel: (C, K², C, K²)."""
        return self.target.second.view(self.c, self.kk, self.c, self.kk)


def form_of(kind: Kind, dense: Conv, target: Target, most: int | None = None) -> Form:
    """The closed form that fits this kind, at this rank and, with `most`, at larger ones.

    Raises:
        InputError: the kind is no linear chain that a dense kernel can be decomposed into.
    """
    made = _FORMS.get(family(kind))
    if made is None or not kind.linear:
        raise InputError(
            f"{kind} can't hold a trained dense kernel: decompose into one of "
            f"{', '.join(sorted({name for name, _ in _FORMS}))}, with nothing between."
        )
    return made(dense, target, most or rank_of(kind, dense))


def fit(kind: Kind, dense: Conv, target: Target) -> Factors:
    """The factors of `kind` for the convolution `dense` that come nearest `target`.

    Raises:
        InputError: the kind is no linear chain that a dense kernel can be decomposed into.
    """
    return form_of(kind, dense, target).fit(kind)


def family(kind: Kind) -> tuple[str, str]:
    """What kinds of different rank have in common."""
    return type(kind).__name__, kind.order if isinstance(kind, Separable) else ""


def rank_of(kind: Any, dense: Conv) -> int:
    """The number that a form's shared work depends on."""
    match kind:
        case Separable():
            return kind.multiplier
        case Bottleneck():
            return kind.ranks(dense)[0]
        case LowRank():
            return dense.m // 4 or 1 if kind.rank is None else kind.rank
        case _:
            return dense.m if kind.rank is None else kind.rank


class _DepthwiseFirst(Form):
    """Each input channel's M×K² slice to rank r; then pointwise and depthwise in turn (arXiv 1808.05517)."""

    @cached_property
    def _directions(self) -> Tensor:  # (C, r, K²), the most used first
        slices = self.target.weight.view(self.m, self.c, self.kk).transpose(0, 1)  # (C, M, K²)
        own = self.blocks.diagonal(dim1=0, dim2=2).permute(2, 0, 1)  # (C, K², K²)
        return leading(slices, own, min(self.most, self.kk))

    @cached_property
    def _shared(self) -> Prefixes:
        """Terms come one after the other, each of all channels, so that the first r·C features are r terms."""
        return Prefixes(*self._moments(self._directions))

    def _moments(self, depthwise: Tensor) -> tuple[Tensor, Tensor]:
        """G and R of the features that depthwise filters (C, r, K²) make, in the order (r, C)."""
        c, r = depthwise.shape[:2]
        seen = torch.einsum("crk,ckdl->crdl", depthwise, self.blocks)
        gram = torch.einsum("crdl,dsl->rcsd", seen, depthwise).reshape(r * c, r * c)
        right = torch.einsum("crk,mck->rcm", depthwise, self.target.cross.view(self.m, c, self.kk))
        return gram, right.reshape(r * c, self.m)

    def _alternates(self, r: int) -> bool:
        return self.c * r * self.kk <= LARGEST

    def error(self, kind: Separable) -> float:
        if self._alternates(kind.multiplier):
            return super().error(kind)
        return self.energy - float(self._shared.explained[: kind.multiplier * self.c].square().sum())

    def fit(self, kind: Separable) -> Factors:
        m, c, kk, r = self.m, self.c, self.kk, kind.multiplier
        if r > kk:
            raise InputError(f"A kernel of {self.dense.k} has at most {kk} separable terms, given {r}.")
        depthwise = self._directions[:, :r]
        pointwise = self._shared.last(r * c).view(m, r, c)
        for _ in range(SWEEPS if self._alternates(r) else 0):
            flat = pointwise.permute(2, 1, 0).reshape(c * r, m)  # (C·r, M)
            both = (flat @ flat.T).view(c, r, 1, c, r, 1)
            gram = (both * self.blocks.reshape(c, 1, kk, c, 1, kk)).reshape(c * r * kk, c * r * kk)
            wanted = torch.einsum("mrc,mck->crk", pointwise, self.target.cross.view(m, c, kk))
            depthwise = solve(gram, wanted.reshape(-1, 1)).view(c, r, kk)
            depthwise = depthwise / depthwise.flatten(1).norm(dim=1).clamp_min(1e-300)[:, None, None]
            gram, right = self._moments(depthwise)
            pointwise = solve(gram, right).T.reshape(m, r, c)
        terms = depthwise.transpose(0, 1).reshape(r * c, 1, self.kh, self.kw)  # t·C + c is term t of channel c
        kernel = torch.einsum("mrc,crk->mck", pointwise, depthwise).reshape(m, c * kk)
        return Factors((terms, pointwise.reshape(m, r * c, 1, 1)), kernel)


class _PointwiseFirst(Form):
    """Each output channel's C×K² slice to rank r; then its pixels and its channels in turn."""

    def fit(self, kind: Separable) -> Factors:
        m, c, kk, r = self.m, self.c, self.kk, kind.multiplier
        if r > kk:
            raise InputError(f"A kernel of {self.dense.k} has at most {kk} separable terms, given {r}.")
        slices, second = self.target.weight.view(m, c, kk), self.blocks
        spread = second.diagonal(dim1=0, dim2=2).sum(-1)  # (K², K²): moments of the pixels over all channels
        depthwise = leading(slices, spread.expand(m, kk, kk), r)  # (M, r, K²)
        crossed = self.target.cross.view(m, c, kk)
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
        return Factors((pointwise.reshape(m * r, c, 1, 1), depthwise.view(m, r, self.kh, self.kw)), kernel)


class _Asymmetric(Form):
    """SVD of the (Kw·M)×(C·Kh) unfolding (Jaderberg et al., arXiv 1405.3866), then the 1×K solved for."""

    @cached_property
    def _vertical(self) -> Tensor:  # (R, C·Kh)
        tall, kw = self.c * self.kh, self.kw
        rows = self.target.weight.view(self.m, tall, kw).permute(0, 2, 1).reshape(self.m * kw, tall)
        columns = self.target.second.view(tall, kw, tall, kw).diagonal(dim1=1, dim2=3).sum(-1)  # (C·Kh, C·Kh)
        return leading(rows, columns, min(self.most, tall))

    @cached_property
    def _shared(self) -> Prefixes:
        return _projected(self._vertical, self.target, self.kw)

    def error(self, kind: Asymmetric) -> float:
        q = min(rank_of(kind, self.dense), len(self._vertical)) * self.kw
        return self.energy - float(self._shared.explained[:q].square().sum())

    def fit(self, kind: Asymmetric) -> Factors:
        m, c, kh, kw = self.m, self.c, self.kh, self.kw
        wanted = rank_of(kind, self.dense)
        rank = min(wanted, len(self._vertical))
        vertical, horizontal = self._vertical[:rank], self._shared.last(rank * kw).view(m, rank, kw)
        kernel = torch.einsum("mrj,rx->mxj", horizontal, vertical).reshape(m, c * kh * kw)
        weights = vertical.reshape(rank, c, kh, 1), horizontal.reshape(m, rank, 1, kw)
        return Factors(_widened(weights, wanted - rank), kernel)


class _LowRank(Form):
    """The leading directions of the output (Zhang et al., arXiv 1505.06798): reduced-rank regression."""

    @cached_property
    def _outputs(self) -> tuple[Tensor, Tensor]:
        weight = self.target.weight
        return _falling(weight @ self.target.second @ weight.T)

    def error(self, kind: LowRank) -> float:
        values, _ = self._outputs
        rest = self.energy - float(
            (2 * self.target.cross - self.target.weight @ self.target.second).mul(self.target.weight).sum()
        )
        return rest + float(values[rank_of(kind, self.dense) :].sum())

    def fit(self, kind: LowRank) -> Factors:
        wanted = rank_of(kind, self.dense)
        rank = min(wanted, self.m)
        expand = self._outputs[1][:, :rank]  # (M, R)
        spatial = expand.T @ self.target.weight  # (R, D)
        weights = spatial.view(rank, self.c, self.kh, self.kw), expand.reshape(self.m, rank, 1, 1)
        return Factors(_widened(weights, wanted - rank), expand @ spatial)


class _Bottleneck(Form):
    """Tucker-2 (Kim et al., arXiv 1511.06530): input directions, the K×K solved for, output directions."""

    @cached_property
    def _reduce(self) -> Tensor:  # (a, C)
        rows = self.target.weight.view(self.m, self.c, self.kk).transpose(1, 2).reshape(self.m * self.kk, self.c)
        channels = self.blocks.diagonal(dim1=1, dim2=3).sum(-1)  # (C, C)
        return leading(rows, channels, min(self.most, self.c))

    @cached_property
    def _shared(self) -> Prefixes:
        return _projected(self._reduce, self.target, self.kk)

    def _outputs(self, a: int) -> tuple[Tensor, Tensor]:
        """How the outputs of the best kernel on `a` input directions vary: Zᵀ·Z is E[ŷ·ŷᵀ]."""
        explained = self._shared.explained[: a * self.kk]
        return _falling(explained.T @ explained)

    def error(self, kind: Bottleneck) -> float:
        a, b = self._ranks(kind)
        return self.energy - float(self._outputs(a)[0][:b].sum())

    def fit(self, kind: Bottleneck) -> Factors:
        m, c, kk = self.m, self.c, self.kk
        a, b = self._ranks(kind)
        reduce, core = self._reduce[:a], self._shared.last(a * kk)  # (a, C), (M, a·K²)
        expand = self._outputs(a)[1][:, :b]  # (M, b)
        spatial = (expand.T @ core).view(b, a, kk)
        kernel = torch.einsum("mb,bak,ac->mck", expand, spatial, reduce).reshape(m, c * kk)
        weights = reduce.reshape(a, c, 1, 1), spatial.view(b, a, self.kh, self.kw), expand.reshape(m, b, 1, 1)
        return Factors(weights, kernel)

    def _ranks(self, kind: Bottleneck) -> tuple[int, int]:
        a, b = kind.ranks(self.dense)
        if a > self.c or b > self.m:
            raise InputError(f"{kind} is wider inside than the {self.c} channels in or the {self.m} out: lower it.")
        return a, b


def _projected(directions: Tensor, target: Target, inner: int) -> Prefixes:
    """Least squares on features directions ⊗ identity: (q, X) of inputs laid out as (X, inner), in that order."""
    q, outer = directions.shape
    second = target.second.view(outer, inner * outer * inner)
    seen = (directions @ second).view(q, inner, outer, inner)
    gram = torch.einsum("qixj,px->qipj", seen, directions).reshape(q * inner, q * inner)
    right = torch.einsum("qx,mxi->qim", directions, target.cross.view(-1, outer, inner))
    return Prefixes(gram, right.reshape(q * inner, -1))


def _falling(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (n,), the largest first, and their vectors (n, n) in columns."""
    values, vectors = torch.linalg.eigh(moments)
    return values.clamp_min(0).flip(-1), vectors.flip(-1)


def _widened(weights: tuple[Tensor, Tensor], extra: int) -> tuple[Tensor, ...]:
    """The same factors with `extra` idle channels between, for a rank beyond the full one."""
    first, last = weights
    if extra <= 0:
        return weights
    return (
        torch.cat([first, first.new_zeros(extra, *first.shape[1:])]),
        torch.cat([last, last.new_zeros(last.shape[0], extra, *last.shape[2:])], dim=1),
    )


_FORMS: Mapping[tuple[str, str], type[Form]] = {
    ("Separable", "depthwise_first"): _DepthwiseFirst,
    ("Separable", "pointwise_first"): _PointwiseFirst,
    ("Asymmetric", ""): _Asymmetric,
    ("LowRank", ""): _LowRank,
    ("Bottleneck", ""): _Bottleneck,
}
