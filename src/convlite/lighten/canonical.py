"""The form of a bottleneck with a depthwise K×K within: a sum of terms, whose factors are all fitted at once."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..kinds import Bottleneck
from .compose import of_canonical, products
from .form import Factors, Form, falling, widened
from .target import Prefixes, Target, lower, solve

TRIES = 48, 400  # of other terms: as one of many ranks, and alone;
AGAIN = 100  # and of those that have begun
WORK = 2**33, 2**37  # multiply-accumulates beyond which there are fewer
DOUBLE = 1024  # numbers of a patch, beyond which tries are in single precision, as are those of one of many ranks
TOGETHER = 2  # times as many where there are groups, which take their steps together: what suits one may not others
LEAST = 4  # tries, below which the terms to begin with are the last ones
EVEN = 1e-3  # of terms' power, for each part lost, added while they are tried: they may grow against each other
HISTORY = 10  # of steps
SHORT = 1e-6  # of the most used term's curvature, the least that any is taken to have
SHORTEST = 1e-12  # length of a row that has a direction


class Canonical(Form):
    """1×1, depthwise K×K, 1×1: terms of rank 1 in outputs, inputs and pixels.

    A canonical polyadic decomposition (Lebedev et al., arXiv 1412.6553, with K×K as one mode) in the norm of the
    outputs. The factor of the outputs is best for any terms (variable projection: Golub and Pereyra 1973); what is
    lost then depends on the other two, which quasi-Newton steps bring nearer together, in all groups: those that
    take factors in turn need many times as many.
    """

    @property
    def _begun(self) -> tuple[Tensor, Tensor] | None:
        """Inputs (G, R, C) and pixels (G, R, K²) of terms that were fitted before, where all are in use."""
        if not self.begun:
            return None
        inputs, pixels = (weight.flatten(2) for weight in self.begun[:2])
        used = inputs.any(2) & pixels.any(2)
        return (F.normalize(inputs, dim=2), F.normalize(pixels, dim=2)) if bool(used.all()) else None

    @cached_property
    def _begin(self) -> tuple[Tensor, Tensor]:
        """Inputs (G, R, C) and pixels (G, R, K²) of the terms to begin with, the most used first.

        Each direction of the outputs is a C×K² slice, whose singular vectors, in the norm of the mean moments of
        channels and of pixels, are terms.
        """
        rows = self.target.weight
        slices = (falling(rows @ self.target.second @ rows.mT)[1].mT @ rows).view(self.g, self.m, self.c, self.kk)
        channels = lower(self.blocks.diagonal(dim1=2, dim2=4).mean(-1)).mT[:, None]  # (G, 1, C, C)
        taps = lower(self.blocks.diagonal(dim1=1, dim2=3).mean(-1)).mT[:, None]  # (G, 1, K², K²)
        left, used, right = torch.linalg.svd(channels @ slices @ taps.mT, full_matrices=False)
        most = used.flatten(1).argsort(descending=True, stable=True)[:, : self.most, None]  # (G, R, 1)

        def used_most(vectors: Tensor, whitening: Tensor) -> Tensor:
            every = torch.linalg.solve_triangular(whitening, vectors, upper=True).mT.flatten(1, 2)
            return F.normalize(every.take_along_dim(most, 1), dim=2)

        return used_most(left, channels), used_most(right.mT, taps)

    @cached_property
    def _shared(self) -> Prefixes:
        """Of the terms to begin with, for every rank at which there are no tries."""
        terms = products(*self._begin)
        return Prefixes(terms @ self.target.second @ terms.mT, terms @ self.target.cross.mT)

    def _begin_with(self, inputs: Tensor, pixels: Tensor) -> None:
        """Let the terms of one rank begin those of the next: so few tries do, where ranks rise."""
        (every, all_pixels), r = self._begin, inputs.shape[1]
        self._begin = torch.cat([inputs, every[:, r:]], 1), torch.cat([pixels, all_pixels[:, r:]], 1)
        vars(self).pop("_shared", None)

    def fit(self, kind: Bottleneck) -> Factors:
        wanted = kind.slices
        if kind.ranks(self.dense) != (wanted, wanted):
            raise InputError(f"{kind} can't hold a dense kernel: of those in slices a depthwise one alone can.")
        begun = self._begun
        inputs, pixels = (each[:, :wanted] for each in begun or self._begin)  # (G, R, C), (G, R, K²)
        r, most = inputs.shape[1], AGAIN if begun else TRIES[self.alone]
        most *= min(self.g, TOGETHER)
        tries = min(most, WORK[self.alone] // (r * self.target.second.numel()))
        if tries >= LEAST:
            inputs, pixels = self._nearer(inputs, pixels, tries)
            if not self.alone and tries < most:
                self._begin_with(inputs, pixels)
        terms = products(inputs, pixels)
        as_begun = begun is None and tries < LEAST
        last = self._shared.last(r) if as_begun else _last(self.target, terms)[0].mT  # (G, m, R)
        first, spatial = inputs[..., None, None], pixels.view(self.g, r, 1, self.kh, self.kw)
        first, expand = widened((first, last[..., None, None]), wanted - r)
        spatial = torch.cat([spatial, spatial.new_zeros(self.g, wanted - r, *spatial.shape[2:])], dim=1)
        return Factors((first, spatial, expand), of_canonical)

    def _nearer(self, inputs: Tensor, pixels: Tensor, tries: int) -> tuple[Tensor, Tensor]:
        """Terms that lose less, of length 1, after so many tries of others (Liu and Nocedal 1989)."""
        each = self.target.energy.sum(1)  # (G,)
        energy, target = float(each.sum()), self.target
        if not self.alone or self.c * self.kk > DOUBLE:
            target = replace(target, second=target.second.float(), cross=target.cross.float())
        terms = products(inputs, pixels).to(target.second)
        last, seen, explained = _last(target, terms)
        power = target.second.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]  # (G, 1, 1)
        curvature = last.square().sum(2, keepdim=True).double() * power / max(energy, 1e-300)  # (G, R, 1)
        if not curvature.max() > 0:  # nothing is asked for
            return inputs, pixels
        left = (1 - explained / each.clamp_min(1e-300)).clamp_min(0)  # (G,)
        ridge = EVEN * left * (seen * terms).sum(2).mean(1)
        # only the directions of x count: the longer a row, the less a step turns it
        long = curvature.clamp_min(SHORT * float(curvature.max())).sqrt()
        x = torch.cat([inputs * long, pixels * long], 2)  # (G, R, C + K²)

        def lost() -> Tensor:
            """The part of the energy that is lost; its gradient is left in `x.grad`."""
            inputs, pixels = _directions(x, self.c)
            terms = products(inputs, pixels).to(target.second)
            last, seen, explained = _last(target, terms, ridge)
            # ∂/∂terms: the last factor, being best, adds none
            felt = (last @ (last.mT @ seen - target.cross)).double().view(*inputs.shape, self.kk)  # (G, R, C, K²)
            by = (felt @ pixels[..., None])[..., 0], (inputs[:, :, None] @ felt)[:, :, 0]  # (G, R, C), (G, R, K²)
            turned = [_turned(one, each) for one, each in zip(x.split([self.c, self.kk], 2), by)]
            x.grad = torch.cat(turned, 2) * (2 / energy)
            return 1 - explained.sum() / energy

        steps = torch.optim.LBFGS(
            [x], max_iter=tries, max_eval=tries, history_size=HISTORY, line_search_fn="strong_wolfe"
        )
        steps.step(lost)
        return _directions(x, self.c)


def _last(target: Target, terms: Tensor, ridge: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """What makes the outputs of the terms (G, R, D) best: (G, R, m); terms·S; the energy it explains (G,)."""
    seen = terms @ target.second
    gram, right = (seen @ terms.mT).double(), (terms @ target.cross.mT).double()
    if ridge is not None:
        gram.diagonal(dim1=1, dim2=2).add_(ridge[:, None])
    last = solve(gram, right)
    return last.to(terms), seen, (last * right).sum((1, 2))


def _directions(x: Tensor, c: int) -> tuple[Tensor, Tensor]:
    """Inputs (G, R, C) and pixels (G, R, K²) of length 1, from rows of both."""
    return F.normalize(x[..., :c], dim=2), F.normalize(x[..., c:], dim=2)


def _turned(x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient by rows x (…, n) of what has this gradient by their directions x / ‖x‖."""
    length = x.norm(dim=-1, keepdim=True).clamp_min(SHORTEST)
    unit = x / length
    return (gradient - unit * (unit * gradient).sum(-1, keepdim=True)) / length
