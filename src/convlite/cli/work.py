"""The verbs that work on data: train, evaluate, lighten, predict, demo."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn

from .. import data as datasets
from ..analyse import analyse
from ..demo import demo as run_demo
from ..errors import InputError
from ..files import check_writable, read_text, write_text
from ..lighten import Budget
from ..lighten import lighten as make_light
from ..models import Checkpoint, read_weights
from ..models.saved import save
from ..preprocess import Preprocess
from ..report import tables
from ..runtime import predict as answers
from ..train import Compute, Recipe, Score, augmentation, recipe
from ..train import evaluate as measure
from ..train import train as fit
from ..train.recipes import RECIPES
from ..train.seeds import generator, seed_everything
from .model import about_of, find
from .options import (
    Conv,
    Data,
    Device,
    Input,
    Json,
    Like,
    Model,
    Out,
    Pretrained,
    Seed,
    Set,
    Size,
    SkipCorrupt,
    device_of,
    show,
    size_of,
)


def train(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="What to train; a saved folder goes on from its weights.",
            show_default=False,
        ),
    ],
    out: Out,
    data: Data = "digits",
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", metavar="N", min=1, help="Passes over the pictures; the recipe's where left out."),
    ] = None,
    recipe_name: Annotated[
        str, typer.Option("--recipe", metavar="NAME", help=f"How to train: {', '.join(RECIPES)}.")
    ] = "digits",
    conv: Conv = None,
    settings: Set = None,
    pretrained: Pretrained = None,
    input: Input = None,
    seed: Seed = 0,
    device: Device = None,
    skip_corrupt: SkipCorrupt = False,
    like: Like = None,
    as_json: Json = False,
) -> None:
    """Train a network on labelled pictures, and measure it on those held out.

    Example: convlite train --model resnet20 --data digits --epochs 3 --out runs/a
    """
    how = recipe(recipe_name)
    how = how if epochs is None else dataclasses.replace(how, epochs=epochs)
    if device is not None:
        device_of(device)
    weights = _weights(pretrained)
    loaded = _load(data, size_of(input), about_of(model, weights), skip_corrupt)
    seed_everything(seed)  # a fresh network's weights
    found = find(
        model, conv=conv, settings=settings or (), pretrained=weights, classes=len(loaded.classes),
        channels=loaded.shape[0], like=like,
    )  # fmt: skip
    history = fit(found.net, loaded, how, out=out, seed=seed, compute=Compute(device), test_each_epoch=True)
    score = measure(found.net, loaded.test, loaded)
    side = _side(found.net, loaded, score)
    answer = {
        "model": model, "data": data, "out": str(out), "seed": seed, **side, "score": score.to_dict(),
        "recipe": how.to_dict(), "history": history.to_dict(),
    }  # fmt: skip
    show(answer, as_json, tables.history(history), tables.score(score, loaded.classes), _next("lighten", out, data))


def evaluate(
    model: Model,
    data: Data = "digits",
    pretrained: Pretrained = None,
    input: Input = None,
    device: Device = None,
    skip_corrupt: SkipCorrupt = False,
    like: Like = None,
    as_json: Json = False,
) -> None:
    """Measure a network on the held-out pictures.

    Example: convlite evaluate runs/a --data digits
    """
    weights = _weights(pretrained)
    loaded = _load(data, size_of(input), about_of(model, weights, trained=True), skip_corrupt)
    found = find(
        model, pretrained=weights, classes=len(loaded.classes), channels=loaded.shape[0], trained=True, like=like
    )
    score = measure(found.net.to(device_of(device)), loaded.test, loaded)
    answer = {"model": model, "data": data, **_side(found.net, loaded, score), "score": score.to_dict()}
    show(answer, as_json, tables.score(score, loaded.classes))


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
    weights = _weights(pretrained)
    loaded = _load(data, size_of(input), about_of(model, weights, trained=True), skip_corrupt)
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
    sides = {"dense": _side(net, loaded, dense), "light": _side(light.model, loaded, score)}
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
        _next("evaluate", out, data),
    )  # fmt: skip


def predict(
    model: Model,
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILES...", help="Pictures, folders of them, or patterns.", show_default=False),
    ],
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, help="How many classes to name.")] = 3,
    pretrained: Pretrained = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            "--classes", metavar="FILE", help="Names of the classes, one a line, where the model has none."
        ),
    ] = None,
    device: Device = None,
    skip_corrupt: SkipCorrupt = False,
    like: Like = None,
    as_json: Json = False,
) -> None:
    """Say what pictures show, with a network that convlite trained or with published weights.

    Example: convlite predict runs/a photos/*.jpg

    Example: convlite predict xception --pretrained timm/legacy_xception.tf_in1k photos/*.jpg
    """
    found = find(model, pretrained=_weights(pretrained), trained=True, like=like)
    if "preprocess" not in found.about:
        raise InputError(
            f"{model} does not say how it takes pictures: give a folder that convlite trained, or weights with "
            "--pretrained."
        )
    net, how = found.net.to(device_of(device)), Preprocess.from_dict(found.about["preprocess"])
    names = found.about.get("classes") if classes is None else read_text(classes).splitlines()
    said = []
    for one in answers(net, files, how, names, top=top):
        if one.why_not is not None and not skip_corrupt:
            raise InputError(f"{one.file} can't be read ({one.why_not}): leave such files out with --skip-corrupt.")
        said.append(one)
    show({"model": model, "predictions": [one.to_dict() for one in said]}, as_json, tables.predictions(said))


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


def _weights(source: str | None) -> Checkpoint | None:
    return None if source is None else read_weights(source)


def _load(source: str, size: Size | None, about: Any, skip_corrupt: bool) -> datasets.Data:
    """The data as a network takes it: of that size, or else treated as what it was trained on.

    Raises:
        InputError: other classes than the network was trained on.
    """
    wanted: dict[str, Any] = {} if size is None else {"channels": size[0], "size": size[1:]}
    if "preprocess" in about:
        how = Preprocess.from_dict(about["preprocess"])
        wanted = {"preprocess": how if size is None else how.resized(size)}
    loaded = datasets.load(source, skip_corrupt=skip_corrupt, **wanted)
    if "classes" in about and tuple(about["classes"]) != loaded.classes:
        raise InputError(
            f"The network was trained on the classes {', '.join(about['classes'][:5])}..., and {source} has "
            f"{', '.join(loaded.classes[:5])}...: give data of the same classes."
        )
    return loaded


def _pictures(data: datasets.Data, seed: int, batch: int = 256) -> Iterator[Tensor]:
    """The training part as a network takes it, (N, C, H, W) at a time, in random order: files come by class."""
    order = torch.randperm(len(data.train), generator=generator(seed, "calibration"))
    return (data.normalise(data.train.pixels[index]) for index in order.split(batch))


def _augmentation(about: Mapping[str, Any], data: datasets.Data) -> Any:
    """How the network's own recipe changed pictures at random, if it is known."""
    known = about.get("training", {}).get("recipe")
    return None if known is None else augmentation(Recipe.from_dict(known), data)


def _side(net: nn.Module, data: datasets.Data, score: Score) -> dict[str, Any]:
    """What a network costs for one picture, and how good it is."""
    table = analyse(net, data.shape)
    return {
        "params": table.params, "macs": table.macs,
        "accuracy": score.top1, "correct": score.correct, "count": score.count,
    }  # fmt: skip


def _next(verb: str, folder: Path, data: str) -> str:
    more = f" --macs 0.4 --out {folder}-light" if verb == "lighten" else ""
    return f"Written to {folder}; next:\n  convlite {verb} {folder} --data {data}{more}"
