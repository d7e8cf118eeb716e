"""All that could stand in one layer's place, with what it costs and what it loses."""

from __future__ import annotations

from itertools import groupby

import torch
from torch import Tensor, nn

from .calibrate import RIDGE, mix_for
from .candidates import candidates
from .curvature import Curvature
from .fit import family, form_of, rank_of
from .observe import Observed
from .plan import Option
from .survey import Layer


def options_of(module: nn.Conv2d, layer: Layer, at: Observed, felt: Curvature, mix: Tensor) -> list[Option]:
    """The dense convolution first, then every candidate.

    Arguments:
        module: the dense convolution.
        layer: its value and how often it runs.
        at: what was observed there.
        felt, mix: how the outputs feel it, and the root of that for its channels.
    """
    target = at.sums.target(module.weight, centred=at.free, ridge=RIDGE)
    pull = RIDGE / (1 + RIDGE) * target.second.diagonal().mean()  # as the target has it
    energy = (target.energy.sum() - pull * target.weight.square().sum()).clamp_min(1e-300)
    dense = module.weight.detach().flatten(1)  # (M, D)
    options = [Option(None, layer.cost(None), 0.0)]
    for _, alike in groupby(sorted(candidates(at.conv), key=family), family):
        kinds = list(alike)
        own = mix_for(kinds[0], mix)
        unmix = torch.linalg.inv(own)
        form = form_of(kinds[0], at.conv, target.mixed(own), max(rank_of(kind, at.conv) for kind in kinds))
        for kind in kinds:
            kernel = unmix @ form.fit(kind).kernel
            # a kernel whose last factor is solved for leaves E[y²] - E[y·ŷ], of which the pull is no error
            left = target.energy.sum() - (target.cross * kernel).sum()
            lost = float(((left - pull * (kernel - target.weight).square().sum()) / energy).clamp_min(0))
            options.append(Option(kind, layer.cost(kind), felt.effect(kernel - dense), lost))
    return options
