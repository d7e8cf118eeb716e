"""What a network would cost with other convolutions in it, before anyone builds or trains one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..kinds import Conv, Kind
from .compare import Comparison, compare_in
from .table import ConvUse, Table


@dataclass(frozen=True, slots=True)
class Priced:
    """A network with one kind of convolution wherever that can stand and saves something.

    Arguments:
        kind: the kind, as text.
        params, macs: of the network as it would be; those of today are `params_before` and `macs_before`.
        replaced: the paths of the convolutions that would be of this kind.
        left: the paths of the others, and why.
    """

    kind: str
    params: int
    macs: int
    params_before: int
    macs_before: int
    replaced: tuple[str, ...]
    left: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "replaced": list(self.replaced)}


def priced(table: Table, kind: Kind) -> Priced:
    """What the whole network would cost if each convolution that can be were of this kind.

    Costs are exact: the network built with these replacements counts to the same figures.

    Arguments:
        table: what `analyse` returned for the network.
    """
    params, macs = table.params, table.macs
    replaced: list[str] = []
    left: dict[str, str] = {}
    for path, use in table.convs.items():
        reason = _why_not(use, kind)
        if reason is None:
            after = [kind.cost(conv) for conv in use.calls]
            less_params = use.calls[0].params - after[0].params
            less_macs = sum(conv.cost().macs for conv in use.calls) - sum(cost.macs for cost in after)
            if less_params <= 0 and less_macs <= 0:
                reason = "it would save nothing there"
            else:
                params, macs = params - less_params, macs - less_macs
                replaced.append(path)
        if reason is not None:
            left[path] = reason
    return Priced(str(kind), params, macs, table.params, table.macs, tuple(replaced), left)


def what_if(
    table: Table,
    *,
    kinds: Sequence[Kind] | None = None,
    groups: int = 4,
    top: int | None = None,
    rounds: int = 0,
    seconds: float | None = 2.0,
    threads: int | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    watch: Callable[[list[Conv]], Iterable[Conv]] = iter,
) -> dict[str, Comparison]:
    """Every legal kind in the place of each dense convolution that ran, by its path.

    Arguments:
        table: what `analyse` returned for the network.
        kinds, groups: as in `compare`.
        top: only the so many layers with the most multiply-accumulates.
        rounds: timed rounds for each layer; 0 measures nothing. Equal layers are measured once.
        seconds: a budget for each of them.
        threads, device, dtype: to measure on and in.
        watch: goes through the different layers in its own way, to show how far it is.
    """
    uses = {path: use.calls[0] for path, use in table.convs.items() if use.calls and use.calls[0].groups == 1}
    macs = {path: sum(conv.cost().macs for conv in table.convs[path].calls) for path in uses}
    chosen = set(sorted(uses, key=lambda path: -macs[path])[:top])
    found = {
        conv: compare_in(
            conv, kinds=kinds, groups=groups, rounds=rounds, seconds=seconds, threads=threads, device=device,
            dtype=dtype,
        )
        for conv in watch(list(dict.fromkeys(conv for path, conv in uses.items() if path in chosen)))
    }  # fmt: skip
    return {path: found[conv] for path, conv in uses.items() if path in chosen}


def _why_not(use: ConvUse, kind: Kind) -> str | None:
    if not use.calls:
        return "it never ran"
    if use.computed:
        return "its weight is computed on the way"
    if use.elsewhere:
        return f"its weight is also read by {', '.join(use.elsewhere)}"
    reasons = (kind.why_not(conv) for conv in use.calls)
    return next((reason for reason in reasons if reason is not None), None)
