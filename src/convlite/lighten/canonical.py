"""The form of a bottleneck with a depthwise K×K within: a sum of terms, whose three factors are fitted in turn."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from ..errors import InputError
from ..kinds import Bottleneck
from .form import Factors, Form, falling, widened
from .target import lower, solve

ROUNDS = 8, 32  # through the factors: as one of many ranks, and alone
STEPS = 2  # of conjugate gradients for each of the two factors that are not solved for exactly
PUSH = 0.8  # how much further than a round went the next one begins
EVEN = 1e-3  # of terms' power, for each part lost, added in these rounds: else they may grow against each other
WORK = 2**34, 2**35  # multiply-accumulates beyond which there are fewer rounds; alone one at least


class Canonical(Form):
    """1×1, depthwise K×K, 1×1: terms of rank 1 in outputs, inputs and pixels, each factor nearer in turn.

    A canonical polyadic decomposition (Lebedev et al., arXiv 1412.6553, with K×K as one mode) in the norm of the
    outputs.
    """

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
        return _unit(inputs), _unit(pixels)

    def fit(self, kind: Bottleneck) -> Factors:
        wanted = kind.slices
        if kind.ranks(self.dense) != (wanted, wanted):
            raise InputError(f"{kind} can't hold a dense kernel: of those in slices a depthwise one alone can.")
        inputs, pixels = best = [terms[:wanted] for terms in self._begin]  # (R, C), (R, K²)
        r, explained, even = len(inputs), 0.0, 0.0
        each = (2 * STEPS + 5) * r * self.target.second.numel()
        rounds = min(ROUNDS[self.alone], max(int(self.alone), WORK[self.alone] // each))
        if rounds:
            lost = 1 - self._explained(inputs, pixels, 0.0) / max(float(self.target.energy.sum()), 1e-300)
            even = EVEN * max(0.0, lost)
        for _ in range(rounds):
            pixels = self._nearer(pixels[:, None], inputs[:, :, None], 1, even)
            inputs = self._nearer(inputs[:, :, None], pixels[:, None], 2, even)
            found = self._explained(inputs, pixels, even)
            if found < explained:  # pushed too far
                inputs, pixels = best
                continue
            explained, before, best = found, best, [inputs, pixels]
            inputs, pixels = (_unit(now + PUSH * (now - then)) for now, then in zip(best, before))
        inputs, pixels = best
        terms = _terms(inputs, pixels)
        last = self._last(terms, 0.0)
        first, spatial = inputs.view(r, self.c, 1, 1), pixels.reshape(r, 1, self.kh, self.kw)
        first, expand = widened((first, last.T.reshape(self.m, r, 1, 1)), wanted - r)
        spatial = torch.cat([spatial, spatial.new_zeros(wanted - r, *spatial.shape[1:])])
        return Factors((first, spatial, expand), last.T @ terms)

    def _last(self, terms: Tensor, even: float) -> Tensor:
        """What makes the outputs of the terms (R, D) best: (R, M); see EVEN."""
        gram = terms @ self.target.second @ terms.T
        gram.diagonal().add_(even * gram.diagonal().mean())
        return solve(gram, terms @ self.target.cross.T)

    def _explained(self, inputs: Tensor, pixels: Tensor, even: float) -> float:
        """Of the outputs' energy."""
        terms = _terms(inputs, pixels)
        return float((self._last(terms, even) * (terms @ self.target.cross.T)).sum())

    def _nearer(self, mine: Tensor, other: Tensor, over: int, even: float) -> Tensor:
        """One factor of the terms after some steps (R, ·), the last being what is best for now.

        Arguments:
            mine, other: inputs (R, C, 1) and pixels (R, 1, K²), or the other way round.
            over: the dimension that `mine` hasn't.
        """
        last = self._last((mine * other).flatten(1), even)
        both, pull = last @ last.T, (last @ self.target.cross).view(-1, self.c, self.kk)

        def product(x: Tensor) -> Tensor:
            seen = both @ ((x * other).flatten(1) @ self.target.second)
            return (seen.view_as(pull) * other).sum(over, keepdim=True)

        scale = both.diagonal()[:, None, None] * self.target.second.diagonal().mean()
        found = _conjugate(product, mine, (pull * other).sum(over, keepdim=True), scale.clamp_min(1e-300))
        return _unit(found.flatten(1))


def _conjugate(product: Callable[[Tensor], Tensor], x: Tensor, wanted: Tensor, scale: Tensor) -> Tensor:
    """A few steps of conjugate gradients from x towards product(x) = wanted (Hestenes and Stiefel 1952)."""
    left = wanted - product(x)
    step = left / scale
    size = (left * step).sum()
    for _ in range(STEPS):
        seen = product(step)
        curve = (step * seen).sum()
        if not (size > 0 and curve > 0):  # there already
            break
        x, left = x + size / curve * step, left - size / curve * seen
        before, size = size, (left * left / scale).sum()
        step = left / scale + size / before * step
    return x


def _terms(inputs: Tensor, pixels: Tensor) -> Tensor:
    """The products of inputs (R, C) and pixels (R, K²): (R, D)."""
    return (inputs[:, :, None] * pixels[:, None]).flatten(1)


def _unit(rows: Tensor) -> Tensor:
    """Rows (n, d) of length 1, or of zeros."""
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-300)
