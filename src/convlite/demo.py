"""The whole way in two minutes: train a dense network on real images, make it light, measure both."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import RenderableType
from torch import Tensor, nn

from . import data, models
from .analyse import analyse, examine, modules, summary
from .analyse.latency import machine
from .data import Data, Source
from .files import check_writable, write_json, write_text
from .lighten import Budget, lighten
from .models.saved import save
from .report import costs, tables
from .runtime.sides import times
from .train import Score, checkpoint, evaluate, seed_everything, train

NETWORK = "resnet20"
BUDGET = Budget(macs=0.2, params=0.2)
DISTIL = 6  # epochs
BATCHES = (1, 64)  # images at once, whose time is measured


def demo(
    out: str | Path,
    *,
    seed: int = 0,
    show: Callable[[RenderableType], object] = lambda part: None,
    progress: bool = True,
) -> dict[str, Any]:
    """Train `NETWORK` on scikit-learn's handwritten digits, lighten it to `BUDGET`, measure both on others.

    Nothing is chosen on the held-out digits: they are only ever measured on, after each stage, for the record.

    Arguments:
        out: a folder; the dense network goes to `dense` in it, the light one to `light`, with `plan.json`, and all
            figures to `figures.json`.
        show: called with each part of the story, as soon as it is known.

    Returns:
        All figures, as plain JSON types.

    Raises:
        InputError: `out` can't be written to, or a package is missing.
    """
    begun = time.monotonic()
    folder = Path(out)
    check_writable(folder)
    digits = data.load("digits")
    seed_everything(seed)
    net = models.create(NETWORK, num_classes=len(digits.classes))

    show(f"1. {NETWORK} learns {len(digits.train):,} handwritten digits; {len(digits.test)} more are held out")
    checkpoint.tidy(folder / "dense", anew=True)  # of a demo that was stopped
    history = train(net, digits, out=folder / "dense", seed=seed, progress=progress)
    dense = evaluate(net, digits.test, digits, progress=False)
    show(tables.history(history))
    show(f"Held-out digits answered right: {dense.correct} of {dense.count}.")

    show("\n2. Where its cost lies")
    found = {**examine(net, digits.shape), "model": NETWORK}
    show(costs.costs(found, modules(found, depth=1)))
    show(costs.facts(summary(found)))

    show(f"\n3. Made light: {BUDGET.macs:.0%} of the MACs, {BUDGET.params:.0%} of the parameters, no labels")
    light = lighten(
        net,
        digits.normalise(_pixels(digits.train)),
        BUDGET,
        distil=DISTIL,
        seed=seed,
        watch=lambda each: evaluate(each, digits.test, digits, progress=False).top1,
        progress=progress,
    )
    score = evaluate(light.model, digits.test, digits, progress=False)
    show(tables.plan(light.plan))
    show("\nWhat each stage gave, on held-out digits:")
    show(tables.record(light.record))

    show("\n4. Side by side")
    sides = {"dense": _side(net, digits, dense), "light": _side(light.model, digits, score)}
    nets = {"dense": net, "light": light.model}
    for name, measured in times(nets, digits.shape, BATCHES, seconds=8, tell=show).items():
        sides[name]["milliseconds"] = measured
    show(tables.side_by_side(sides))
    here = machine()
    show(f"ms: median ± half the middle 50%, measured in turn, on {here.processor}, {here.threads} threads.")

    about = {"classes": list(digits.classes), "preprocess": digits.preprocess.to_dict(), "metrics": score.to_dict()}
    save(light.model, folder / "light", about)
    write_text(folder / "light" / "plan.json", light.plan.to_json())
    figures = {
        "network": NETWORK, "data": digits.source, "seed": seed, **sides, "plan": light.plan.to_dict(),
        "record": light.record.to_dict(), "machine": here.to_dict(), "seconds": round(time.monotonic() - begun, 1),
    }  # fmt: skip
    write_json(folder / "figures.json", figures)
    show(
        f"\nWritten to {folder}: dense/, light/ (model.safetensors, config.json; plan.json) and figures.json, "
        f"in {figures['seconds']:.0f} s. Next:\n  convlite evaluate {folder / 'light'} --data digits"
    )
    return figures


def _side(net: nn.Module, digits: Data, score: Score) -> dict[str, Any]:
    table = analyse(net, digits.shape)
    return {
        "params": table.params, "macs": table.macs,
        "accuracy": score.top1, "correct": score.correct, "count": score.count,
    }  # fmt: skip


def _pixels(images: Source) -> Tensor:
    """All of them, (N, C, H, W)."""
    return next(images.parts([torch.arange(len(images))])).pixels
