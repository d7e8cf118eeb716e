"""The verbs that look: models, compare; cost has a file of its own."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..analyse import analyse
from ..analyse.compare import compare as compared
from ..data.progress import track
from ..kinds import parse
from ..models import FAMILIES, create
from ..models.weightless import weightless
from ..report import costs, tables
from .options import Conv, Json, show


def models(conv: Conv = None, as_json: Json = False) -> None:
    """List the families of networks, with what they cost as published or with another kind of convolution.

    Example: convlite models --conv separable
    """
    kind = None if conv is None else parse(conv)
    found: list[dict[str, Any]] = []
    for name, family in track(FAMILIES.items(), len(FAMILIES), "counting"):
        with weightless():
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
    show(found, as_json, costs.comparison(found))
