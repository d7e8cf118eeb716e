"""The verbs that make a trained network light: lighten, demo."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import Tensor, nn

from .. import data as datasets
from ..data.progress import track
from ..demo import demo as run_demo
from ..errors import InputError
from ..files import check_writable, write_json, write_text, write_whole
from ..lighten import Budget, build, study
from ..lighten import lighten as make_light
from ..models.saved import save
from ..report import pictures, tables
from ..runtime.sides import times
from ..train import Recipe, Score, SegmentScore, augmentation, task_of
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
    size_mb: Annotated[
        float | None, typer.Option("--size-mb", metavar="MB", help="Megabytes that its parameters may take.")
    ] = None,
    latency_ms: Annotated[
        float | None,
        typer.Option(
            "--latency-ms", metavar="MS", help="Milliseconds that a batch may take, measured on --engine."
        ),
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", metavar="NAME", help="Where the latency is measured.")
    ] = "onnxruntime",
    batch: Annotated[int, typer.Option("--batch", metavar="N", min=1, help="Images at once, for the latency.")] = 1,
    threads: Annotated[
        int | None, typer.Option("--threads", metavar="N", min=1, help="For the latency; one a core.")
    ] = None,
    frontier: Annotated[
        bool, typer.Option("--frontier", help="In place of one network, what each of many budgets would give.")
    ] = False,
    images: Annotated[
        int | None,
        typer.Option("--images", metavar="N", min=2, help="How many pictures to look at; 16,384 at most."),
    ] = None,
    probes: Annotated[
        int,
        typer.Option("--probes", metavar="N", min=0, help="Further plans to build, of which the best is taken."),
    ] = 0,
    distil: Annotated[
        int,
        typer.Option("--distil", metavar="N", min=0, help="Epochs of distillation at the end, without labels."),
    ] = 0,
    labelled: Annotated[
        bool,
        typer.Option("--labels", help="Let the distillation learn the labels, too, beside what the network says."),
    ] = False,
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

    It takes pictures of the training part, without their labels unless it is told to learn them, and is measured on
    those held out.

    Example: convlite lighten runs/a --macs 0.4 --data digits --out runs/a-light

    Example: convlite lighten runs/a --latency-ms 5 --engine openvino --data digits --out runs/a-fast

    Example: convlite lighten runs/a --frontier --data digits --out runs/a-curve
    """
    limits = {"macs": macs, "params": params, "size_mb": size_mb, "latency_ms": latency_ms}
    if frontier and any(limit is not None for limit in limits.values()):
        raise InputError("--frontier goes through many budgets: leave --macs and the others out.")
    if frontier and (probes or distil):
        raise InputError("--frontier measures what closed forms give: leave --probes and --distil out.")
    budget = None if frontier else Budget(**limits, engine=engine, batch=batch, threads=threads)
    if labelled and not distil:
        raise InputError("Labels are learnt in distilling: give --distil the epochs, or leave --labels out.")
    if out.resolve() == Path(model).resolve():
        raise InputError(f"--out {out} is the folder of the network itself: give another, so that both stay.")
    weights = weights_of(pretrained)
    loaded = load(data, size_of(input), about_of(model, weights, trained=True), skip_corrupt)
    found = find(
        model, pretrained=weights, classes=len(loaded.classes), channels=loaded.shape[0], trained=True, like=like
    )
    net = found.net.to(device_of(device))
    check_writable(out)  # before the long part, and after all that can be wrong with what was given
    if budget is None:
        _frontier(net, loaded, out, model, seed, images, as_json)
        return
    dense = _measured(net, loaded)
    light = make_light(
        net,
        _pictures(loaded, seed, images),
        budget,
        probes=probes,
        distil=distil,
        augment=_augmentation(found.about, loaded, labelled),
        labelled=labelled,
        seed=seed,
        watch=lambda each: _measured(each, loaded, progress=False).headline,
        progress=True,
    )
    score = _measured(light.model, loaded)
    sides = {"dense": side(net, loaded, dense), "light": side(light.model, loaded, score)}
    if next(net.parameters()).device.type == "cpu":
        nets = {"dense": net, "light": light.model}
        for name, measured in times(nets, loaded.shape, tell=partial(typer.echo, err=True)).items():
            sides[name]["milliseconds"] = measured
    about = {
        "classes": list(loaded.classes), "preprocess": loaded.preprocess.to_dict(), "metrics": score.to_dict(),
        **({} if loaded.ignore is None else {"ignore": loaded.ignore}),
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


def _frontier(
    net: nn.Module, data: datasets.Data, out: Path, model: str, seed: int, images: int | None, as_json: bool
) -> None:
    """From one study the light network of every budget, measured; nothing but the figures is kept."""
    known = study(net, _pictures(data, seed, images), seed=seed)
    points: list[dict[str, Any]] = []
    plans = known.frontier()
    for plan in track(plans, len(plans), "lightening"):
        light = build(known, plan, seed=seed)
        points.append({
            "macs": plan.after.macs, "macs_kept": plan.after.macs / plan.before.macs,
            "params": plan.after.params, "params_kept": plan.after.params / plan.before.params,
            "error": light.record.stages[-1].error, "score": _measured(light.model, data, progress=False).headline,
            "plan": plan.to_dict(),
        })  # fmt: skip
    score = "accuracy" if data.ignore is None else "mIoU"
    dense = _measured(net, data).headline
    answer = {"model": model, "data": data.source, "score": score, "dense": dense, "points": points}
    write_json(out / "frontier.json", answer)
    shares, scores = [1.0, *(p["macs_kept"] for p in points)], [dense, *(p["score"] for p in points)]
    picture = pictures.frontier(shares, scores, "MACs kept", score)
    write_whole(out / "frontier.png", lambda file: file.write_bytes(picture))
    show(answer, as_json, tables.frontier(points, score), f"Written to {out}: frontier.json, frontier.png")


def _measured(net: nn.Module, data: datasets.Data, progress: bool = True) -> Score | SegmentScore:
    return task_of(data).measure(net, data.test, data, progress=progress)


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


def _pictures(
    data: datasets.Data, seed: int, count: int | None = None, batch: int = 256
) -> Iterator[tuple[Tensor, Tensor]]:
    """The training part as a network takes it, (N, C, H, W), and labels, in random order: files come by class."""
    images, order = datasets.in_random_order(data.train, derive(seed, "calibration"))
    order = order[:count]
    return ((data.normalise(part.pixels), part.labels) for part in images.parts(order.split(batch)))


def _augmentation(about: Mapping[str, Any], data: datasets.Data, labelled: bool) -> Any:
    """How the network's own recipe changed pictures at random, if it is known; harder where labels are learnt."""
    known = about.get("training", {}).get("recipe")
    recipe = Recipe(shift=0) if known is None else Recipe.from_dict(known)
    return augmentation(recipe.harder() if labelled else recipe, data)
