"""The verbs that bring a network to where it runs: export, bench."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from ..errors import InputError
from ..files import check_writable, write_whole
from ..models import read_weights
from ..preprocess import Preprocess
from ..report import pictures, tables
from ..runtime import ENGINES, PRECISIONS, read_exported
from ..runtime import bench as measured
from ..runtime import export as exported
from ..runtime.bench import TOLERANCE
from ..runtime.export import FORMATS, SUFFIXES, WEIGHTS
from ..runtime.quantise import MAX_DROP, Calibration
from .model import find
from .options import Conv, Input, Json, Like, Model, Pretrained, Set, Size, show, size_of
from .shared import load

FITTED, MEASURED = 256, 1024  # pictures
Pictures = Annotated[
    str | None,
    typer.Option(
        "--data", metavar="DATA", help="Pictures, as for training, that int8 is fitted to and measured on."
    ),
]
MaxDrop = Annotated[
    float,
    typer.Option("--max-drop", metavar="SHARE", help="Accuracy that int8 may cost; agreement, without labels."),
]


def export(
    model: Model,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help="To write: .onnx, .xml, .pt2 or .pte.", show_default=False),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="FORMAT", help=f"{', '.join(SUFFIXES)}; what the file's name ends in says it too."
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option("--precision", metavar="NAME", help=f"Of the weights: {', '.join(WEIGHTS)}.")
    ] = "fp32",
    data: Pictures = None,
    max_drop: MaxDrop = MAX_DROP,
    input: Input = None,
    conv: Conv = None,
    settings: Set = None,
    pretrained: Pretrained = None,
    like: Like = None,
    as_json: Json = False,
) -> None:
    """Write a network for other engines, with its preprocessing and classes in a JSON file beside it.

    Batch norms are folded, any batch and image size goes where the network allows it, and the file is run before
    it is kept. int8 is fitted to pictures of the training part of --data, and measured on those held out.

    Example: convlite export runs/a-light --to onnx --out a.onnx

    Example: convlite export runs/a-light --precision int8 --data digits --out a-int8.onnx
    """
    if precision == "int8" and data is None:
        raise InputError(
            "int8 is fitted to pictures, and none were given: name those it was trained on with --data."
        )
    weights = None if pretrained is None else read_weights(pretrained)
    found = find(model, conv=conv, settings=settings or (), pretrained=weights, trained=True, like=like)
    known, size = found.about.get("preprocess"), found.size(size_of(input))
    form = to or FORMATS.get(out.suffix, "")
    if form not in SUFFIXES:
        raise InputError(f"--out {out} says no format: end it in {', '.join(SUFFIXES.values())}.")
    made = exported(
        found.net,
        out,
        size,
        to=form,
        precision=precision,
        images=calibration(data, size, found.about, max_drop) if data and precision == "int8" else None,
        preprocess=None if known is None else Preprocess.from_dict(known),
        classes=found.about.get("classes", ()),
    )
    show({"model": model, "out": str(out), **made.to_dict()}, as_json, tables.exported(made))


def bench(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="As for other verbs, or an exported file.", show_default=False)
    ],
    input: Input = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine", metavar="NAME", help=f"{', '.join(ENGINES)}; all but the compiler where left out."
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option("--precision", metavar="NAME", help=f"{', '.join(PRECISIONS)}; may be repeated."),
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option("--batch", metavar="N", min=1, help="Images at once; 1 and 8.")
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option("--threads", metavar="N", min=1, help="One a core where left out; may be repeated."),
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", metavar="N", min=1, help="Timed rounds, at most.")] = 20,
    tolerance: Annotated[
        float, typer.Option("--tolerance", metavar="SHARE", help="How far off a winner's scores may be.")
    ] = TOLERANCE,
    data: Pictures = None,
    max_drop: MaxDrop = MAX_DROP,
    memory: Annotated[bool, typer.Option(help="Peak memory too, each in a process of its own.")] = True,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE", help="Draw the times into a PNG file.")
    ] = None,
    conv: Conv = None,
    settings: Set = None,
    like: Like = None,
    as_json: Json = False,
) -> None:
    """Run a network on every engine in turn, and say which is fastest here, and how its answers agree with torch's.

    With --data, answers are compared on its pictures, int8 is fitted to them, and the fastest may lose --max-drop.

    Example: convlite bench runs/a-light --batch 1 --batch 64

    Example: convlite bench runs/a-light --precision fp32 --precision int8 --data digits --picture times.png
    """
    network, size, about = _network(model, size_of(input), conv, settings or (), like)
    if picture is not None:
        check_writable(picture.parent)
    found = measured(
        network,
        size,
        engines=engine or [name for name in ENGINES if name != "torch-compile"],
        precisions=precision or ("fp32",),
        batches=batch or (1, 8),
        threads=threads or None,
        rounds=rounds,
        tolerance=tolerance,
        images=None if data is None else calibration(data, size, about, max_drop),
        memory=memory,
    )
    if picture is not None:
        write_whole(picture, lambda file: file.write_bytes(pictures.bench(found)))
    show({"model": model, **found.to_dict()}, as_json, tables.bench(found))


def calibration(data: str, size: Size | None, about: Any, max_drop: float) -> Calibration:
    """Pictures to fit int8 to, and labelled ones to measure on."""
    from ..data import in_random_order

    loaded = load(data, size, about, False, any_classes=True)
    parts = []
    for images, count in ((loaded.train, FITTED), (loaded.test, MEASURED)):
        source, order = in_random_order(images, 0)
        taken = list(source.parts(order[:count].split(64)))
        if not taken:
            raise InputError(
                f"{data} has no pictures to fit int8 to and to measure it on: give data that has both."
            )
        labels = torch.cat([part.labels for part in taken])
        if loaded.ignore is not None:
            labels = labels.short().masked_fill_(labels == loaded.ignore, -1)
        parts.append((torch.cat([loaded.normalise(part.pixels) for part in taken]), labels))
    (fitted, _), (tested, labels) = parts
    same = tuple(about.get("classes", ())) == loaded.classes  # or else labels mean something else
    return Calibration(fitted, tested, labels if same else None, max_drop)


def _network(
    model: str, size: Size | None, conv: str | None, settings: Sequence[str], like: str | None
) -> tuple[nn.Module | str, Size | None, Any]:
    """The file that was exported, or the network to run; the size of its images, and what is known of it."""
    if Path(model).suffix in FORMATS:
        said = read_exported(model).to_dict()
        return model, size, {key: said[key] for key in ("preprocess", "classes") if said[key]}
    found = find(model, conv=conv, settings=settings, trained=True, like=like)
    return found.net, found.size(size), found.about
