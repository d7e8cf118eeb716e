"""The verbs that make a trained network light: lighten, demo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import Tensor

from .. import data as datasets
from ..demo import demo as run_demo
from ..errors import InputError
from ..files import check_writable, write_text
from ..lighten import Budget
from ..lighten import lighten as make_light
from ..models.saved import save
from ..report import tables
from ..train import Recipe, augmentation
from ..train import evaluate as measure
from ..train.seeds import derive
from .model import about_of, find
from .options import (
    Data,
    Device,
    Input,
    Json,
    Like,
    Model,
    Out,
    Pretrained,
    Seed,
    SkipCorrupt,
    device_of,
    show,
    size_of,
)
from .shared import load, next_command, side, weights_of


def lighten(
    model: Model,
    out: Out,
    macs: Annotated[
        float | None, typer.Option("--macs", metavar="SHARE", help="Multiply-accumulates to keep, in (0, 1].")
    ] = None,
    params: Annotated[
        float | None, typer.Option("--params", metavar="SHARE", help="Parameters to keep, in (0, 1].")
    ] = None,
    distil: Annotated[
        int,
        typer.Option("--distil", metavar="N", min=0, help="Epochs of distillation at the end; no labels are used."),
    ] = 0,
    data: Data = "digits",
    pretrained: Pretrained = None,
    input: Input = None,
    seed: Seed = 0,
    device: Device = None,
    skip_corrupt: SkipCorrupt = False,
    like: Like = None,
    as_json: Json = False,
) -> None:
    """Make a trained network light: other kinds of convolution in its layers' places, fitted to what they did.

    It takes pictures of the training part without their labels, and is measured on those held out.

    Example: convlite lighten runs/a --macs 0.4 --data digits --out runs/a-light
    """
    budget = Budget(macs=macs, params=params)
    if out.resolve() == Path(model).resolve():
        raise InputError(f"--out {out} is the folder of the network itself: give another, so that both stay.")
    weights = weights_of(pretrained)
    loaded = load(data, size_of(input), about_of(model, weights, trained=True), skip_corrupt)
    found = find(
        model, pretrained=weights, classes=len(loaded.classes), channels=loaded.shape[0], trained=True, like=like
    )
    net = found.net.to(device_of(device))
    check_writable(out)  # before the long part, and after all that can be wrong with what was given
    dense = measure(net, loaded.test, loaded)
    light = make_light(
        net,
        _pictures(loaded, seed),
        budget,
        distil=distil,
        augment=_augmentation(found.about, loaded),
        seed=seed,
        watch=lambda each: measure(each, loaded.test, loaded, progress=False).top1,
        progress=True,
    )
    score = measure(light.model, loaded.test, loaded)
    sides = {"dense": side(net, loaded, dense), "light": side(light.model, loaded, score)}
    about = {
        "classes": list(loaded.classes), "preprocess": loaded.preprocess.to_dict(), "metrics": score.to_dict(),
        "lightened": {"from": model, "data": data, "record": light.record.to_dict()},
    }  # fmt: skip
    save(light.model, out, about)
    write_text(out / "plan.json", light.plan.to_json())
    answer = {
        "model": model, "data": data, "out": str(out), **sides,
        "plan": light.plan.to_dict(), "record": light.record.to_dict(),
    }  # fmt: skip
    show(
        answer, as_json, tables.plan(light.plan), tables.record(light.record), tables.side_by_side(sides),
        next_command("evaluate", out, data),
    )  # fmt: skip


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="The folder to write to.")] = Path(
        "convlite-demo"
    ),
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Two minutes from nothing to a light network: trains one on handwritten digits, lightens it, measures both.

    Example: convlite demo
    """
    figures = run_demo(out, seed=seed, show=lambda part: None if as_json else show({}, False, part))
    if as_json:
        show(figures, True)


def _pictures(data: datasets.Data, seed: int, batch: int = 256) -> Iterator[Tensor]:
    """The training part as a network takes it, (N, C, H, W) at a time, in random order: files come by class."""
    images, order = datasets.in_random_order(data.train, derive(seed, "calibration"))
    return (data.normalise(part.pixels) for part in images.parts(order.split(batch)))


def _augmentation(about: Mapping[str, Any], data: datasets.Data) -> Any:
    """How the network's own recipe changed pictures at random, if it is known."""
    known = about.get("training", {}).get("recipe")
    return None if known is None else augmentation(Recipe.from_dict(known), data)
