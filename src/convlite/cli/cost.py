"""The verb cost."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from ..analyse import (
    MEASURED_FIGURES,
    ROW_FIGURES,
    Spec,
    Table,
    alternatives,
    dtype_of,
    examine,
    filled,
    float_type,
    largest,
    modules,
    priced,
    read_onnx,
    read_report,
    read_spec,
    report,
    summary,
    to_csv,
    to_html,
    to_markdown,
)
from ..analyse import diff as differ
from ..analyse import what_if as kinds_instead
from ..data.progress import track
from ..errors import InputError
from ..files import check_writable, write_text
from ..kinds import parse
from ..report import costs, tables
from .model import find
from .options import Conv, Device, Json, Like, Set, device_of, say, show

Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="SIZES",
        help="Sizes without the batch, as 3x224x224; what the model was made for where left out. Once for each "
        "input; 128:int64 has a type, image=3x224x224 a name, batch.image=3x224x224 is an entry of a dictionary.",
    ),
]
FORMATS = {"csv": to_csv, "markdown": to_markdown, "html": to_html}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def _file(form: str) -> Any:
    return typer.Option(
        f"--{form}", metavar="FILE", help=f"Write the rows as {form.upper()}; - for standard output."
    )


@dataclass(frozen=True)
class How:
    """How a MODEL is made and looked at: the options of the command line."""

    input: tuple[Spec, ...] = ()
    batch: int = 1
    conv: str | None = None
    set: tuple[str, ...] = ()
    like: str | None = None
    dtype: str | None = None
    memory: bool = False
    measure: bool = False
    device: str | None = None
    layout: str | None = None
    threads: int | None = None
    rounds: int | None = None

    @property
    def given(self) -> list[str]:
        """The options that were given, as they are written."""
        return [f"--{one.name}" for one in dataclasses.fields(self) if getattr(self, one.name) != one.default]


def cost(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A family's name, timm:NAME, path/file.py:factory, a saved folder, an ONNX file, or a report "
            "that --json printed.",
            show_default=False,
        ),
    ],
    input: Inputs = None,
    batch: Annotated[int, typer.Option("--batch", metavar="N", min=1, help="Images at once.")] = 1,
    conv: Conv = None,
    settings: Set = None,
    depth: Annotated[
        int | None, typer.Option("--depth", metavar="N", min=0, help="Sum up modules down to this level; 2.")
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Show every layer, in the order they run.")] = False,
    top: Annotated[
        int | None, typer.Option("--top", metavar="N", min=1, help="Show the N most expensive layers.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option("--by", metavar="COLUMN", help=f"Sort layers by {', '.join(ROW_FIGURES)}; ms, of_best."),
    ] = None,
    memory: Annotated[bool, typer.Option("--memory", help="Peak memory of a forward and a training step.")] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time each layer here, beside the best of this machine; and --memory.")
    ] = False,
    as_kind: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="KIND", help="What the whole network would cost with this kind, as separable."
        ),
    ] = None,
    what_if: Annotated[
        bool, typer.Option("--what-if", help="Every kind in the place of each convolution; timed with --measure.")
    ] = False,
    diff: Annotated[
        str | None,
        typer.Option("--diff", metavar="MODEL", help="Show what differs in this one.", show_default=False),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", min=1, help="Threads to measure on; torch's own choice.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option("--rounds", metavar="N", min=1, help="Timed rounds, at most; 20.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", metavar="TYPE", help="Number type, as bfloat16; the model's own.")
    ] = None,
    device: Device = None,
    layout: Annotated[
        str | None, typer.Option("--layout", metavar="NAME", help=f"To measure in: {' or '.join(LAYOUTS)}.")
    ] = None,
    like: Like = None,
    csv: Annotated[str | None, _file("csv")] = None,
    markdown: Annotated[str | None, _file("markdown")] = None,
    html: Annotated[str | None, _file("html")] = None,
    as_json: Json = False,
) -> None:
    """Show what each layer of a network costs, and what it would cost otherwise.

    Parameters and multiply-accumulates (MACs) are counted; milliseconds are measured, in the whole network.

    Example: convlite cost xception --top 10

    Example: convlite cost resnet50 --measure --depth 1

    Example: convlite cost resnet50 --as separable

    Example: convlite cost net.py:net --input 3x64x64 --what-if

    Example: convlite cost resnet50 --diff runs/light
    """
    how = How(
        input=tuple(map(read_spec, input or ())), batch=batch, conv=conv, set=tuple(settings or ()), like=like,
        dtype=dtype, memory=memory, measure=measure, device=device, layout=layout, threads=threads, rounds=rounds,
    )  # fmt: skip
    files = {name: file for name, file in (("csv", csv), ("markdown", markdown), ("html", html)) if file}
    rows_only = [f"--{name}" for name, value in (("layers", layers), ("top", top), ("by", by)) if value]
    others = [f"--{name}" for name, value in (("as", as_kind), ("what-if", what_if), ("layers", layers)) if value]
    others += [f"--{name}" for name in files] + (["--depth"] if depth is not None else [])
    _check(how, [model] if diff is None else [model, diff])
    _refuse(depth is not None and rows_only, "--depth sums up modules, and {} shows single layers")
    _refuse(diff is not None and others, "--diff shows what differs, which has no {}")
    of_rows = [f"--{name}" for name, value in (("layers", layers), ("by", by)) if value]
    of_rows += ["--depth"] if depth is not None else []
    _refuse(what_if and of_rows, "--what-if shows layers by their kinds, and has no {}")
    _refuse([*files.values()].count("-") + as_json > 1 and ["all but one"], "Standard output takes one answer")
    if by is not None and by not in (*ROW_FIGURES, *MEASURED_FIGURES):
        raise InputError(f"--by takes {', '.join((*ROW_FIGURES, *MEASURED_FIGURES))}, given {by!r}.")
    for file in files.values():
        check_writable(Path(file).parent)  # before anything is measured
    kind = None if as_kind is None else parse(as_kind)
    found = _report(model, how)
    if diff is not None:
        answer = (
            differ(found, _report(diff, dataclasses.replace(how, conv=None, set=()))).largest(by, top).to_dict()
        )
        show(answer, as_json, costs.difference(answer))
        return
    table = Table.from_dict(found)
    if kind is not None:
        found["as"] = priced(table, kind).to_dict()
    if what_if:
        found["what_if"] = _instead(table, top, how)
    shown = largest(found, by, top)
    for name, file in files.items():
        text = FORMATS[name](shown)
        say(text) if file == "-" else write_text(Path(file), text)
    if "-" in files.values():
        return
    parts = [
        costs.layers(shown, by) if rows_only else costs.costs(found, modules(found, 2 if depth is None else depth))
    ]
    if what_if:
        parts = [costs.alternatives(found["what_if"])]
    if kind is not None:
        parts.append(costs.price(found["as"]))
    written = [f"Written to {file}." for file in files.values()]
    show(found, as_json, *parts, costs.facts(summary(found)), *tables.kept(found.get("kept", {})), *written)


def _refuse(options: Any, why: str) -> None:
    """Say that options contradict one another, where there are any."""
    if options:
        names = ", ".join(options)
        raise InputError(f"{why.format(names)}: leave {names} out.")


def _check(how: How, models: list[str]) -> None:
    """What was given must mean something for one of the models."""
    measuring = {"--device", "--layout", "--threads", "--rounds"} & set(how.given)
    if measuring and not how.measure:
        raise InputError(f"{', '.join(sorted(measuring))} says how to measure: add --measure.")
    if all(Path(model).suffix == ".json" for model in models):
        _refuse(how.given, "A saved report is as it is, and {} changes nothing about it")
    elif all(Path(model).suffix in (".json", ".onnx") for model in models):
        without = [name for name in how.given if name not in ("--input", "--batch")]
        _refuse(without, "An ONNX file is only counted, and takes no {}")
    if how.layout is not None and how.layout not in LAYOUTS:
        raise InputError(f"--layout takes {' or '.join(LAYOUTS)}, given {how.layout!r}.")


def _report(model: str, how: How) -> dict[str, Any]:
    """What is known about the cost of one MODEL."""
    if Path(model).suffix == ".json":
        return read_report(Path(model))
    if Path(model).suffix == ".onnx":
        return {**report(read_onnx(Path(model), how.input, how.batch)), "model": model, "kept": {}}
    image = how.input[0].shape if len(how.input) == 1 and len(how.input[0].shape) == 3 else None
    found = find(
        model, conv=how.conv, settings=how.set, channels=image[0] if image else None, like=how.like,
        weights=how.measure,
    )  # fmt: skip
    if found.input is not None and how.input and image is None:
        raise InputError(f"{model} takes one image: give its size as --input 3x224x224.")
    net, kept = found.net, dict(getattr(found.net, "kept", {}))
    if how.dtype is not None:
        net = net.to(_floating(how.dtype))
    if how.measure:
        net = net.to(device_of(how.device))
        if how.layout is not None:
            net = net.to(memory_format=LAYOUTS[how.layout])  # type: ignore[call-overload]
    input = filled(how.input or [Spec("", found.size(None), None)], how.batch, float_type(net))
    known = examine(
        net, input, memory=how.memory or how.measure, measure=how.measure, threads=how.threads,
        rounds=how.rounds or 20,
    )  # fmt: skip
    return {**known, "model": model, "kept": kept}


def _floating(name: str) -> torch.dtype:
    found = dtype_of(name)
    if not found.is_floating_point:
        raise InputError(f"A network computes in floating point, as float32 or bfloat16, given --dtype {name}.")
    return found


def _instead(table: Table, top: int | None, how: How) -> list[dict[str, Any]]:
    """Every kind in the place of each layer, timed where that was asked for."""
    places = kinds_instead(
        table,
        top=top,
        rounds=(how.rounds or 20) if how.measure else 0,
        threads=how.threads,
        device=device_of(how.device) if how.measure else "cpu",
        dtype=torch.float32 if how.dtype is None else _floating(how.dtype),
        watch=lambda layers: track(layers, len(layers), "measuring"),
    )
    return alternatives(places)
