"""One layer, every kind of convolution in its place: what each promises, and what this machine makes of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..cost import Cost
from ..kinds import (
    Asymmetric,
    Bottleneck,
    Conv,
    Depthwise,
    Grouped,
    Kind,
    LowRank,
    Normal,
    Pointwise,
    Separable,
    Shuffled,
    Stacked,
    conv,
)
from .latency import Machine, Timing, machine, measure, using
from .table import conv_to_dict

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True, slots=True)
class Choice:
    """One kind of convolution in a layer's place.

    Arguments:
        kind, formula: the kind, and its parameters in the study notes' letters.
        cost: exact, for one image.
        promised: how many times fewer multiply-accumulates than the normal convolution.
        ms: measured here, by memory layout; empty where nothing was measured.
        speedup: how many times faster than the normal convolution in the same layout.
        ratios: its params, macs and bytes over those of the normal convolution.
    """

    kind: str
    formula: str
    cost: Cost
    promised: float
    ms: dict[str, Timing]
    speedup: dict[str, float]
    ratios: dict[str, float] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """What the figures warn of."""
        slow = [layout for layout, times in self.speedup.items() if times < 1 < self.promised]
        return f"fewer MACs, not faster ({', '.join(slow)})" if slow else ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; quartiles are called `low` and `high`."""
        return {
            "kind": self.kind,
            "formula": self.formula,
            **self.cost.to_dict(),
            "bytes": self.cost.bytes,
            "promised": self.promised,
            "ratios": self.ratios,
            "ms": {
                layout: {
                    "median": t.median, "low": t.q1, "high": t.q3, "runs": t.runs, "speedup": self.speedup[layout],
                }
                for layout, t in self.ms.items()
            },
            "note": self.note,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every kind in one layer's place.

    Arguments:
        layer: the convolution, as it would be if it were normal.
        choices: each kind that can stand there, the normal one first.
        left_out: each that can't, and why.
        machine: where the milliseconds are from; None where nothing was measured.
    """

    layer: Conv
    choices: tuple[Choice, ...]
    left_out: dict[str, str]
    machine: Machine | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "layer": conv_to_dict(self.layer),
            "layouts": list(self.choices[0].ms),
            "kinds": [choice.to_dict() for choice in self.choices],
            "left_out": [{"kind": kind, "why_not": reason} for kind, reason in self.left_out.items()],
            "machine": None if self.machine is None else self.machine.to_dict(),
        }


def candidates(dense: Conv, groups: int = 4) -> tuple[Kind, ...]:
    """One of each kind to try in a layer's place, without activations between.

    Arguments:
        groups: of the grouped kinds.
    """
    return (
        Normal(),
        Grouped(groups),
        Depthwise(max(1, dense.m // dense.c)),
        Pointwise(),
        Separable(),
        Separable("pointwise_first"),
        Asymmetric(),
        Stacked(),
        Bottleneck(),
        LowRank(),
        Shuffled(groups),
    )


def compare(
    c: int,
    m: int,
    k: int | tuple[int, int] = 3,
    size: int | tuple[int, int] = 56,
    *,
    stride: int | tuple[int, int] = 1,
    dilation: int | tuple[int, int] = 1,
    groups: int = 4,
    kinds: Sequence[Kind] | None = None,
    batch: int = 1,
    rounds: int = 20,
    seconds: float | None = 20.0,
    threads: int | None = None,
) -> Comparison:
    """What each kind of convolution would cost in the place of one normal convolution, and how fast it is
    here.

    Arguments:
        c, m, k: channels in and out, kernel size; stride, dilation: as everywhere.
        size: height and width of its input; the padding keeps it.
        groups: of the grouped kinds.
        kinds: which to compare with the normal one; all of `candidates` where left out.
        batch: images at once, for the measurement; costs are for one.
        rounds: timed rounds, all kinds and both memory layouts in each; 0 to measure nothing.
        seconds: a budget for them; see `latency.measure`.
        threads: how many to run on; torch's own choice where left out.

    Raises:
        InputError: sizes that no convolution can have.
    """
    h, w = (size, size) if isinstance(size, int) else size
    dense = conv(c=c, m=m, k=k, stride=stride, dilation=dilation, h=h, w=w)
    return compare_in(
        dense, groups=groups, kinds=kinds, batch=batch, rounds=rounds, seconds=seconds, threads=threads
    )


def compare_in(
    dense: Conv,
    *,
    groups: int = 4,
    kinds: Sequence[Kind] | None = None,
    batch: int = 1,
    rounds: int = 20,
    seconds: float | None = 20.0,
    threads: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Comparison:
    """The same for a convolution that is given as a value, on any device and in any number type; see `compare`."""
    wanted = candidates(dense, groups) if kinds is None else (Normal(), *(k for k in kinds if k != Normal()))
    costs: dict[Kind, Cost] = {}
    left_out: dict[str, str] = {}
    seen: dict[tuple[Conv, ...], Kind] = {}
    for kind in wanted:
        reason = kind.why_not(dense)
        if reason is None and kind.layers(dense) in seen:
            reason = f"here it is the same as {seen[kind.layers(dense)]}"
        if reason:
            left_out[str(kind)] = reason
        else:
            seen[kind.layers(dense)] = kind
            costs[kind] = kind.cost(dense)
    times: dict[tuple[str, Kind], Timing] = {}
    if rounds:
        with using(threads):
            here = machine(device, dtype)
            x = torch.rand(batch, dense.c, dense.h, dense.w, device=device, dtype=dtype)  # (N, C, H, W)
            times = _measured(dense, list(costs), x, rounds, seconds)
    normal = costs[Normal()]
    choices = tuple(
        Choice(
            kind=str(kind),
            formula=kind.formula,
            cost=cost,
            promised=normal.macs / cost.macs,
            ms={layout: times[layout, kind] for layout in LAYOUTS if times},
            speedup={
                layout: times[layout, Normal()].median / times[layout, kind].median for layout in LAYOUTS if times
            },
            ratios={name: getattr(cost, name) / getattr(normal, name) for name in ("params", "macs", "bytes")},
        )
        for kind, cost in costs.items()
    )
    return Comparison(dense, choices, left_out, here if rounds else None)


def _measured(
    dense: Conv, kinds: list[Kind], x: torch.Tensor, rounds: int, seconds: float | None
) -> dict[tuple[str, Kind], Timing]:
    """Milliseconds by (memory layout, kind); every run in the same interleaved rounds."""
    calls: dict[str, Callable[[], object]] = {}
    for kind in kinds:
        module = kind.build(dense).to(x.device, x.dtype).eval()
        for layout, memory in LAYOUTS.items():
            calls[f"{layout} {kind}"] = _call(_laid_out(module, memory), x.contiguous(memory_format=memory))
    with torch.inference_mode():
        found = measure(calls, rounds=rounds, seconds=seconds, device=x.device)
    return {(layout, kind): found[f"{layout} {kind}"] for kind in kinds for layout in LAYOUTS}


def _laid_out(module: nn.Module, memory: torch.memory_format) -> nn.Module:
    copied = copy.deepcopy(module)
    for parameter in copied.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=memory)
    return copied


def _call(module: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    return lambda: module(x)
