"""On what, and in which precision, a run computes; none of it is part of what is learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import InputError, nearest, need
from ..kernels import Recorded, Work, convolutions
from ..models.backbone import Backbone
from . import processes

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """How a run uses the machine.

    Arguments:
        device: `cpu`, `cuda`, `mps`; by default the fastest that accelerate finds.
        precision: of the layers that bear it; weights stay in single precision. `fp16` scales its gradients.
        compile: let torch.compile make the training step's code: minutes at first, then mostly faster.
        recompute: keep a backbone's activations only between its steps, which saves memory and costs a third
            more time.
        graphs: on a GPU, record a step once for each size of the images and replay it: where layers are small,
            several times faster. Not for networks in which Python chooses anew in each step.

    Raises:
        InputError: no such precision, or graphs together with compile or recompute.
    """

    device: str | None = None
    precision: str = "fp32"
    compile: bool = False
    recompute: bool = False
    graphs: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"There is no precision {self.precision!r}: {nearest(self.precision, PRECISIONS)}")
        if self.graphs and (self.compile or self.recompute):
            raise InputError("A recorded step is neither compiled nor recomputed: leave graphs out, or those.")


class Machine:
    """A `Compute` that has found its device, and its place among the processes that were started with it.

    Raises:
        InputError: no such device, none that records, or accelerate is not installed.
    """

    def __init__(self, how: Compute) -> None:
        self.how = how
        self.accelerator = _accelerator(how.device)
        self.device: torch.device = self.accelerator.device
        if how.graphs and (self.device.type != "cuda" or processes.count() > 1):
            raise InputError(f"Steps are recorded in one process on cuda, not on {self.device}: leave graphs out.")
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=how.precision == "fp16")

    def prepare(self, model: nn.Module) -> nn.Module:
        """Move the network to the device, in place; what training calls in its stead.

        Raises:
            InputError: a network that can't recompute.
        """
        if self.how.recompute and not isinstance(model, Backbone):
            raise InputError("Only the families can recompute activations: leave recompute out.")
        model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        called = torch.compile(model) if self.how.compile else model
        prepared: nn.Module = self.accelerator.prepare_model(called)
        return prepared

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of a forward pass."""
        dtype = PRECISIONS[self.how.precision]
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    def recorded(self, net: nn.Module, learn: Work) -> Work:
        """What runs the network forward and backward; recorded, if that was asked for."""
        return Recorded(net, learn) if self.how.graphs else learn

    def convolutions(self, model: nn.Module, say: Callable[[str], object]) -> AbstractContextManager[object]:
        """Meanwhile convlite's own kernels do what they do faster, and what is not safe in torch runs otherwise."""
        eager = not self.how.compile
        return convolutions(model, say, compiled=eager and self.how.precision == "fp32", products=eager)

    @contextmanager
    def recomputing(self, model: nn.Module) -> Iterator[None]:
        """Meanwhile a backbone keeps little, if that was asked for."""
        if not self.how.recompute or not isinstance(model, Backbone):
            yield
            return
        before, model.checkpointing = model.checkpointing, True
        try:
            yield
        finally:
            model.checkpointing = before

    def apart(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Meanwhile gradients are gathered in each process by itself."""
        context: AbstractContextManager[Any] = self.accelerator.no_sync(model)
        return context


def _accelerator(device: str | None) -> Any:
    accelerate = need("accelerate", "train")
    wanted = None if device is None else device.partition(":")[0]
    if wanted is None and torch.accelerator.current_accelerator() is None:
        wanted = "cpu"  # accelerate joins processes without a GPU only where it is told so
    try:
        found = accelerate.Accelerator(cpu=wanted == "cpu", mixed_precision="no")
    except ValueError:  # accelerate keeps one device for the life of a process
        raise InputError(
            "This process has trained on another device before: start a new one for the CPU."
        ) from None
    if found.num_processes != processes.count():
        raise InputError(
            f"Several processes can't train together on {found.device.type!r}: start one, or give cpu."
        )
    if wanted not in (None, found.device.type):
        raise InputError(f"There is no device {device!r} to train on here, only {found.device.type!r}: give that.")
    return found
