"""All that could stand in one layer's place, with what it costs and what it loses."""

from __future__ import annotations

from itertools import groupby

from torch import nn

from .calibrate import RIDGE, row_weights
from .candidates import candidates
from .fit import family, form_of, rank_of
from .observe import Observed
from .plan import Option
from .survey import Layer


def options_of(module: nn.Conv2d, layer: Layer, at: Observed) -> list[Option]:
    """The dense convolution first, then every candidate.

    Arguments:
        module: the dense convolution.
        layer: its value and how often it runs.
        at: what was observed there.
    """
    rows = row_weights(at)
    target = at.sums.target(module.weight, centred=at.conv.bias, ridge=RIDGE).weighted(rows)
    gain = float((at.gain / rows**2).mean())  # of the weighted outputs
    energy = max(float(target.energy.sum()), 1e-300)
    options = [Option(None, layer.cost(None), 0.0, 0.0)]
    for _, alike in groupby(sorted(candidates(at.conv), key=family), family):
        kinds = list(alike)
        form = form_of(kinds[0], at.conv, target, max(rank_of(kind, at.conv) for kind in kinds))
        for kind in kinds:
            error = max(0.0, form.error(kind))
            options.append(Option(kind, layer.cost(kind), error * gain, error / energy))
    return options
