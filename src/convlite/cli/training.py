"""The verbs that teach and measure: train, evaluate."""

from __future__ import annotations

import dataclasses
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from .. import data as datasets
from ..errors import InputError
from ..files import check_writable, write_whole
from ..models import FAMILIES, label_pixels
from ..models.backbone import Backbone
from ..models.deeplab import DeepLabHead
from ..report import pictures, tables
from ..train import Compute, Keep, Recipe, checkpoint, find_batch_size, processes, recipe, seed_everything, task_of
from ..train import train as fit
from ..train.compute import PRECISIONS, Machine
from ..train.recipes import RECIPES
from .model import Found, about_of, find, settings_of
from .options import (
    Classes,
    Conv,
    Data,
    Device,
    Ignore,
    Input,
    Json,
    Like,
    Model,
    Out,
    Pretrained,
    Seed,
    Set,
    SkipCorrupt,
    Stopped,
    Streaming,
    device_of,
    show,
    size_of,
)
from .shared import load, next_command, score_table, side, weights_of


def train(
    context: typer.Context,
    out: Out,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="What to train; a saved folder goes on from its weights."),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FOLDER",
            help="A trained network to begin from instead, with a fresh classifier where the classes are others.",
        ),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(
            "--freeze",
            metavar="STEP",
            help="Leave a family's flows and steps as they are up to this one, as entry or middle.block6.",
        ),
    ] = None,
    data: Data = "digits",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in --out, if there is one.")
    ] = False,
    hold_out: Annotated[
        float,
        typer.Option(
            "--hold-out",
            metavar="SHARE",
            min=0.0,
            max=1.0,
            help="Learn without this share of the training pictures and measure on it, not on the test part: what "
            "settings are chosen on.",
        ),
    ] = 0.0,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", metavar="N", min=1, help="Passes over the pictures; the recipe's where left out."),
    ] = None,
    recipe_name: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="NAME",
            help=f"How to train: {', '.join(RECIPES)}; where left out finetune from trained weights, segment for "
            "masks, else digits.",
            show_default=False,
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="SETTING=VALUE", help="A setting of the recipe, as rate=0.1; may be repeated."
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", metavar="N", min=1, help="Pictures in a step; the recipe's where left out."),
    ] = None,
    find_batch: Annotated[
        bool, typer.Option("--find-batch-size", help="As many pictures in a step as fit into memory.")
    ] = False,
    scale_rate: Annotated[
        bool, typer.Option("--scale-rate", help="With another batch, the recipe's rate in proportion to it.")
    ] = False,
    precision: Annotated[
        str, typer.Option("--precision", metavar="NAME", help=f"{', '.join(PRECISIONS)}; weights stay in fp32.")
    ] = "fp32",
    compiled: Annotated[bool, typer.Option("--compile", help="Let torch.compile make the step's code.")] = False,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Keep few activations: less memory, a third more time.")
    ] = False,
    graphs: Annotated[
        bool,
        typer.Option("--graphs", help="On a GPU, record a step once and replay it: much faster for small layers."),
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option(
            "--checkpoint-steps", metavar="N", min=1, help="Checkpoints also within epochs, after N steps."
        ),
    ] = None,
    last: Annotated[
        int, typer.Option("--keep", metavar="N", min=1, help="How many of the last checkpoints stay.")
    ] = 2,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write what TensorBoard shows, to tensorboard in --out.")
    ] = False,
    conv: Conv = None,
    settings: Set = None,
    pretrained: Pretrained = None,
    input: Input = None,
    seed: Seed = 0,
    device: Device = None,
    skip_corrupt: SkipCorrupt = False,
    classes: Classes = None,
    ignore: Ignore = None,
    streaming: Streaming = False,
    like: Like = None,
    as_json: Json = False,
) -> None:
    """Train a network on labelled pictures, and measure it on those held out.

    Where the labels are masks, a family gets the head of DeepLabV3+, which labels every pixel.

    Example: convlite train --model resnet20 --data digits --epochs 3 --out runs/a

    Example: convlite train --from runs/a --data photos --freeze entry --out runs/b

    Example: torchrun --nproc-per-node 2 -m convlite train --model resnet20 --out runs/c
    """
    name = source or model
    if name is None or (source is not None and model is not None):
        raise InputError("Give what to train: --model for a network, or --from for a trained one to begin from.")
    if source is not None and not Path(source).is_dir():
        raise InputError(
            f"--from {source} is no folder of a trained network; for a family's weights: --pretrained."
        )
    if device is not None:
        device_of(device)
    compute = Compute(device, precision, compiled, recompute, graphs)
    _recipe(recipe_name or "digits", changes, epochs)  # what is wrong with it is said before the data is read
    weights = weights_of(pretrained)
    loaded = load(
        data, size_of(input), about_of(name, weights), skip_corrupt, any_classes=source is not None,
        classes=classes, ignore=ignore, streaming=streaming,
    )  # fmt: skip
    if hold_out:
        loaded = loaded.holdout(hold_out)
    _say(f"data: {loaded.describe()}")
    usual = "finetune" if source or pretrained else "digits" if loaded.ignore is None else "segment"
    how = _recipe(recipe_name or usual, changes, epochs)
    settings = settings or []
    if loaded.ignore is not None and name in FAMILIES and not any(each.startswith("head=") for each in settings):
        settings = [*settings, "head=deeplabv3plus"]
    seed_everything(seed)  # a fresh network's weights
    found = find(
        name, conv=conv, settings=settings, pretrained=weights, classes=len(loaded.classes),
        channels=loaded.shape[0], like=like,
    )  # fmt: skip
    net = found.net
    if source is not None:
        net = _reclassified(found, loaded)
    if freeze is not None:
        if not isinstance(net, Backbone):
            raise InputError(f"--freeze needs a network whose steps have names, one of the families, not {name}.")
        net.freeze(freeze)
    if find_batch:
        batch_size = _fitting(net, loaded, how, compute, out if resume else None)
    if batch_size is not None:
        how = _with_batch(how, batch_size, scale_rate)
    try:
        history = fit(
            net, loaded, how, out=out, resume=resume, seed=seed, compute=compute, test_each_epoch=True,
            keep=Keep(steps, last, tensorboard),
        )  # fmt: skip
    except KeyboardInterrupt:
        raise Stopped(f"the command {_again(context.obj)} goes on.") from None
    score = task_of(loaded).measure(net, loaded.test, loaded)
    if processes.index() > 0:
        return
    if loaded.skipped:
        _say(f"{len(loaded.skipped)} pictures could not be read and were left out, as {loaded.skipped[0][0]}.")
    write_whole(out / "history.png", lambda file: file.write_bytes(pictures.history(history)))
    answer = {
        "model": name, "data": data, "out": str(out), "seed": seed, **side(net, loaded, score),
        "score": score.to_dict(), "recipe": how.to_dict(), "history": history.to_dict(),
    }  # fmt: skip
    parts = tables.history(history), score_table(score, loaded.classes), next_command("lighten", out, data)
    show(answer, as_json, *parts)


