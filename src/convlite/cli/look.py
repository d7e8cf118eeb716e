"""The verbs that look: models, cost, compare."""

from __future__ import annotations

from typing import Annotated, Any

import torch
import typer

from ..analyse import analyse
from ..analyse.compare import compare as compared
from ..data.progress import track
from ..errors import InputError
from ..kinds import parse
from ..models import FAMILIES, create
from ..report import tables
from .model import find
from .options import Conv, Input, Json, Like, Model, show, size_of

BY = ("macs", "params", "bytes", "other_ops")


def models(conv: Conv = None, as_json: Json = False) -> None:
    """List the families of networks, with what they cost as published or with another kind of convolution.

    Example: convlite models --conv separable
    """
    kind = None if conv is None else parse(conv)
    found: list[dict[str, Any]] = []
    for name, family in track(FAMILIES.items(), len(FAMILIES), "counting"):
        with torch.device("meta"):  # no weights are needed, and some networks have many
            net = create(name, conv=kind)
        table = analyse(net, family.input)
        found.append(
            {
                "name": name,
                "input": list(family.input),
                "classes": family.classes,
                "params": table.params,
                "macs": table.macs,
                "paper": family.paper,
                "placed": net.placed,
                "kept": len(net.kept),
            }
        )
    show({"models": found}, as_json, tables.models(found))


def cost(
    model: Model,
    input: Input = None,
    conv: Conv = None,
    depth: Annotated[
        int, typer.Option("--depth", metavar="N", min=0, help="Sum up modules down to this level.")
    ] = 2,
    layers: Annotated[bool, typer.Option("--layers", help="Show every layer, in the order they run.")] = False,
    top: Annotated[
        int | None, typer.Option("--top", metavar="N", min=1, help="Show the N most expensive layers.")
    ] = None,
    by: Annotated[str, typer.Option("--by", metavar="WHAT", help=f"What --top goes by: {', '.join(BY)}.")] = "macs",
    like: Like = None,
    as_json: Json = False,
) -> None:
    """Show where the parameters and multiply-accumulates (MACs) of a network are.

    Example: convlite cost xception --top 10

    Example: convlite cost xception --conv normal
    """
    if by not in BY:
        raise InputError(f"--by takes {', '.join(BY)}, given {by!r}.")
    size = size_of(input)
    found = find(model, conv=conv, channels=size[0] if size else None, like=like)
    table = analyse(found.net, found.size(size))
    kept = dict(getattr(found.net, "kept", {}))
    answer = table.to_dict() | {"model": model, "kept": kept}
    if layers or top:
        shown = tables.layers(table, table.top(top, by) if top else table.rows)
    else:
        shown = tables.costs(table, depth=depth)
    show(answer, as_json, shown, *tables.kept(kept))


def compare(
    channels_in: Annotated[int, typer.Option("--in", metavar="C", min=1, help="Channels in.", show_default=False)],
    channels_out: Annotated[
        int, typer.Option("--out", metavar="M", min=1, help="Channels out.", show_default=False)
    ],
    kernel: Annotated[int, typer.Option("--kernel", metavar="K", min=1, help="Size of the kernel.")] = 3,
    size: Annotated[int, typer.Option("--size", metavar="N", min=1, help="Height and width of the input.")] = 19,
    stride: Annotated[int, typer.Option("--stride", metavar="N", min=1, help="Stride.")] = 1,
    groups: Annotated[int, typer.Option("--groups", metavar="G", min=1, help="Groups of the grouped kinds.")] = 4,
    batch: Annotated[int, typer.Option("--batch", metavar="N", min=1, help="Images at once.")] = 1,
    rounds: Annotated[
        int, typer.Option("--rounds", metavar="N", min=0, help="Timed rounds; 0 measures nothing.")
    ] = 20,
    as_json: Json = False,
) -> None:
    """Put every kind of convolution in the place of one layer: what each promises, and what it takes here.

    The promised ratio counts multiply-accumulates. The time is measured, in both memory layouts of torch.

    Example: convlite compare --in 728 --out 728 --kernel 3 --size 19
    """
    found = compared(
        channels_in, channels_out, kernel, size, stride=stride, groups=groups, batch=batch, rounds=rounds
    ).to_dict()
    show(found, as_json, tables.comparison(found))
