"""Milliseconds of each layer, measured inside the whole network.

A layer run alone again and again finds its input in the cache and flatters itself; so each module is timed where it
stands. The network runs with and without the clocks in turn: what the clocks cost, and what no module accounts
for, is part of the answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .borrow import untouched, unwrap
from .inputs import failure, is_shape
from .latency import Machine, Timing, evaluating, machine, timing


@dataclass(frozen=True, slots=True)
class LayerTimes:
    """Where a forward's time goes.

    Arguments:
        bare: the network as it is.
        timed: the same with a clock around each module, run in turn with it.
        layers: each module's own milliseconds, without the modules inside it, by its path; over all its calls.
        machine: what it was measured on.
        layout: how the weights of its convolutions lie in memory, "contiguous" or "channels_last".
    """

    bare: Timing
    timed: Timing
    layers: Mapping[str, Timing]
    machine: Machine
    layout: str = "contiguous"

    @property
    def overhead(self) -> float:
        """Milliseconds that the clocks cost; within the spread of `bare` it is noise."""
        return self.timed.median - self.bare.median

    @property
    def unattributed(self) -> float:
        """Milliseconds of the bare network that the layers don't add up to; negative where they exceed it."""
        return self.bare.median - sum(one.median for one in self.layers.values())

    def within(self, path: str) -> float:
        """Milliseconds of a module with everything inside it: the sum of the medians."""
        prefix = f"{path}." if path else ""
        return sum(one.median for name, one in self.layers.items() if name == path or name.startswith(prefix))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "bare": self.bare.to_dict(),
            "timed": self.timed.to_dict(),
            "overhead": self.overhead,
            "unattributed": self.unattributed,
            "layers": {path: one.to_dict() for path, one in self.layers.items()},
            "machine": self.machine.to_dict(),
            "layout": self.layout,
        }


def time_layers(
    model: nn.Module,
    input: Any,
    *,
    rounds: int = 20,
    warmup: int = 3,
    seconds: float | None = None,
    minimum: int = 5,
) -> LayerTimes:
    """Time each module of a network in its place, in eval and inference mode.

    Arguments:
        model: with its weights, on the device to measure on. One from `torch.compile` is timed uncompiled: compiled
            code has no modules.
        input: a shape without the batch (random numbers are drawn), or a tensor, or a tuple or mapping of them.
        rounds, warmup, seconds, minimum: as in `latency.measure`.

    Raises:
        InputError: fewer than one round, or the forward fails on such an input.
    """
    if rounds < 1:
        raise InputError(f"Timing needs a round at least, given {rounds}.")
    model = unwrap(model)
    weight = next(iter(model.parameters()), torch.empty(0))
    args, kwargs = _inputs(input, weight)
    clock: _Clock = _GpuClock() if weight.device.type == "cuda" else _Clock()
    bare: list[float] = []
    timed: list[float] = []
    layers: dict[str, list[float]] = {}
    with untouched(model), evaluating(model), torch.inference_mode():
        paths = dict(model.named_modules())
        start = time.perf_counter()
        for done in range(-warmup, rounds):
            if done == 0:
                start = time.perf_counter()
            if seconds is not None and done >= minimum and time.perf_counter() - start > seconds:
                break
            found: dict[bool, tuple[float, dict[str, float]]] = {}
            for watching in (done % 2 == 0, done % 2 == 1):
                try:
                    found[watching] = _one_run(model, paths if watching else {}, clock, args, kwargs)
                except Exception as error:  # a model may raise anything
                    raise failure("forward", paths, None, (args, kwargs), error) from error
            if done >= 0:
                bare.append(found[False][0])
                timed.append(found[True][0])
                for path, milliseconds in found[True][1].items():
                    layers.setdefault(path, []).append(milliseconds)
    return LayerTimes(
        bare=timing(bare),
        timed=timing(timed),
        layers={path: timing(values) for path, values in layers.items()},
        machine=machine(weight.device, weight.dtype),
        layout=_layout(model),
    )


def _one_run(
    model: nn.Module, watched: Mapping[str, nn.Module], clock: _Clock, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[float, dict[str, float]]:
    """Milliseconds of one forward, and of each watched module without those inside it."""
    spans: list[tuple[str, str | None, Any, Any]] = []
    stack: list[str] = []
    for path, module in watched.items():
        vars(module)["_call_impl"] = _around(path, module, clock, spans, stack)
    try:
        clock.wait()
        start = clock.now()
        model(*args, **kwargs)
        end = clock.now()
        clock.wait()
    finally:
        for module in watched.values():
            del vars(module)["_call_impl"]
    own: dict[str, float] = {}
    for path, parent, began, ended in spans:
        spent = clock.between(began, ended)
        own[path] = own.get(path, 0.0) + spent
        if parent is not None:
            own[parent] = own.get(parent, 0.0) - spent
    return clock.between(start, end), own


def _around(
    path: str, module: nn.Module, clock: _Clock, spans: list[tuple[str, str | None, Any, Any]], stack: list[str]
) -> Callable[..., Any]:
    call = module._call_impl

    def timed(*args: Any, **kwargs: Any) -> Any:
        parent = stack[-1] if stack else None
        stack.append(path)
        began = clock.now()
        try:
            return call(*args, **kwargs)
        finally:
            spans.append((path, parent, began, clock.now()))
            stack.pop()

    return timed


class _Clock:
    """The processor's clock."""

    def now(self) -> Any:
        return time.perf_counter()

    def between(self, start: Any, end: Any) -> float:
        """Milliseconds."""
        return 1e3 * (end - start)

    def wait(self) -> None:
        """Let all work that was begun end."""


class _GpuClock(_Clock):
    """The GPU's own clock, read by events in its stream."""

    def now(self) -> Any:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, start: Any, end: Any) -> float:
        return float(start.elapsed_time(end))

    def wait(self) -> None:
        torch.cuda.synchronize()


def _layout(model: nn.Module) -> str:
    """A kernel of one pixel or for one channel lies alike in both."""
    kernels = (p for p in model.parameters() if p.dim() == 4 and p.shape[1] > 1 and p[0, 0].numel() > 1)
    one = next(kernels, None)
    last = one is not None and not one.is_contiguous() and one.is_contiguous(memory_format=torch.channels_last)
    return "channels_last" if last else "contiguous"


def _inputs(input: Any, weight: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named arguments with data, on the model's device; shapes become random numbers."""
    dtype = weight.dtype if weight.is_floating_point() else torch.get_default_dtype()

    def filled(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(weight.device)
        if is_shape(value):
            return torch.rand(1, *value, dtype=dtype, device=weight.device)
        if isinstance(value, Mapping):
            return {name: filled(one) for name, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [filled(one) for one in value]
        return value

    if isinstance(input, Mapping):
        return (), {name: filled(value) for name, value in input.items()}
    if isinstance(input, (tuple, list)) and not is_shape(input):
        return tuple(filled(value) for value in input), {}
    return (filled(input),), {}
