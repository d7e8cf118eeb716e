"""What is known of a network before it is lightened: enough to plan for any budget, in seconds."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..kinds import Kind
from ..models.surgery import replace_
from .answers import Answers
from .calibrate import RIDGE, fitted
from .choose import choose
from .curvature import IMAGES, curvatures
from .form import Factors
from .images import gather, split
from .latency import check_engine, layer_times, network_times, opened
from .observe import Observed, observe
from .options import options_of
from .patches import images_for
from .plan import Budget, Left, Option, Plan, Step, total, uses
from .survey import NOTHING, Survey, survey, unwrap

FAST = torch.channels_last  # depthwise layers run several times faster so, on CPUs and tensor cores alike
PLANS, NEAR = 5, 0.95  # plans measured for a latency, at most; and how near below it is near enough
CURVE = (0.9, 0.8, 0.7, 0.6, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1)  # shares of a frontier


@dataclass(frozen=True, eq=False)
class Study:
    """A network, what its layers do on real images, and all that could stand in their places.

    Arguments:
        net: as given.
        original: the same, in eval mode, not to be trained, channels last.
        survey: which layers can be replaced, and their cost.
        options: path → the ways to fill a layer's place, the dense one first.
        seen: path → what was observed there on `sample`.
        mixes: path → how the outputs feel errors of its channels, as from `Curvature.root`.
        trained: images that may be trained on, and the original's answers.
        sample, unseen: those of them that are fitted on, and others that are only measured on.
        images: how many there are of all.
        seed: of all random choices so far.
        ms: what the original takes for a batch, where options have been timed: see `timed`.
    """

    net: nn.Module
    original: nn.Module
    survey: Survey
    options: Mapping[str, Sequence[Option]]
    seen: Mapping[str, Observed]
    mixes: Mapping[str, Tensor]
    trained: Answers
    sample: Answers
    unseen: Answers
    images: int
    seed: int
    ms: float = 0.0
    _fits: dict[tuple[str, Kind], tuple[Factors, Tensor | None]] = field(default_factory=dict, repr=False)

    def plan(self, budget: Budget) -> Plan:
        """The kinds and ranks with the least predicted error within a budget, and the proof of how good that is.

        Raises:
            InputError: no plan meets the budget; the message says the least that one reaches, or why there is
                nothing to lighten.
        """
        if budget.latency_ms is not None and not self.ms:
            raise InputError("A latency can be planned for once the options are timed: take study.timed(budget).")
        before = uses(self.survey.cost, self.ms)
        limits = budget.limits(before)
        over = any(limits[name] < before[name] for name in limits)
        if over and all(len(each) == 1 for each in self.options.values()):
            raise InputError(self._nothing())
        choice = choose(self.options, before, limits)
        steps = [
            Step(path, one.kind, self.options[path][0].cost, one.cost, one.layer_error, one.error)
            for path, one in choice.options.items()
            if one.kind is not None
        ]
        replaced = {step.path for step in steps}
        stay = {
            path: "the budget is met without it" if len(ways) > 1 else NOTHING
            for path, ways in self.options.items()
            if path not in replaced
        }
        left = (*self.survey.left, *(Left(path, reason) for path, reason in stay.items()))
        cost, ms = self.survey.cost, None
        if self.ms:
            ms = self.ms, self.ms + sum(one.ms - self.options[path][0].ms for path, one in choice.options.items())
        return Plan(tuple(steps), left, self.survey.input, cost, total(cost, steps), choice.bound, ms)

    def _nothing(self) -> str:
        """Why there is nothing to lighten."""
        reasons = Counter(left.reason for left in self.survey.left)
        if self.options:
            reasons[NOTHING] += len(self.options)
        why = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common(5))
        return f"There is nothing to lighten in this network: {why or 'it has no convolutions or linear layers'}."

    def timed(self, budget: Budget, say: Callable[[str], object] = lambda text: None) -> Study:
        """The same with the milliseconds of every option on the budget's engine.

        A layer alone takes another time than within a network, where layouts are kept and outputs stay in the
        cache. So the times of layers are brought in proportion to what the whole network takes.

        Raises:
            InputError: the engine can't be used here, or can't express the network.
        """
        check_engine(budget)
        calls = {path: layer.calls for path, layer in self.survey.layers.items()}
        with opened(self.net, self.survey.input, budget) as run:
            whole = network_times(run)
            ms = layer_times(self.options, calls, budget, say)
            whole += network_times(run)  # what disturbed it before may be gone
        return self.with_times(ms, min(whole))

    def plan_within(self, budget: Budget, say: Callable[[str], object] = lambda text: None) -> Plan:
        """The plan for a budget with a latency, which the network that it leads to is measured to meet.

        The times of layers add up to a network's only nearly. So the network of each plan is measured whole, in
        turn with the original, and the next plan aims lower or higher by how much of the promised saving was
        there; not below the fastest that there is, which may meet the latency although a measurement that
        something else disturbed says otherwise.

        Returns:
            The plan; its `ms` are those that were measured of the two networks in turn.

        Raises:
            InputError: no plan meets the budget, or none was measured to meet the latency.
        """
        known, limit = (self if self.ms else self.timed(budget, say)), budget.latency_ms or 0.0
        least = known.ms + sum(min(one.ms for one in each) - each[0].ms for each in known.options.values())
        aim, dense, fastest = limit, known.ms, (known.ms, known.ms)
        best: Plan | None = None
        tried: Plan | None = None
        with opened(self.net, self.survey.input, budget) as run_dense:
            for i in range(PLANS):
                try:
                    plan = known.plan(replace(budget, latency_ms=aim))
                except InputError:
                    if i:
                        break
                    raise
                if tried is not None and plan.steps == tried.steps:  # none lies between
                    break
                tried = plan
                say(f"measuring plan {i + 1} on {budget.engine}")
                light = replace_(copy.deepcopy(self.net).eval(), {step.path: step.kind for step in plan.steps})
                with opened(light, self.survey.input, budget) as run_light:
                    dense, ms = network_times(run_dense, run_light, usual=dense)
                fastest = min(fastest, (ms, dense))
                if ms <= limit and (best is None or plan.error < best.error):
                    best = replace(plan, ms=(dense, ms))
                if NEAR * limit <= ms <= limit or not plan.steps:
                    break
                promised = 1.0 if plan.ms is None else plan.ms[1] / known.ms
                aim = max(known.ms * _next(promised, ms / dense, limit / dense), (1 + 1e-9) * least, 1e-9)
        if best is None:
            raise InputError(
                f"No plan was measured to take {limit:.3g} ms: the fastest took {fastest[0]:.3g}, the original "
                f"{fastest[1]:.3g} on {budget.engine}: ask for more."
            )
        return best

    def with_times(self, ms: Mapping[tuple[str, Kind | None], float], whole: float) -> Study:
        """The same with these milliseconds of (path, kind), and of the whole network."""
        dense = sum(ms[path, None] for path in self.options)
        share = min(1.0, whole / dense) if dense else 1.0
        options = {
            path: [replace(one, ms=ms[path, one.kind] * share) for one in each]
            for path, each in self.options.items()
        }
        return replace(self, options=options, ms=whole)

    def fit(self, path: str, kind: Kind) -> tuple[Factors, Tensor | None]:
        """The factors, and the bias, of a kind in a layer's place, in closed form."""
        if (path, kind) not in self._fits:
            at = self.seen[path]
            target = at.sums.target(self._weight(path), centred=at.free, ridge=RIDGE)
            self._fits[path, kind] = fitted(kind, at, self.mixes[path], target, at.sums)
        return self._fits[path, kind]

    def _weight(self, path: str) -> Tensor:
        return self.original.get_submodule(path).weight  # type: ignore[return-value]

    def frontier(self, shares: Sequence[float] = CURVE, of: Literal["macs", "params"] = "macs") -> tuple[Plan, ...]:
        """The plan at each share of the original's `macs` or `params` that any plan reaches, the largest first.

        Raises:
            InputError: neither macs nor params, or a share out of (0, 1].
        """
        if of not in ("macs", "params"):
            raise InputError(f"A frontier goes through shares of macs or params, given {of!r}.")
        if not all(0 < share <= 1 for share in shares):
            raise InputError(f"A frontier's shares lie in (0, 1], given {tuple(shares)}.")
        whole = getattr(self.survey.cost, of)
        costs = [[getattr(option.cost, of) for option in each] for each in self.options.values()]
        least = whole - sum(each[0] - min(each) for each in costs)
        reached = [share for share in sorted(shares, reverse=True) if share * whole >= least]
        return tuple(self.plan(Budget(share) if of == "macs" else Budget(params=share)) for share in reached)