def evaluate(
    model: Model,
    data: Data = "digits",
    confusion: Annotated[
        Path | None,
        typer.Option("--confusion", metavar="FILE", help="Draw what is taken for what, as a PNG picture."),
    ] = None,
    pretrained: Pretrained = None,
    input: Input = None,
    device: Device = None,
    skip_corrupt: SkipCorrupt = False,
    classes: Classes = None,
    ignore: Ignore = None,
    streaming: Streaming = False,
    like: Like = None,
    as_json: Json = False,
) -> None:
    """Measure a network on the held-out pictures.

    Example: convlite evaluate runs/a --data digits
    """
    if confusion is not None:
        check_writable(confusion.parent)
    place = device_of(device)
    if _processes() > 1:
        place = Machine(Compute(device)).device
    weights = weights_of(pretrained)
    loaded = load(
        data, size_of(input), about_of(model, weights, trained=True), skip_corrupt, classes=classes, ignore=ignore,
        streaming=streaming,
    )  # fmt: skip
    found = find(
        model, pretrained=weights, classes=len(loaded.classes), channels=loaded.shape[0], trained=True, like=like
    )
    score = task_of(loaded).measure(found.net.to(place), loaded.test, loaded)
    if processes.index() > 0:
        return
    answer = {"model": model, "data": data, **side(found.net, loaded, score), "score": score.to_dict()}
    if confusion is not None:
        picture = pictures.confusion(score, loaded.classes)
        write_whole(confusion, lambda file: file.write_bytes(picture))
        answer["confusion"] = score.confusion
    show(answer, as_json, score_table(score, loaded.classes))


def _recipe(name: str, changes: list[str] | None, epochs: int | None) -> Recipe:
    how = Recipe.from_dict(recipe(name).to_dict() | settings_of("--with", "rate=0.1", changes or ()))
    return how if epochs is None else dataclasses.replace(how, epochs=epochs)


def _with_batch(how: Recipe, batch_size: int, scale: bool) -> Recipe:
    made = how.with_batch(batch_size, scale=scale)
    rate = f"; the rate in proportion, {made.rate:.4g} for {how.rate:.4g}" if scale else ""
    _say(f"batch: {made.batch_size} images a step in place of {how.batch_size}{rate}")
    return made


def _fitting(net: nn.Module, data: datasets.Data, how: Recipe, compute: Compute, run: Path | None) -> int:
    """The batch that fits; a run that goes on keeps the one that it found."""
    begun = None if run is None else checkpoint.newest(run)
    if begun is not None:
        return int(begun.run["recipe"]["batch_size"])
    return find_batch_size(net, data, how, compute) * processes.count()


def _reclassified(found: Found, data: datasets.Data) -> nn.Module:
    """A fresh classifier, unless the data has the very classes that the network knows; of pixels, if they are."""
    net, pixels = found.net, data.ignore is not None
    if tuple(found.about.get("classes", ())) == data.classes and ("ignore" in found.about) == pixels:
        return net
    if not isinstance(net, Backbone):
        raise InputError("Only a network of a family can be given other classes: take data of its own ones.")
    labels_pixels = isinstance(net.head, DeepLabHead)
    if pixels and not labels_pixels:
        return label_pixels(net, len(data.classes))
    if labels_pixels and not pixels:
        raise InputError(f"The network labels pixels, and {data.source} has no masks: begin from another.")
    net.reset_classifier(len(data.classes))
    return net


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _again(arguments: list[str]) -> str:
    """The command that goes on with what this one began."""
    several = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    start = ["torchrun", "--nproc-per-node", str(several), "-m"] if several > 1 else []
    more = [] if "--resume" in arguments else ["--resume"]
    return shlex.join([*start, "convlite", *arguments, *more])


def _say(text: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr)  # noqa: T201 - progress, as the bar's
