"""The form of a bottleneck with a depthwise K×K within: a sum of terms, whose factors are all fitted at once."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..kinds import Bottleneck
from .form import Factors, Form, falling, widened
from .target import Target, lower, solve

TRIES = 48, 400  # of other terms: as one of many ranks, and alone;
AGAIN = 100  # and of those that have begun
WORK = 2**35, 2**38  # multiply-accumulates beyond which there are fewer
DOUBLE = 1024  # numbers of a patch, beyond which tries are in single precision: in half the time, the same errors
LEAST = 4  # tries, below which the terms to begin with are the last ones
EVEN = 1e-3  # of terms' power, for each part lost, added while they are tried: they may grow against each other
HISTORY = 10  # of steps
SHORT = 1e-6  # of the most used term's curvature, the least that any is taken to have


class Canonical(Form):
    """1×1, depthwise K×K, 1×1: terms of rank 1 in outputs, inputs and pixels.

    A canonical polyadic decomposition (Lebedev et al., arXiv 1412.6553, with K×K as one mode) in the norm of the
    outputs. The factor of the outputs is best for any terms (variable projection: Golub and Pereyra 1973); what is
    lost then depends on the other two, which quasi-Newton steps bring nearer together: those that take factors in
    turn need many times as many.
    """

    @property
    def _begun(self) -> tuple[Tensor, Tensor] | None:
        """Inputs (R, C) and pixels (R, K²) of the terms that were fitted before, where they are all in use."""
        if not self.begun:
            return None
        inputs, pixels = (weight.flatten(1) for weight in self.begun[:2])
        used = inputs.any(1) & pixels.any(1)
        return (F.normalize(inputs), F.normalize(pixels)) if bool(used.all()) else None

    @cached_property
    def _begin(self) -> tuple[Tensor, Tensor]:
        """Inputs (R, C) and pixels (R, K²) of the terms to begin with, the most used first.

        Each direction of the outputs is a C×K² slice, whose singular vectors, in the norm of the mean moments of
        channels and of pixels, are terms.
        """
        rows = self.target.weight
        slices = (falling(rows @ self.target.second @ rows.T)[1].T @ rows).view(self.m, self.c, self.kk)
        channels = lower(self.blocks.diagonal(dim1=1, dim2=3).mean(-1)).T  # (C, C)
        taps = lower(self.blocks.diagonal(dim1=0, dim2=2).mean(-1)).T  # (K², K²)
        left, used, right = torch.linalg.svd(channels @ slices @ taps.T, full_matrices=False)
        most = used.flatten().argsort(descending=True, stable=True)[: self.most]
        inputs = torch.linalg.solve_triangular(channels, left, upper=True).mT.flatten(0, 1)[most]
        pixels = torch.linalg.solve_triangular(taps, right.mT, upper=True).mT.flatten(0, 1)[most]
        return F.normalize(inputs), F.normalize(pixels)

    def fit(self, kind: Bottleneck) -> Factors:
        wanted = kind.slices
        if kind.ranks(self.dense) != (wanted, wanted):
            raise InputError(f"{kind} can't hold a dense kernel: of those in slices a depthwise one alone can.")
        begun = self._begun
        inputs, pixels = (each[:wanted] for each in begun or self._begin)  # (R, C), (R, K²)
        r, most = len(inputs), AGAIN if begun else TRIES[self.alone]
        tries = min(most, WORK[self.alone] // (r * self.target.second.numel()))
        if tries >= LEAST:
            inputs, pixels = self._nearer(inputs, pixels, tries)
        terms = _terms(inputs, pixels)
        last = _last(self.target, terms)[0]
        first, spatial = inputs.view(r, self.c, 1, 1), pixels.reshape(r, 1, self.kh, self.kw)
        first, expand = widened((first, last.T.reshape(self.m, r, 1, 1)), wanted - r)
        spatial = torch.cat([spatial, spatial.new_zeros(wanted - r, *spatial.shape[1:])])
        return Factors((first, spatial, expand), last.T @ terms)

    @torch.inference_mode(False)  # gradients are taken whatever the caller's mode
    def _nearer(self, inputs: Tensor, pixels: Tensor, tries: int) -> tuple[Tensor, Tensor]:
        """Terms that lose less, of length 1, after so many tries of others (Liu and Nocedal 1989)."""
        energy, power = float(self.target.energy.sum()), float(self.target.second.diagonal().mean())
        target, like = self.target, inputs
        if self.c * self.kk > DOUBLE:
            target = replace(target, second=target.second.float(), cross=target.cross.float())
            inputs, pixels = inputs.float(), pixels.float()
        terms = _terms(inputs, pixels)
        last, seen, explained = _last(target, terms)
        curvature = last.square().sum(1, keepdim=True) * power / max(energy, 1e-300)  # (R, 1)
        if not curvature.max() > 0:  # nothing is asked for
            return inputs.to(like), pixels.to(like)
        ridge = EVEN * max(0.0, 1 - explained / energy) * float((seen * terms).sum(1).mean())
        # only the directions of x count: the longer a row, the less a step turns it
        x = torch.cat([inputs, pixels], 1) * curvature.clamp_min(SHORT * float(curvature.max())).sqrt()
        x.requires_grad_()

        def lost() -> Tensor:
            terms = _terms(*_directions(x, self.c))
            with torch.no_grad():
                last, seen, explained = _last(target, terms, ridge)
                # ∂/∂terms: the last factor, being best, adds none
                felt = last @ (last.T @ seen - target.cross)
            (x.grad,) = torch.autograd.grad((terms * felt).sum() * (2 / energy), x)
            return like.new_tensor(1 - explained / energy)

        steps = torch.optim.LBFGS(
            [x], max_iter=tries, max_eval=tries, history_size=HISTORY, line_search_fn="strong_wolfe"
        )
        steps.step(lost)
        return _directions(x.detach().to(like), self.c)


def _last(target: Target, terms: Tensor, ridge: float = 0.0) -> tuple[Tensor, Tensor, float]:
    """What makes the outputs of the terms (R, D) best: (R, M); terms·S; how much of the energy it explains."""
    seen = terms @ target.second
    gram, right = (seen @ terms.T).double(), (terms @ target.cross.T).double()
    gram.diagonal().add_(ridge)
    last = solve(gram, right)
    return last.to(terms), seen, float((last * right).sum())


def _directions(x: Tensor, c: int) -> tuple[Tensor, Tensor]:
    """Inputs (R, C) and pixels (R, K²) of length 1, from rows of both."""
    return F.normalize(x[:, :c]), F.normalize(x[:, c:])


def _terms(inputs: Tensor, pixels: Tensor) -> Tensor:
    """The products of inputs (R, C) and pixels (R, K²): (R, D)."""
    return (inputs[:, :, None] * pixels[:, None]).flatten(1)
