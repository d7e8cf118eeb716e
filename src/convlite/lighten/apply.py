"""A plan put into effect without any data."""

from __future__ import annotations

import copy

from torch import nn

from ..errors import InputError
from ..kinds import Kind
from ..models.surgery import Weighted, replace_
from .decompose import decompose
from .plan import Plan
from .survey import unwrap


def apply(net: nn.Module, plan: Plan) -> nn.Module:
    """A copy of `net` with the plan's structure, ready for the light network's weights.

    The new layers hold the closed forms of `net`'s own weights, fitted to the weights alone.

    Arguments:
        net: the network that the plan was made for, or one with the same convolutions; left as it is.
        plan: from `lighten`, or `Plan.from_json`.

    Returns:
        The light network, in eval mode.

    Raises:
        InputError: the plan names a convolution that `net` does not have, or that has other sizes.
    """

    def build(path: str, old: Weighted, kind: Kind) -> nn.Module:
        try:
            return decompose(old, kind)[0]
        except InputError as error:
            raise InputError(f"The plan does not fit this network at {path!r}: {error}") from error

    light = copy.deepcopy(unwrap(net)).eval()
    return replace_(light, {step.path: step.kind for step in plan.steps}, build)
