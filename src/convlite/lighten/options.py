"""Everything that could stand in one layer's place, with what it costs and what it loses."""

from __future__ import annotations

from torch import nn

from .calibrate import RIDGE, row_weights
from .fit import fit
from .observe import Observed
from .plan import Option, candidates
from .survey import Layer


def options_of(module: nn.Conv2d, layer: Layer, at: Observed) -> list[Option]:
    """The dense convolution first, then every candidate that no other beats in both cost and error.

    Arguments:
        module: the dense convolution.
        layer: its value and how often it runs.
        at: what was observed there.
    """
    target = at.sums.target(module.weight, centred=at.conv.bias)
    rows = row_weights(at)
    steadied = at.sums.target(module.weight, centred=at.conv.bias, ridge=RIDGE).weighted(rows)
    energy = max(float(target.energy.sum()), 1e-300)
    options = [Option(None, layer.cost(None), 0.0, 0.0)]
    for kind in candidates(at.conv):
        errors = target.error(fit(kind, at.conv, steadied).kernel / rows[:, None])  # (M,)
        options.append(
            Option(kind, layer.cost(kind), float((errors * at.gain).sum()), float(errors.sum()) / energy)
        )
    return [
        one
        for i, one in enumerate(options)
        if not any(_beats(other, one) or (_ties(other, one) and j < i) for j, other in enumerate(options))
    ]


def _key(option: Option) -> tuple[float, float, float]:
    return option.cost.macs, option.cost.params, option.error


def _beats(a: Option, b: Option) -> bool:
    return _key(a) != _key(b) and all(x <= y for x, y in zip(_key(a), _key(b)))


def _ties(a: Option, b: Option) -> bool:
    return _key(a) == _key(b)
