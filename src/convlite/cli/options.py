"""The options that several verbs take, so that each means the same everywhere; and how answers are shown."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console, RenderableType

from ..errors import ConvliteError, InputError, RunError

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A family's name, timm:NAME, path/file.py:factory, or a saved folder.",
        show_default=False,
    ),
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="DATA",
        help="digits (built in), a folder that holds a folder of pictures for each class, or pictures in images "
        "and a class a pixel in masks, an archive of such, a parquet file, WebDataset shards, or OWNER/NAME on the "
        "Hugging Face hub.",
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The folder to write to.", show_default=False)]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="The seed of every random choice.")]
Device = Annotated[
    str | None,
    typer.Option("--device", metavar="NAME", help="cpu, cuda or mps; the fastest there is where left out."),
]
Input = Annotated[
    str | None,
    typer.Option(
        "--input",
        metavar="CxHxW",
        help="Size of an image, as 3x224x224; what the model was made for where left out.",
    ),
]
Conv = Annotated[
    str | None,
    typer.Option(
        "--conv",
        metavar="KIND",
        help="The kind of a family's spatial convolutions: normal, separable, 'grouped(4)', "
        "'separable(multiplier=2)', ... The published one where left out.",
    ),
]
Pretrained = Annotated[
    str | None,
    typer.Option(
        "--pretrained",
        metavar="FILE",
        help="Published weights for a family: a file of timm, torchvision, Keras or convlite, or timm/NAME on the "
        "Hugging Face hub. Pictures are then treated as these weights want them.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="OPTION=VALUE", help="An option of a family, as width=0.5 or aux=true; may be repeated."
    ),
]
Like = Annotated[
    str | None,
    typer.Option(
        "--like",
        metavar="MODEL",
        help="For a folder saved from a network of no family: what it was lightened from.",
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="N|FILE",
        help="Of masks: how many classes they have, or a file that names them, one a line. What is in classes.txt "
        "beside them where left out, or as many as they hold.",
    ),
]
Ignore = Annotated[
    int | None,
    typer.Option(
        "--ignore", metavar="N", min=0, max=255, help="Of masks: the value of pixels of no class; 255 if left out."
    ),
]
Streaming = Annotated[
    bool, typer.Option("--streaming", help="Take tables and shards row by row as they come, unpacking nothing.")
]
SkipCorrupt = Annotated[
    bool, typer.Option("--skip-corrupt", help="Leave out pictures that can't be read, instead of stopping.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]

Size = tuple[int, int, int]


class Stopped(ConvliteError):
    """Ctrl-C ended the work, and there is a way to go on with it."""


def size_of(text: str | None) -> Size | None:
    """(C, H, W) from "3x224x224".

    Raises:
        InputError: no such sizes.
    """
    if text is None:
        return None
    parts = text.lower().replace("×", "x").split("x")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise InputError(f"An input is written as channels x height x width, like 3x224x224, given {text!r}.")
    channels, height, width = map(int, parts)
    return channels, height, width


def device_of(name: str | None) -> torch.device:
    """The device of that name; the fastest there is where None.

    Raises:
        InputError: no such device here.
    """
    if name is None:
        return torch.accelerator.current_accelerator() or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):  # the second where torch was built without it
        raise InputError(f"There is no device {name!r} here: give cpu, or leave --device out.") from None


def show(answer: dict[str, Any], as_json: bool, *tables: RenderableType) -> None:
    """Print the answer on stdout: the JSON object alone, or the tables; a string is never broken or styled."""
    if as_json:
        say(json.dumps(answer, ensure_ascii=False) + "\n")
        return
    console = Console(file=sys.stdout, highlight=False)
    with _answering():
        for table in tables:
            plain = isinstance(table, str)  # commands and paths, to be copied
            console.print(table, markup=not plain, soft_wrap=plain)


def say(text: str) -> None:
    """Print on stdout as it is."""
    with _answering():
        sys.stdout.write(text)


@contextlib.contextmanager
def _answering() -> Iterator[None]:
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # the reader has seen enough, which typer ends without a word
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails on it again at its end
        raise RunError(f"The answer can't be written: {error.strerror or error}.") from error