def _next(promised: float, found: float, limit: float) -> float:
    """What the next plan is to promise, when one promised so much and was measured to take so much.

    All in shares of what the original takes at the time: the machine may be faster then, or slower.
    """
    kept = min(4.0, max(0.25, (1 - found) / max(1 - promised, 1e-9)))  # of what was to be saved
    aim = 1 - (1 - (1 + NEAR) / 2 * limit) / kept
    return aim if found <= limit else min(aim, (1 - 1e-9) * promised)


def study(
    net: nn.Module,
    images: Tensor | Iterable[Any],
    *,
    labelled: bool = False,
    seed: int = 0,
    say: Callable[[str], object] = lambda text: None,
) -> Study:
    """Look at a network at work, once, for every budget.

    Arguments:
        net: any module with `nn.Conv2d` or `nn.Linear` in it; left exactly as it is.
        images: float (N, C, H, W) as `net` takes them, or an iterable of such batches (of an (images, labels)
            pair the images are taken); a few hundred suffice without distillation.
        labelled: keep the labels of such pairs, int64 (N,), for a distillation to learn them, too.
        seed: of all random choices; same seed, same result.
        say: told what is being done.

    Raises:
        InputError: images of a wrong shape or not finite, or labels that are missing or no classes of the network.
        RunError: the network's outputs are not finite.
    """
    net = unwrap(net)
    original = laid_out(copy.deepcopy(net).eval().requires_grad_(False), FAST)
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    pool, labels = gather(images, device, labelled=labelled)
    say("counting")
    found = survey(original, tuple(pool.shape[1:]))
    enough = images_for(layer.conv for layer in found.layers.values())
    order, trained, sample, unseen = split(pool, seed, enough)
    pool, labels = pool[order], None if labels is None else labels[order]
    say(f"observing {len(found.layers)} layers on {sample.stop} images")
    convs = {path: layer.conv for path, layer in found.layers.items()}
    seen, known = observe(original, convs, pool, labels, first=sample.stop, seed=seed)
    say(f"seeing what the outputs feel of {len(found.layers)} layers")
    # of few patches, forms with much to choose lose several times less than of others: those others are asked first
    aside = pool[unseen]
    asked = torch.cat([aside, pool[sample][: max(0, IMAGES - len(aside))]])
    felt = curvatures(original, seen, asked, seed=seed)
    options, mixes = {}, {}
    for i, (path, layer) in enumerate(found.layers.items()):
        say(f"trying kinds and ranks, layer {i + 1} of {len(found.layers)}")
        own, at = felt.pop(path), seen[path]  # they are large: each goes once it is used
        module: Any = original.get_submodule(path)
        target = at.sums.target(module.weight, centred=at.free, ridge=RIDGE)
        mixes[path] = own.root(target.second)
        options[path] = options_of(module, layer, target, own, mixes[path])
    parts = known[trained], known[sample], known[unseen]
    return Study(net, original, found, options, seen, mixes, *parts, len(pool), seed)


def laid_out(model: nn.Module, layout: torch.memory_format) -> nn.Module:
    """The model itself, its weights so in memory."""
    return model.to(memory_format=layout)  # type: ignore[call-overload]
