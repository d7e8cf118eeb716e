"""Any trained network in, a lighter one out: observe, plan, replace, refit, distil."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from ..cost import Cost
from ..models.surgery import replace_
from .answers import Answers, answers
from .calibrate import RIDGE, fitted, refit_, restate_norms_
from .decompose import set_factors_
from .distil import Augment, distil_
from .fit import Factors
from .images import gather, split
from .observe import Observed, observe
from .options import options_of
from .plan import Budget, Left, Plan, Step, choose, total
from .survey import Survey, survey, unwrap

FAST = torch.channels_last  # depthwise layers run several times faster so, on CPUs and tensor cores alike


@dataclass(frozen=True)
class Stage:
    """What one stage of the work gave.

    Arguments:
        name: what was done.
        seconds: how long it took.
        error: squared error of the outputs after it, relative to their variance, on images that no fit looked at.
        tried: that error before it was undone, where the stage had made it larger; else the same.
        watched: what the caller's `watch` said of the network then.
    """

    name: str
    seconds: float
    error: float
    tried: float
    watched: float | None


@dataclass(frozen=True)
class Record:
    """How a lightening went: its stages in order, and the costs as analysed before and after."""

    stages: tuple[Stage, ...]
    before: Cost
    after: Cost
    images: int
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Light:
    """The light network in eval mode, the plan it was built by, and the record of the work."""

    model: nn.Module
    plan: Plan
    record: Record


def lighten(
    net: nn.Module,
    images: Tensor | Iterable[Any],
    budget: Budget,
    *,
    distil: int = 0,
    augment: Augment | None = None,
    seed: int = 0,
    watch: Callable[[nn.Module], float] | None = None,
    progress: bool = False,
) -> Light:
    """A lighter network with the original's answers, from its trained weights and unlabelled images.

    Each dense convolution may become a separable sum, an asymmetric pair, a low-rank pair or a bottleneck. Every
    such form is fitted in closed form to what the layer really reads and writes; a greedy choice by error per
    cost saved meets the budget; each new layer is then refitted on the light network's own activations; and a
    short distillation, where asked for, trains the whole.

    Arguments:
        net: any module with `nn.Conv2d` in it; left exactly as it is.
        images: float (N, C, H, W) as `net` takes them, or an iterable of such batches (of an (images, labels)
            pair the images are taken); a few hundred suffice without distillation.
        budget: what the light network may cost.
        distil: epochs over the images; 0 for none.
        augment: (batch, generator) → batch, changed at random; used in distilling.
        seed: of all random choices; same seed, same result.
        watch: called with the light network after each stage; what it returns is recorded.
        progress: say on stderr what is being done.

    Returns:
        The light network, its plan and a record.

    Raises:
        InputError: images of a wrong shape or not finite, or a budget that no plan meets.
        RunError: the network's outputs are not finite, or the distillation diverged.
    """
    net = unwrap(net)
    original = _laid_out(copy.deepcopy(net).eval().requires_grad_(False), FAST)
    pool = gather(images, next((p.device for p in net.parameters()), torch.device("cpu")))
    with Console(stderr=True).status("lighten", spinner="line") if progress else nullcontext() as shown:

        def say(text: str) -> None:
            if shown is not None:
                shown.update(f"lighten: {text}")

        say("counting")
        found = survey(original, tuple(pool.shape[1:]))
        known = answers(original, pool)
        sample, unseen = split(known, seed)
        log = _Log(unseen, watch, say)
        log.stage("original", original)

        say(f"observing {len(found.layers)} convolutions on {len(sample.images)} images")
        convs = {path: layer.conv for path, layer in found.layers.items()}
        seen = observe(original, convs, sample.images, seed=seed)
        plan, factors = _plan(original, found, seen, budget, say)
        light = replace_(_laid_out(copy.deepcopy(net).eval(), FAST), {step.path: step.kind for step in plan.steps})
        modules = dict(light.named_modules())
        for path, known_factors in factors.items():
            set_factors_(modules[path], *known_factors)
        log.stage("closed form", light)
        if plan.steps:
            once = {step.path: step.kind for step in plan.steps if found.layers[step.path].calls == 1}
            log.stage("refit", light, lambda: refit_(light, original, once, seen, sample.images))
            log.stage("batch norms", light, lambda: restate_norms_(light, sample.images))
        if plan.steps and distil:
            log.stage(
                "distil",
                light,
                lambda: distil_(light, original, known, epochs=distil, seed=seed, augment=augment, say=say),
            )
        light = _laid_out(light, torch.contiguous_format)
        after = survey(light, tuple(pool.shape[1:])).cost
    return Light(light, plan, Record(tuple(log.stages), found.cost, after, len(pool), seed))


class _Log:
    """The stages so far; a change that takes the outputs further from the original's is undone."""

    def __init__(
        self, unseen: Answers, watch: Callable[[nn.Module], float] | None, say: Callable[[str], None]
    ) -> None:
        self.unseen, self.watch, self.say = unseen, watch, say
        self.stages: list[Stage] = []
        self.begun = time.monotonic()

    def stage(self, name: str, model: nn.Module, change: Callable[[], object] | None = None) -> None:
        """Make the change, if it helps, and record where the model then stands."""
        self.say(name)
        before = copy.deepcopy(model.state_dict()) if change else {}
        if change:
            change()
        seconds = time.monotonic() - self.begun
        self.say(f"measuring after {name}")
        error = tried = self.unseen.error(model)
        if change and not (error <= self.stages[-1].error or math.isnan(self.stages[-1].error)):
            model.load_state_dict(before)
            error = self.stages[-1].error
        watched = self.watch(model) if self.watch else None
        self.stages.append(Stage(name, seconds, error, tried, watched))
        self.begun = time.monotonic()


def _plan(
    original: nn.Module,
    found: Survey,
    seen: dict[str, Observed],
    budget: Budget,
    say: Callable[[str], None],
) -> tuple[Plan, dict[str, tuple[Factors, Tensor | None]]]:
    """The plan that meets the budget, from everything that could stand in each layer's place; and its factors."""
    convs = {path: module for path, module in original.named_modules() if isinstance(module, nn.Conv2d)}
    options = {}
    for i, (path, layer) in enumerate(found.layers.items()):
        say(f"trying kinds and ranks, layer {i + 1} of {len(found.layers)}")
        options[path] = options_of(convs[path], layer, seen[path])
    chosen = choose(options, found.cost, budget)
    steps, factors = [], {}
    for path, option in chosen.items():
        if option.kind is not None:
            at, weight = seen[path], convs[path].weight
            target = at.sums.target(weight, centred=at.conv.bias, ridge=RIDGE)
            factors[path] = fitted(option.kind, at, target, at.sums)
            exact = at.sums.target(weight, centred=at.conv.bias)  # the error without the ridge's part
            errors = exact.error(factors[path][0].kernel)  # (M,)
            share = float(errors.sum()) / max(float(exact.energy.sum()), 1e-300)
            felt = float((errors * at.gain).sum())
            steps.append(Step(path, option.kind, options[path][0].cost, option.cost, share, felt))
    alone = tuple(Left(path, "no lighter kind pays off there") for path, ways in options.items() if len(ways) == 1)
    dense = tuple(
        Left(path, "the budget is met without it")
        for path, option in chosen.items()
        if option.kind is None and len(options[path]) > 1
    )
    left = (*found.left, *alone, *dense)
    return Plan(tuple(steps), left, found.input, found.cost, total(found.cost, steps)), factors


def _laid_out(model: nn.Module, layout: torch.memory_format) -> nn.Module:
    return model.to(memory_format=layout)  # type: ignore[call-overload]
