"""From a recipe to torch's optimisers: which tensors decay, and at which rate each learns."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..models.backbone import Backbone
from .recipe import Recipe

RMS_DECAY = 0.9  # of the mean of squares, in every paper named among the recipes


def optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser of all that is not frozen.

    Raises:
        InputError: everything is frozen, or rates by layer are asked for where no layers are known.
    """
    of = groups(model, recipe)
    if not of:
        raise InputError("Every tensor of the network is frozen, which leaves nothing to train: freeze less.")
    rate, momentum, epsilon = recipe.rate, recipe.momentum, recipe.epsilon
    one = True if all(p.device.type == "cuda" for group in of for p in group["params"]) else None  # launch for all
    match recipe.optimiser:
        case "rmsprop":
            return torch.optim.RMSprop(of, lr=rate, alpha=RMS_DECAY, eps=epsilon, momentum=momentum)
        case "adamw":
            return torch.optim.AdamW(of, lr=rate, betas=(momentum, 0.999), eps=epsilon, fused=one)
        case name:
            nesterov = name == "nesterov" and momentum > 0
            return torch.optim.SGD(of, lr=rate, momentum=momentum, nesterov=nesterov, fused=one)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """The rate of the next step, each group's by its own share."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["share"]


def groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Tensors that learn alike: weights with decay; biases and norms, all of one dimension, without.

    Depthwise filters have none either: so few numbers each that decay only weakens them (Howard et al. 2017,
    section 4).
    """
    shares = _shares(model, recipe.layer_decay)
    depthwise = {m.weight for m in model.modules() if isinstance(m, nn.Conv2d) and 1 < m.groups == m.in_channels}
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, tensor in model.named_parameters():
        if tensor.requires_grad:
            decay = recipe.weight_decay if tensor.ndim > 1 and tensor not in depthwise else 0.0
            found.setdefault((decay, shares.get(name, 1.0)), []).append(tensor)
    return [
        {"params": tensors, "weight_decay": decay, "share": share}
        for (decay, share), tensors in sorted(found.items(), key=lambda item: item[0], reverse=True)
    ]


def _shares(model: nn.Module, decay: float) -> dict[str, float]:
    """{parameter: its part of the rate}; the head's is 1, and each step's `decay` times the next one's."""
    if decay == 1:
        return {}
    if not isinstance(model, Backbone):
        raise InputError(
            f"layer_decay={decay} needs a network whose layers come in a known order, one of the families: "
            "leave it at 1."
        )
    steps = list(model.steps())
    return {
        f"{path}.{name}": decay ** (len(steps) - i)
        for i, (path, step) in enumerate(steps)
        for name, _ in step.named_parameters()
    }
