"""From a study and a plan to the light network: replace, refit, distil."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models.surgery import replace_
from ..train.allocator import freed_memory_kept, hand_back_freed_memory
from .calibrate import put_, refit_, restate_norms_
from .distil import Augment, blocks_of, distil_
from .plan import Plan
from .record import Light, Log, Record
from .study import FAST, Study, laid_out
from .survey import survey

KEPT = 2**24  # numbers of images, beyond which a refit that keeps freed memory would take much more of it


def build(
    known: Study,
    plan: Plan,
    *,
    distil: int = 0,
    augment: Augment | None = None,
    seed: int = 0,
    watch: Callable[[nn.Module], float] | None = None,
    say: Callable[[str], object] = lambda text: None,
    begun: Light | None = None,
) -> Light:
    """The light network of a plan: each new layer in closed form, then refitted, then all of it distilled.

    Arguments: as those of `lighten`, and:
        begun: what this gave before for the same plan, without distilling; its model is gone on with, in place,
            and `watch` sees only what follows.

    Raises:
        InputError: the network does not run with other layers in the place of its own.
        RunError: the distillation diverged.
    """
    log = Log(known.unseen, watch, say)
    if begun is None:
        light = _fitted(known, plan, log)
    else:
        light, log.stages = laid_out(begun.model, FAST), list(begun.record.stages)
    if plan.steps and distil:
        log.stage(
            "distil",
            light,
            lambda: distil_(
                light,
                known.original,
                known.trained,
                epochs=distil,
                blocks=blocks_of([step.path for step in plan.steps]),
                seed=seed,
                augment=augment,
                say=say,
            ),
            undo=known.trained.labels is None,
        )
    light = laid_out(light, torch.contiguous_format)
    after = survey(light, known.survey.input).cost
    return Light(light, plan, Record(tuple(log.stages), known.survey.cost, after, known.images, seed))


def _fitted(known: Study, plan: Plan, log: Log) -> nn.Module:
    """The light network as it is before distilling, channels last."""
    original, seen = known.original, known.seen
    log.stage("original", original)
    light = replace_(laid_out(copy.deepcopy(known.net).eval(), FAST), {s.path: s.kind for s in plan.steps})
    modules, dense = dict(light.named_modules()), dict(original.named_modules())
    for step in plan.steps:
        put_(modules, dense, step.path, seen[step.path], *known.fit(step.path, step.kind))
    _check_runs(light, known.unseen.images[:2])
    log.stage("closed form", light)
    if plan.steps:
        kinds = {step.path: step.kind for step in plan.steps}
        once = {path: kinds.get(path) for path, layer in known.survey.layers.items() if len(layer.calls) == 1}
        images = known.sample.images
        few = images.numel() < KEPT
        if not few:
            hand_back_freed_memory()  # a refit has the maps of all images in memory at once
        with freed_memory_kept() if few else nullcontext():
            log.stage("refit", light, lambda: refit_(light, original, once, seen, known.mixes, images))
            log.stage("batch norms", light, lambda: restate_norms_(light, images))
    return light


def _check_runs(light: nn.Module, images: Tensor) -> None:
    try:
        with torch.no_grad():
            light(images)
    except Exception as error:  # a model may raise anything
        raise InputError(
            f"{type(light).__name__} does not run with other layers in the place of its own "
            f"({type(error).__name__}: {error}): its forward uses more of them than their outputs. Layers with a "
            "forward hook are left alone: register one on those."
        ) from error
