"""What is known of a network before it is lightened: enough to plan for any budget, in seconds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..kinds import Kind
from .answers import Answers, answers
from .calibrate import RIDGE, fitted
from .choose import choose
from .fit import Factors
from .images import gather, split
from .observe import Observed, observe
from .options import options_of
from .plan import Budget, Left, Option, Plan, Step, total, uses
from .survey import Survey, survey, unwrap

FAST = torch.channels_last  # depthwise layers run several times faster so, on CPUs and tensor cores alike
CURVE = (0.9, 0.8, 0.7, 0.6, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1)  # shares of a frontier


@dataclass(frozen=True, eq=False)
class Study:
    """A network, what its layers do on real images, and all that could stand in their places.

    Arguments:
        net: as given.
        original: the same, in eval mode, not to be trained, channels last.
        survey: which convolutions can be replaced, and their cost.
        options: path → the ways to fill a layer's place, the dense one first.
        seen: path → what was observed there on `sample`.
        known: all images, and the original's answers.
        sample, unseen: those that are fitted on, and those that are only measured on.
        seed: of all random choices so far.
    """

    net: nn.Module
    original: nn.Module
    survey: Survey
    options: Mapping[str, Sequence[Option]]
    seen: Mapping[str, Observed]
    known: Answers
    sample: Answers
    unseen: Answers
    seed: int
    _fits: dict[tuple[str, Kind], tuple[Factors, Tensor | None]] = field(default_factory=dict, repr=False)

    def plan(self, budget: Budget) -> Plan:
        """The kinds and ranks with the least predicted error within a budget, and the proof of how good that is.

        Raises:
            InputError: no plan meets the budget; the message says the least that one reaches.
        """
        before = uses(self.survey.cost)
        choice = choose(self.options, before, budget.limits(before))
        steps = [
            Step(path, one.kind, self.options[path][0].cost, one.cost, self._loss(path, one.kind), one.error)
            for path, one in choice.options.items()
            if one.kind is not None
        ]
        replaced = {step.path for step in steps}
        stay = {
            path: "the budget is met without it" if len(ways) > 1 else "no lighter kind pays off there"
            for path, ways in self.options.items()
            if path not in replaced
        }
        left = (*self.survey.left, *(Left(path, reason) for path, reason in stay.items()))
        cost = self.survey.cost
        return Plan(tuple(steps), left, self.survey.input, cost, total(cost, steps), choice.bound)

    def fit(self, path: str, kind: Kind) -> tuple[Factors, Tensor | None]:
        """The factors, and the bias, of a kind in a layer's place, in closed form."""
        if (path, kind) not in self._fits:
            at = self.seen[path]
            target = at.sums.target(self._weight(path), centred=at.conv.bias, ridge=RIDGE)
            self._fits[path, kind] = fitted(kind, at, target, at.sums)
        return self._fits[path, kind]

    def _loss(self, path: str, kind: Kind) -> float:
        """Squared error of the layer's own output with these factors, relative to its energy, without the ridge."""
        at = self.seen[path]
        exact = at.sums.target(self._weight(path), centred=at.conv.bias)
        kernel = self.fit(path, kind)[0].kernel
        return float(exact.error(kernel).sum()) / max(float(exact.energy.sum()), 1e-300)

    def _weight(self, path: str) -> Tensor:
        return self.original.get_submodule(path).weight  # type: ignore[return-value]

    def frontier(self, shares: Sequence[float] = CURVE, of: Literal["macs", "params"] = "macs") -> tuple[Plan, ...]:
        """The plan at each share of the original's `macs` or `params` that any plan reaches, the largest first."""
        whole = getattr(self.survey.cost, of)
        costs = [[getattr(option.cost, of) for option in each] for each in self.options.values()]
        least = whole - sum(each[0] - min(each) for each in costs)
        reached = [share for share in sorted(shares, reverse=True) if share * whole >= least]
        return tuple(self.plan(Budget(share) if of == "macs" else Budget(params=share)) for share in reached)


def study(
    net: nn.Module,
    images: Tensor | Iterable[Any],
    *,
    seed: int = 0,
    say: Callable[[str], object] = lambda text: None,
) -> Study:
    """Look at a network at work, once, for every budget.

    Arguments:
        net: any module with `nn.Conv2d` in it; left exactly as it is.
        images: float (N, C, H, W) as `net` takes them, or an iterable of such batches (of an (images, labels)
            pair the images are taken); a few hundred suffice without distillation.
        seed: of all random choices; same seed, same result.
        say: told what is being done.

    Raises:
        InputError: images of a wrong shape or not finite.
        RunError: the network's outputs are not finite.
    """
    net = unwrap(net)
    original = laid_out(copy.deepcopy(net).eval().requires_grad_(False), FAST)
    pool = gather(images, next((p.device for p in net.parameters()), torch.device("cpu")))
    say("counting")
    found = survey(original, tuple(pool.shape[1:]))
    known = answers(original, pool)
    sample, unseen = split(known, seed)
    say(f"observing {len(found.layers)} convolutions on {len(sample.images)} images")
    seen = observe(original, {path: layer.conv for path, layer in found.layers.items()}, sample.images, seed=seed)
    convs = {path: module for path, module in original.named_modules() if isinstance(module, nn.Conv2d)}
    options = {}
    for i, (path, layer) in enumerate(found.layers.items()):
        say(f"trying kinds and ranks, layer {i + 1} of {len(found.layers)}")
        options[path] = options_of(convs[path], layer, seen[path])
    return Study(net, original, found, options, seen, known, sample, unseen, seed)


def laid_out(model: nn.Module, layout: torch.memory_format) -> nn.Module:
    """The model itself, its weights so in memory."""
    return model.to(memory_format=layout)  # type: ignore[call-overload]
