"""All that could stand in one layer's place, with what it costs and what it loses."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import torch
from torch import Tensor, nn

from ..kinds import Kind, LowRank
from .calibrate import RIDGE, mix_for, sees_few
from .candidates import candidates
from .curvature import Curvature
from .fit import family, form_of, share_of
from .form import rank_of
from .plan import Option
from .survey import Layer
from .target import Target


def options_of(
    module: nn.Conv2d | nn.Linear, layer: Layer, target: Target, felt: Curvature, mix: Tensor
) -> list[Option]:
    """The layer as it is first, then every candidate.

    Arguments:
        module: the layer.
        layer: its value and how often it runs.
        target: of the layer on its own inputs, made with RIDGE.
        felt, mix: how the outputs feel it, and the roots of that for its channels.
    """
    energy, conv = max(_energy(target), 1e-300), felt.at.conv
    dense = module.weight.detach().flatten(1)  # (M, D)
    tried = [kind for kind in candidates(conv) if isinstance(module, nn.Conv2d) or isinstance(kind, LowRank)]
    tried.sort(key=lambda kind: (sees_few(kind), family(kind)))
    lost: dict[Kind, float] = {}

    def changes() -> Iterator[Tensor]:  # one after the other, as they may be large
        for _, some in groupby(tried, sees_few):
            first, *others = some
            mixes = mix_for(first, mix)
            mixed, unmix = target.mixed(mixes), torch.linalg.inv(mixes)
            for _, alike in groupby((first, *others), family):
                shares = {kind: share_of(kind, conv) for kind in alike}
                most = max(rank_of(share, conv.one_group) for share in shares.values())
                form = form_of(next(iter(shares.values())), conv.one_group, mixed, most)
                for kind, share in shares.items():
                    kernel = form.fit(share).mixed(unmix).kernel  # (G, m, D)
                    lost[kind] = _lost(target, kernel)
                    yield kernel.flatten(0, 1) - dense

    effects = felt.effects(changes())
    made = [
        Option(kind, layer.cost(kind), effect, max(0.0, error / energy))
        for (kind, error), effect in zip(lost.items(), effects)
    ]
    return [Option(None, layer.cost(None), 0.0), *made]


def _pull(target: Target) -> Tensor:
    """By how much a target made with RIDGE pulls each group (G,) to its dense weight, which is no error."""
    return RIDGE / (1 + RIDGE) * target.second.diagonal(dim1=1, dim2=2).mean(1)


def _energy(target: Target) -> float:
    return float(target.energy.sum() - _pull(target) @ target.weight.square().sum((1, 2)))


def _lost(target: Target, kernel: Tensor) -> float:
    """E[(y - ŷ)²]: a kernel whose last factor is solved for leaves E[y²] - E[y·ŷ]."""
    left = target.energy.sum() - (target.cross * kernel).sum()
    return float(left - _pull(target) @ (kernel - target.weight).square().sum((1, 2)))
