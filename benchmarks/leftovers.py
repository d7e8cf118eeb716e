"""What somebody left behind in a network, in torch and in the random state."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

OWNERS = {"torch": torch, "F": F, "Tensor": torch.Tensor, "nn.Module": nn.Module}


class Photograph:
    """A network, torch's functions and the random state, as they are now.

    `left()` says what is different since; `restore()` gives torch its functions back.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.modules = {path: _module(module) for path, module in net.named_modules()}
        self.values = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
        self.random, self.gradients = torch.get_rng_state(), torch.is_grad_enabled()
        self.functions = {
            (owner, name): inspect.getattr_static(place, name)
            for owner, place in OWNERS.items()
            for name in dir(place)
            if callable(getattr(place, name, None))
        }

    def left(self) -> list[str]:
        """One phrase for each kind of thing that was not there before, or is gone."""
        hooks, attributes, modes = 0, set(), 0
        for path, module in self.net.named_modules():
            names, hooked, mode = _module(module)
            before = self.modules.get(path, (set(), 0, mode))
            attributes |= names ^ before[0]
            hooks += hooked - before[1]
            modes += mode != before[2]
        state = self.net.state_dict()
        patched = sorted(self._patched())  # "F.conv2d" comes before "torch.add"
        changed = [name for name, value in self.values.items() if name in state and not state[name].equal(value)]
        return [
            *([f"{hooks} hooks"] if hooks else []),
            *([f"attributes {', '.join(sorted(attributes))}"] if attributes else []),
            *([f"{len(state) - len(self.values)} entries in state_dict"] if len(state) != len(self.values) else []),
            *([f"mode of {modes} modules"] if modes else []),
            *([f"values of {len(changed)} parameters or buffers"] if changed else []),
            *([f"{len(patched)} functions patched, {patched[0]} among them"] if patched else []),
            *(["random state"] if not torch.equal(self.random, torch.get_rng_state()) else []),
            *(["gradients switched"] if self.gradients != torch.is_grad_enabled() else []),
        ]

    def _patched(self) -> list[str]:
        return [
            f"{owner}.{name}"
            for (owner, name), function in self.functions.items()
            if inspect.getattr_static(OWNERS[owner], name, None) is not function
        ]

    def restore(self) -> None:
        """Torch as it was, so that nobody counts with what another left."""
        for (owner, name), function in self.functions.items():
            if inspect.getattr_static(OWNERS[owner], name, None) is not function:
                setattr(OWNERS[owner], name, function)
        torch.set_grad_enabled(self.gradients)


def _module(module: nn.Module) -> tuple[set[str], int, Any]:
    """Names of a module's attributes and buffers, how many hooks it has, and its mode."""
    attributes = vars(module)
    hooks = sum(len(value) for name, value in attributes.items() if name.endswith("_hooks"))
    return {*attributes, *module._buffers, *module._parameters}, hooks, module.training
