"""The verbs that put a network to use: predict, serve."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from ..data.progress import track
from ..errors import InputError, RunError, nearest
from ..files import check_writable, read_text, write_whole
from ..preprocess import Preprocess
from ..report import pictures, tables
from ..runtime import Labels, Prediction, find_files, predictor
from ..runtime import predict as answers
from ..runtime.choice import AUTO
from ..runtime.engines import ENGINES
from ..runtime.limits import Limits
from ..runtime.predictor import is_exported
from ..runtime.serve import bind
from ..runtime.serve import serve as run_service
from .model import find, settings_of
from .options import Device, Json, Like, Pretrained, Stopped, device_of, say, show
from .shared import weights_of

NAMED = 5  # unreadable files that one sentence names

Trained = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A saved folder, an exported file, or a family with --pretrained.", show_default=False
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        help=f"{', '.join(ENGINES)}; auto takes torch for little work, else the fastest here, measured once.",
    ),
]
Top = Annotated[int, typer.Option("--top", metavar="N", min=1, help="How many classes to name.")]
Classes = Annotated[
    Path | None,
    typer.Option("--classes", metavar="FILE", help="Names of the classes, one a line, where the model has none."),
]
Threads = Annotated[
    int | None, typer.Option("--threads", metavar="N", min=1, help="Of the engine; one a core where left out.")
]


def predict(
    model: Trained,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILES...",
            help="Pictures, folders of them, patterns, or - for a list of files on stdin.",
            show_default=False,
        ),
    ],
    top: Top = 3,
    overlay: Annotated[
        Path | None,
        typer.Option(
            "--overlay",
            metavar="FOLDER",
            help="Of a network that labels pixels: write each picture with its labels in colour, and its mask.",
        ),
    ] = None,
    jsonl: Annotated[
        str | None,
        typer.Option(
            "--jsonl", metavar="FILE", help="Write a line of JSON for each picture as it comes; - is stdout."
        ),
    ] = None,
    pretrained: Pretrained = None,
    classes: Classes = None,
    engine: Engine = AUTO,
    batch: Annotated[int, typer.Option("--batch", metavar="N", min=1, help="Pictures at once.")] = 16,
    threads: Threads = None,
    device: Device = None,
    like: Like = None,
    as_json: Json = False,
) -> None:
    """Say what pictures show, with a network that convlite trained or exported, or with published weights.

    A picture that can't be read stops nothing: it is named at the end.

    Example: convlite predict runs/a photos/*.jpg

    Example: find . -name '*.jpg' | convlite predict a.onnx - --jsonl answers.jsonl

    Example: convlite predict runs/streets photos --overlay labelled
    """
    if as_json and jsonl == "-":
        raise InputError("--json and --jsonl - both print on stdout: give --jsonl a file, or leave one out.")
    paths = _paths(files)
    network, how, names = _network(model, pretrained, classes, device, engine, like)
    found = predictor(
        network, how, names, engine=engine, count=len(paths), batch=batch, threads=threads, tell=_tell
    )
    if overlay is not None:
        if not found.labels_pixels:
            raise InputError(f"--overlay is for networks that label pixels, and {model} names whole pictures.")
        if len(found.classes) > 256:
            raise InputError(f"A mask holds 256 classes at most, and {model} has {len(found.classes)}.")
        check_writable(overlay)
    session = found.session
    _tell(f"{session.name}, {session.precision}, {session.threads} threads")
    said: list[Prediction] = []
    unread: list[Prediction] = []
    pixels = [0.0] * len(found.classes)
    bar = not (jsonl == "-" and sys.stdout.isatty())
    with _lines(jsonl, len(paths)) as write:
        shown = track(answers(found, paths, top=top, batch_size=batch), len(paths), "predicting", bar)
        for one, place in zip(shown, _placed(paths, overlay or Path()), strict=True):
            if one.why_not is not None:
                unread.append(one)
            if one.labels is not None:
                pixels = [a + b for a, b in zip(pixels, one.labels.shares(len(pixels)))]
                if overlay is not None:
                    _draw(one.labels, place)
            write(one)
            if jsonl is None or as_json:
                said.append(replace(one, labels=None))
    read = len(paths) - len(unread)
    if not read:
        raise InputError(f"None of the files can be read: {_named(unread)}.")
    answer = {"model": model, "engine": session.name, "predictions": [one.to_dict() for one in said]}
    if as_json or jsonl is None:
        legend = [] if overlay is None else [tables.legend(found.classes, [n / read for n in pixels])]
        show(answer, as_json, tables.predictions(said), *legend)
    if unread:
        _tell(f"{len(unread)} of {len(paths)} files can't be read: {_named(unread)}.")


def serve(
    model: Trained,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Where to listen; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help="0 takes a free one.")] = 8000,
    batch: Annotated[int, typer.Option("--batch", metavar="N", min=1, help="Pictures run at once, at most.")] = 8,
    wait: Annotated[
        float, typer.Option("--wait", metavar="MS", min=0, help="How long a picture waits for others to join it.")
    ] = 2.0,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            metavar="NAME=VALUE",
            help=f"What is taken at most: {', '.join(f'{k}={v:g}' for k, v in asdict(Limits()).items())}.",
        ),
    ] = None,
    pretrained: Pretrained = None,
    classes: Classes = None,
    engine: Engine = AUTO,
    threads: Threads = None,
    device: Device = None,
    like: Like = None,
) -> None:
    """Answer over HTTP what pictures show: POST a JPEG, PNG or WebP file to /predict, JSON comes back.

    Pictures that wait are run together. /health and /metrics (for Prometheus) say how it goes, /docs how to ask.
    SIGTERM or Ctrl-C stops it, after the requests under way.

    Example: convlite serve a.onnx --port 8000

    Example: curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' 'http://127.0.0.1:8000/predict?top=3'
    """
    limits = _limits(limit or ())
    with bind(host, port) as door:  # what can be wrong with it is said before the long part
        network, how, names = _network(model, pretrained, classes, device, engine, like)
        found = predictor(
            network, how, names, engine=engine, count=math.inf, batch=batch, threads=threads, tell=_tell
        )
        _tell(f"{found.session.name}, {found.session.precision}, {found.session.threads} threads")
        run_service(found, model, door=door, batch=batch, wait=wait / 1e3, limits=limits, tell=_tell)


def _limits(texts: Sequence[str]) -> Limits:
    given = settings_of("--limit", "body=5000000", texts)
    known = asdict(Limits())
    for name, value in given.items():
        if name not in known:
            raise InputError(f"There is no limit {name!r}; {nearest(name, known)}")
        if not isinstance(value, int | float):
            raise InputError(f"The limit {name} is a number, not {value!r}.")
    return Limits(**given)


def _paths(files: Sequence[str]) -> list[Path]:
    """The files that are meant; those of a list on stdin are taken as they stand there."""
    found: list[Path] = []
    for given in files:
        if given == "-":
            text = sys.stdin.read()
            found += map(Path, filter(None, text.split("\0" if "\0" in text else "\n")))
        else:
            found += find_files([given])
    return found or find_files([])


def _network(
    model: str, pretrained: str | None, classes: Path | None, device: str | None, engine: str, like: str | None
) -> tuple[nn.Module | Path, Preprocess | None, Sequence[str] | None]:
    """A network or its file, how it takes pictures, and its classes; None for what the file knows."""
    names = None if classes is None else read_text(classes).splitlines()
    if is_exported(model):
        return Path(model), None, names
    found = find(model, pretrained=weights_of(pretrained), trained=True, like=like)
    if "preprocess" not in found.about:
        raise InputError(
            f"{model} does not say how it takes pictures: give a folder that convlite trained, or weights with "
            "--pretrained."
        )
    net = found.net.to(device_of(device if engine == AUTO else "cpu"))  # all named engines are the processor's
    return net, Preprocess.from_dict(found.about["preprocess"]), names or found.about.get("classes")


@contextlib.contextmanager
def _lines(to: str | None, count: int) -> Iterator[Callable[[Prediction], object]]:
    """What writes a prediction as a line: whole, and at once; or does nothing where `to` is None."""
    if to is None:
        yield lambda one: None
        return
    done = 0
    with contextlib.nullcontext() if to == "-" else _opened(Path(to)) as file:

        def write(one: Prediction) -> None:
            nonlocal done
            line = json.dumps(one.to_dict()) + "\n"  # ASCII: names of files may be any bytes
            if file is None:
                say(line)
            else:
                _put(file, line.encode(), to)
            done += 1

        try:
            yield write
        except KeyboardInterrupt:
            raise Stopped(f"{done} of {count} pictures are answered, a whole line each.") from None


def _opened(path: Path) -> FileIO:
    try:
        return path.open("wb", buffering=0)
    except OSError as error:
        raise InputError(f"Can't write {path}: {error.strerror or error}; choose another place.") from error


def _put(file: FileIO, line: bytes, name: str) -> None:
    try:
        while line:
            line = line[file.write(line) or 0 :]
    except OSError as error:
        raise RunError(f"Can't write on in {name}: {error.strerror or error}.") from error


def _draw(labels: Labels, path: Path) -> None:
    for end, image in (("overlay", pictures.overlay(labels)), ("mask", pictures.mask(labels))):
        write_whole(path.with_name(f"{path.name}.{end}.png"), partial(_write, image))


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _placed(files: Sequence[Path], folder: Path) -> Iterator[Path]:
    """Where in a folder each file's results go: as the files lie to each other."""
    whole = [file.parent.resolve() / file.name for file in files]
    common = os.path.commonpath([file.parent for file in whole])
    return (folder / file.relative_to(common) for file in whole)


def _named(unread: Sequence[Prediction]) -> str:
    more = f", and {len(unread) - NAMED} more" if len(unread) > NAMED else ""
    return "; ".join(f"{one.file} ({one.why_not})" for one in unread[:NAMED]) + more


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - stdout is for answers
