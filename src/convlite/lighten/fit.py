"""Closed forms: for each kind, the factors that best stand in for a dense kernel (see `target.py` for "best").

A form is made for one layer, all groups of it, and answers for every rank: what all ranks share, the
decompositions, is worked out once. The factor nearest the output is solved for exactly; depthwise factors of narrow
layers in turn with it (alternating least squares).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..kinds import Asymmetric, Bottleneck, Conv, Kind, LowRank, Permuted, Separable
from .canonical import Canonical
from .compose import of_bottleneck, of_columns, of_groups, of_outputs, of_slices, of_terms
from .form import Factors, Form, falling, rank_of, widened
from .grouping import assigned, partition
from .target import Prefixes, Target, leading, lower, solve, strongest

SWEEPS = 2  # alternations between the two factors of a separable sum
HOLD = "Asymmetric", "Bottleneck", "LowRank", "Permuted", "Separable"  # those that can hold a dense kernel
LARGEST = 600, 1200  # unknowns beyond which depthwise factors stay: as one of many ranks, and alone
PART = 2**22  # numbers that pointwise first holds at once


def form_of(kind: Kind, dense: Conv, target: Target, most: int | None = None, begun: Sequence[Tensor] = ()) -> Form:
    """The closed form that fits this kind, at this rank and, with `most`, at larger ones.

    Arguments: as those of `Form`.

    Raises:
        InputError: the kind is no linear chain that a dense kernel can be decomposed into.
    """
    made = _form(kind) if kind.linear else None
    if made is None:
        raise InputError(
            f"{kind} can't hold a trained dense kernel: decompose into one of {', '.join(HOLD)}, with nothing "
            "between."
        )
    return made(kind, dense, target, most, begun)


def fit(kind: Kind, layer: Conv, target: Target, begun: Sequence[Tensor] = ()) -> Factors:
    """The factors of `kind` for a convolution that come nearest a target.

    Arguments:
        begun: weights of that kind to begin with, where they are found step by step.

    Raises:
        InputError: the kind is no linear chain that a kernel can be decomposed into.
    """
    own = share_of(kind, layer)
    each = [weight.double().unflatten(0, (layer.groups, -1)) for weight in begun]
    return form_of(own, layer.one_group, target, begun=each).fit(own)


def share_of(kind: Kind, layer: Conv) -> Kind:
    """What a kind is to each of the groups of a convolution: its ranks are theirs together."""
    if layer.groups == 1:
        return kind
    match kind:
        case Asymmetric() | LowRank():
            return replace(kind, rank=kind.inner(layer) // layer.groups)
        case Bottleneck():
            a, b = kind.ranks(layer)
            return replace(kind, rank_in=a // layer.groups, rank_out=b // layer.groups)
    return kind


def family(kind: Kind) -> tuple[str, str | int]:
    """What kinds of different rank have in common."""
    match kind:
        case Separable():
            return "Separable", kind.order
        case LowRank():
            return "LowRank", kind.slices
        case Bottleneck():
            return "Bottleneck", min(kind.slices, 2)
    return type(kind).__name__, ""


class _Sliced(Form):
    """Each slice of the input channels to r features; then what reads and what makes them in turn.

    A slice of one channel is the depthwise term of a separable sum (arXiv 1808.05517); of several, a share of a
    sliced low rank (arXiv 2107.11442).
    """

    @property
    def _slices(self) -> int:
        return self.c if isinstance(self.kind, Separable) else self.kind.slices

    @property
    def _moments_by_slice(self) -> Tensor:
        """S by slice and what is in it: (G, s, d, s, d)."""
        s = self._slices
        d = self.target.second.shape[1] // s
        return self.target.second.reshape(self.g, s, d, s, d)

    @cached_property
    def _directions(self) -> Tensor:  # (G, s, r, d), the most used first
        rows = self.target.weight.view(self.g, self.m, self._slices, -1).transpose(1, 2)  # (G, s, m, d)
        own = self._moments_by_slice.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)  # (G, s, d, d)
        return leading(rows, own, min(self.most, own.shape[-1]))

    @cached_property
    def _shared(self) -> Prefixes:
        """Terms come one after the other, each of all slices, so that the first r·s features are r terms."""
        return Prefixes(*self._moments(self._directions))

    def _moments(self, filters: Tensor) -> tuple[Tensor, Tensor]:
        """What features of filters (G, s, r, d) share with each other and with the outputs, in order (r, s)."""
        g, s, r, d = filters.shape
        seen = torch.einsum("gsrk,gsktl->gsrtl", filters, self._moments_by_slice)
        gram = torch.einsum("gsrtl,gtql->grsqt", seen, filters).reshape(g, r * s, r * s)
        right = torch.einsum("gsrk,gmsk->grsm", filters, self.target.cross.view(g, self.m, s, d))
        return gram, right.reshape(g, r * s, self.m)

    def _alternates(self, r: int) -> bool:
        return r * self.c * self.kk <= LARGEST[self.alone]

    def fit(self, kind: Any) -> Factors:
        m, r, (g, s, most, d) = self.m, rank_of(kind, self.dense), self._directions.shape
        if r > most:
            raise InputError(f"A kernel of {self.dense.k} has at most {d} terms in a slice, given {r}.")
        filters = self._directions[:, :, :r]
        last = self._shared.last(r * s).reshape(g, m, r, s)
        cross = self.target.cross.view(g, m, s, d)
        for _ in range(SWEEPS if self._alternates(r) else 0):
            flat = last.permute(0, 3, 2, 1).reshape(g, s * r, m)
            both = (flat @ flat.mT).view(g, s, r, 1, s, r, 1)
            gram = (both * self._moments_by_slice.view(g, s, 1, d, s, 1, d)).reshape(g, s * r * d, s * r * d)
            wanted = torch.einsum("gmrs,gmsk->gsrk", last, cross)
            filters = solve(gram, wanted.reshape(g, -1, 1)).view(g, s, r, d)
            filters = filters / filters.flatten(2).norm(dim=2).clamp_min(1e-300)[..., None, None]
            gram, right = self._moments(filters)
            last = solve(gram, right).mT.reshape(g, m, r, s)
        if isinstance(kind, Separable):  # t·C + c is term t of channel c
            first, compose = filters.transpose(1, 2), partial(of_terms, s)
        else:  # a slice's terms stand together
            first, last, compose = filters, last.transpose(2, 3), partial(of_slices, s)
        weights = first.reshape(g, r * s, -1, self.kh, self.kw), last.reshape(g, m, r * s, 1, 1)
        return Factors(weights, compose)


class _PointwiseFirst(Form):
    """Each output channel's C×K² slice to rank r; then its pixels and its channels in turn. For one group."""

    def fit(self, kind: Separable) -> Factors:
        m, c, kk, r = self.m, self.c, self.kk, kind.multiplier
        if r > kk:
            raise InputError(f"A kernel of {self.dense.k} has at most {kk} separable terms, given {r}.")
        slices, second = self.target.weight.view(m, c, kk), self.blocks[0]
        spread = second.diagonal(dim1=0, dim2=2).sum(-1)  # (K², K²): moments of the pixels over all channels
        depthwise = leading(slices, spread.expand(m, kk, kk), r)  # (M, r, K²)
        crossed = self.target.cross.view(m, c, kk)
        by_pixel, by_channel = second.transpose(0, 1).reshape(kk, -1), second.reshape(c, -1)
        pointwise = torch.empty(m, r, c, dtype=slices.dtype, device=slices.device)
        step = max(1, PART // (r * second.numel() // kk))
        for some in torch.arange(m, device=slices.device).split(step):  # each output has its own factors
            n, d, wanted = len(some), depthwise[some], crossed[some]  # (n, r, K²), (n, C, K²)
            for _ in range(1 if c * r > 32 else SWEEPS):
                half = (d.flatten(0, 1) @ by_pixel).view(n, r * c * c, kk)
                seen = (half @ d.mT).view(n, r, c, c, r).transpose(3, 4).reshape(n, r * c, r * c)
                a = solve(seen, (d @ wanted.mT).view(n, -1, 1)).view(n, r, c)
                a = a / a.norm(dim=2, keepdim=True).clamp_min(1e-300)
                half = (a.flatten(0, 1) @ by_channel).view(n, r * kk, c, kk)
                seen = (a[:, None] @ half).view(n, r * kk, r * kk)
                d = solve(seen, (a @ wanted).view(n, -1, 1)).view(n, r, kk)
            depthwise[some], pointwise[some] = d, a
        terms = pointwise.transpose(0, 1)  # t·M + m is term t of channel m
        weights = terms.reshape(1, r * m, c, 1, 1), depthwise.view(1, m, r, self.kh, self.kw)
        return Factors(weights, of_outputs)


class _Asymmetric(Form):
    """SVD of the (Kw·M)×(C·Kh) unfolding (Jaderberg et al., arXiv 1405.3866), then the 1×K solved for."""

    @cached_property
    def _vertical(self) -> Tensor:  # (G, R, C·Kh)
        g, tall, kw = self.g, self.c * self.kh, self.kw
        rows = self.target.weight.view(g, self.m, tall, kw).transpose(2, 3).reshape(g, self.m * kw, tall)
        columns = self.target.second.reshape(g, tall, kw, tall, kw).diagonal(dim1=2, dim2=4).sum(-1)
        return leading(rows, columns, min(self.most, tall))  # of moments (G, C·Kh, C·Kh)

    @cached_property
    def _shared(self) -> Prefixes:
        return _projected(self._vertical, self.target, self.kw)

    def fit(self, kind: Asymmetric) -> Factors:
        g, m, c, kh, kw = self.g, self.m, self.c, self.kh, self.kw
        wanted = rank_of(kind, self.dense)
        rank = min(wanted, self._vertical.shape[1])
        vertical, horizontal = self._vertical[:, :rank], self._shared.last(rank * kw).reshape(g, m, rank, kw)
        weights = vertical.reshape(g, rank, c, kh, 1), horizontal.reshape(g, m, rank, 1, kw)
        return Factors(widened(weights, wanted - rank), of_columns)


class _LowRank(Form):
    """The leading directions of the output (Zhang et al., arXiv 1505.06798): reduced-rank regression."""

    @cached_property
    def _outputs(self) -> Tensor:  # (G, m, R)
        rows = self.target.weight @ lower(self.target.second)
        return strongest(rows.mT, min(self.most, self.m))

    def fit(self, kind: LowRank) -> Factors:
        wanted = rank_of(kind, self.dense)
        rank = min(wanted, self.m)
        expand = self._outputs[..., :rank]  # (G, m, R)
        spatial = expand.mT @ self.target.weight  # (G, R, D)
        weights = spatial.view(self.g, rank, self.c, self.kh, self.kw), expand[..., None, None]
        return Factors(widened(weights, wanted - rank), partial(of_slices, 1))


class _Bottleneck(Form):
    """Tucker-2 (Kim et al., arXiv 1511.06530): input directions, the K×K solved for, output directions."""

    @cached_property
    def _reduce(self) -> Tensor:  # (G, a, C)
        by_pixel = self.target.weight.view(self.g, self.m, self.c, self.kk).transpose(2, 3)
        rows = by_pixel.reshape(self.g, self.m * self.kk, self.c)
        channels = self.blocks.diagonal(dim1=2, dim2=4).sum(-1)  # (G, C, C)
        return leading(rows, channels, min(self.most, self.c))

    @cached_property
    def _shared(self) -> Prefixes:
        return _projected(self._reduce, self.target, self.kk)

    def _outputs(self, a: int) -> tuple[Tensor, Tensor]:
        """How the outputs of the best kernel on `a` input directions vary: Zᵀ·Z is E[ŷ·ŷᵀ]."""
        explained = self._shared.explained[:, : a * self.kk]
        return falling(explained.mT @ explained)

    def fit(self, kind: Bottleneck) -> Factors:
        g, kk = self.g, self.kk
        a, b = self._ranks(kind)
        reduce, core = self._reduce[:, :a], self._shared.last(a * kk)  # (G, a, C), (G, m, a·K²)
        expand = self._outputs(a)[1][..., :b]  # (G, m, b)
        spatial = (expand.mT @ core).view(g, b, a, kk)
        weights = reduce[..., None, None], spatial.view(g, b, a, self.kh, self.kw), expand[..., None, None]
        return Factors(weights, of_bottleneck)

    def _ranks(self, kind: Bottleneck) -> tuple[int, int]:
        a, b = kind.ranks(self.dense)
        if a > self.c or b > self.m:
            raise InputError(f"{kind} is wider inside than the {self.c} channels in or the {self.m} out: lower it.")
        return a, b


class _Permuted(Form):
    """Channels that belong together in a group, then least squares in each (Zhao & Luk, arXiv 1811.09341).

    Of a convolution that has no groups yet.
    """

    @cached_property
    def _use(self) -> Tensor:  # (M, C): the energy in each output of what each input brings alone
        rows, own = self.target.weight.view(self.m, self.c, self.kk), self.blocks[0].diagonal(dim1=0, dim2=2)
        return torch.einsum("mck,klc,mcl->mc", rows, own, rows).clamp_min(0)

    def fit(self, kind: Permuted) -> Factors:
        m, c, kk, g = self.m, self.c, self.kk, kind.groups
        _, inputs = partition(self._use, g)
        into = inputs.argsort(stable=True)  # (C,), group by group
        columns = (into[:, None] * kk + torch.arange(kk, device=into.device)).view(g, -1)  # (g, C/g·K²)
        grams = self.target.second[0][columns[:, :, None], columns[:, None]]  # (g, D/g, D/g)
        right = self.target.cross[0][:, columns].permute(1, 2, 0)  # (g, D/g, M)
        each = solve(grams, right)  # of every output on every group's inputs
        outputs = assigned((each * right).sum(1).T)  # what they explain decides where an output belongs
        out = outputs.argsort(stable=True)  # (M,)
        rows = each.permute(0, 2, 1)[outputs[out], out]  # (M, D/g), group by group
        orders = into, out
        return Factors((rows.reshape(1, m, c // g, self.kh, self.kw),), partial(of_groups, orders), orders)


def _projected(directions: Tensor, target: Target, inner: int) -> Prefixes:
    """Least squares on features directions ⊗ identity: (G, q, X) of inputs laid out as (X, inner), so ordered."""
    g, q, outer = directions.shape
    second = target.second.reshape(g, outer, inner * outer * inner)
    seen = (directions @ second).view(g, q, inner, outer, inner)
    gram = torch.einsum("gqixj,gpx->gqipj", seen, directions).reshape(g, q * inner, q * inner)
    right = torch.einsum("gqx,gmxi->gqim", directions, target.cross.view(g, -1, outer, inner))
    return Prefixes(gram, right.reshape(g, q * inner, -1))


def _form(kind: Kind) -> type[Form] | None:
    match kind:
        case Separable(order="depthwise_first"):
            return _Sliced
        case Separable():
            return _PointwiseFirst
        case Asymmetric():
            return _Asymmetric
        case LowRank():
            return _LowRank if kind.slices == 1 else _Sliced
        case Bottleneck():
            return _Bottleneck if kind.slices == 1 else Canonical
        case Permuted():
            return _Permuted
    return None
