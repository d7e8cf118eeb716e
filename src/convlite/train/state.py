"""What a run has come to: all that going on where it stopped takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .average import Average
from .history import History


@dataclass
class Sums:
    """Of the epoch so far: over what was judged, and over images."""

    loss: float = 0.0
    right: float = 0.0
    judged: float = 0.0
    images: float = 0.0
    seconds: float = 0.0


@dataclass
class State:
    """Everything that a step changes.

    No random state is among it: each step draws from a generator seeded by the run's seed and the step's number.

    Arguments:
        net: the network itself; its optimiser, average and gradient scaler likewise.
        steps: done in the epoch that is under way, whose number is one more than the history's length.
    """

    net: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: Average | None = None
    history: History = field(default_factory=History)
    steps: int = 0
    sums: Sums = field(default_factory=Sums)

    @property
    def epoch(self) -> int:
        """The number of the epoch that is under way, from 1."""
        return len(self.history.epochs) + 1

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of it, by name, on the CPU; a copy each, also of those that share their memory."""
        names: dict[Tensor, str] = {tensor: name for name, tensor in self.net.named_parameters()}
        found = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        for tensor, slots in self.optimiser.state.items():
            for slot, value in slots.items():
                if isinstance(value, Tensor):
                    found[f"optimiser.{slot}.{names[tensor]}"] = value
        if self.average is not None:
            found |= {f"average.{name}": tensor for name, tensor in self.average.tensors.items()}
        return {name: _plain(tensor) for name, tensor in found.items()}

    def numbers(self) -> dict[str, Any]:
        """Everything else of it, as plain JSON types."""
        return {
            "steps": self.steps,
            "sums": asdict(self.sums),
            "history": self.history.to_dict(),
            "scaler": self.scaler.state_dict(),
            "averaged": None if self.average is None else self.average.steps,
        }

    def load(self, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Become what `tensors` and `numbers` were; each tensor keeps its own layout in memory."""
        self.net.load_state_dict(_below("net.", tensors))
        parameters = dict(self.net.named_parameters())
        for key, value in _below("optimiser.", tensors).items():
            slot, _, name = key.partition(".")
            if value.shape == (tensor := parameters[name].detach()).shape:  # laid out in memory as the weights are
                value = torch.empty_like(tensor).copy_(value)
            self.optimiser.state[parameters[name]][slot] = value
        if self.average is not None:
            self.average.load(_below("average.", tensors), numbers["averaged"])
        self.scaler.load_state_dict(numbers["scaler"])
        self.history = History.from_dict(numbers["history"])
        self.steps, self.sums = numbers["steps"], Sums(**numbers["sums"])


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
