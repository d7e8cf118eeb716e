"""Which kind and rank where: the plan of a lighter network, as a value."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from .. import kinds
from ..cost import Cost
from ..errors import InputError
from ..kinds import Asymmetric, Bottleneck, Conv, Kind, LowRank, Separable

SHARES = (
    1 / 16,
    1 / 8,
    3 / 16,
    1 / 4,
    3 / 8,
    1 / 2,
    5 / 8,
    3 / 4,
    7 / 8,
)  # of the full width, tried as ranks

LARGE = 128 * 128  # C·M beyond which pointwise first, fitted one output channel at a time, takes too long


@dataclass(frozen=True)
class Budget:
    """What the light network may cost, as shares of the original's.

    Arguments:
        macs: share of the multiply-accumulates, in (0, 1]; None: any number.
        params: share of the parameters, likewise.

    Raises:
        InputError: a share outside (0, 1], or no share at all.
    """

    macs: float | None = None
    params: float | None = None

    def __post_init__(self) -> None:
        given = {name: share for name, share in asdict(self).items() if share is not None}
        if not given:
            raise InputError("A budget needs a share of macs or of params in (0, 1]: give Budget(macs=0.4), say.")
        for name, share in given.items():
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
                raise InputError(
                    f"A budget is a share of the network's {name} in (0, 1], given {share!r}: 0.4 keeps 40%."
                )

    def limits(self, before: Cost) -> dict[str, float]:
        """The most of each resource that a network of cost `before` may use."""
        return {name: share * getattr(before, name) for name, share in asdict(self).items() if share is not None}


@dataclass(frozen=True)
class Option:
    """One way to fill a layer's place: `kind` None is the dense convolution it has.

    Arguments:
        cost: for one image, over all calls of the layer.
        error: what it adds to the squared error of the network's outputs, relative to their variance.
        layer_error: squared error of the layer's own output, relative to its energy.
    """

    kind: Kind | None
    cost: Cost
    error: float
    layer_error: float = 0.0


@dataclass(frozen=True)
class Step:
    """What is done to one layer.

    Arguments:
        path: where the convolution stands.
        kind: what takes its place.
        before, after: exact cost for one image, over all its calls.
        layer_error: predicted squared error of the layer's output, relative to its energy.
        error: what that adds to the squared error of the network's outputs, relative to their variance.
    """

    path: str
    kind: Kind
    before: Cost
    after: Cost
    layer_error: float
    error: float


@dataclass(frozen=True)
class Left:
    """A layer left alone, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """The structure of a lighter network: enough, with the original, to build it.

    Arguments:
        steps: what is replaced, in the order of the network.
        left: what is left alone, with the reason.
        input: shape of one image, (C, H, W), for which the costs hold.
        before, after: exact costs of the two networks for one image (params and macs of the whole network).
    """

    steps: tuple[Step, ...]
    left: tuple[Left, ...]
    input: tuple[int, ...]
    before: Cost
    after: Cost

    @property
    def error(self) -> float:
        """Predicted squared error of the outputs relative to their variance, before any refitting."""
        return sum(step.error for step in self.steps)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "steps": [
                asdict(step)
                | {
                    "kind": step.kind.to_dict(),
                    "before": step.before.to_dict(),
                    "after": step.after.to_dict(),
                }
                for step in self.steps
            ],
            "left": [asdict(left) for left in self.left],
            "input": list(self.input),
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
        }

    def to_json(self) -> str:
        """The plan as JSON text; `Plan.from_json` is the way back."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """The plan that `to_dict` wrote.

        Raises:
            InputError: values that are no plan.
        """
        try:
            steps = tuple(
                Step(
                    path=str(step["path"]),
                    kind=kinds.from_dict(step["kind"]),
                    before=Cost(**step["before"]),
                    after=Cost(**step["after"]),
                    layer_error=float(step["layer_error"]),
                    error=float(step["error"]),
                )
                for step in values["steps"]
            )
            left = tuple(Left(str(one["path"]), str(one["reason"])) for one in values["left"])
            return cls(steps, left, tuple(values["input"]), Cost(**values["before"]), Cost(**values["after"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"These values are no plan: {type(error).__name__} at {error}.") from error

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The plan that `to_json` wrote.

        Raises:
            InputError: text that is no JSON, or no plan.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise InputError(f"A plan is read from JSON, and this is none: {error}.") from error
        return cls.from_dict(values)


def candidates(dense: Conv) -> list[Kind]:
    """The kinds worth trying for a dense convolution: legal, linear, and past break-even in both resources."""
    k2 = dense.k[0] * dense.k[1]
    tried: list[Kind] = [LowRank(rank) for rank in _ranks(min(dense.m, dense.c * k2))]
    if k2 > 1:
        tried += [Separable(multiplier=r) for r in range(1, k2)]
        if dense.c * dense.m <= LARGE:
            tried += [Separable("pointwise_first", multiplier=r) for r in range(1, min(k2, 3))]
        tried += [Bottleneck(max(1, round(s * dense.c)), max(1, round(s * dense.m))) for s in SHARES]
    if min(dense.k) > 1:
        tried += [Asymmetric(rank) for rank in _ranks(min(dense.c * dense.k[0], dense.m * dense.k[1]))]
    whole = dense.cost()
    found = []
    for kind in dict.fromkeys(tried):
        if kind.why_not(dense) is None:
            cost = kind.cost(dense)
            if cost.macs < whole.macs and cost.params < whole.params:
                found.append(kind)
    return found


def _ranks(full: int) -> list[int]:
    return sorted({max(1, round(share * full)) for share in SHARES})


def choose(options: Mapping[str, Sequence[Option]], before: Cost, budget: Budget) -> dict[str, Option]:
    """One option for each layer so that the network fits the budget: greedy on error per cost saved.

    Then what is left of the budget is spent where it lowers the error most.

    Arguments:
        options: path → its options, the dense one first.
        before: the whole network's cost.

    Raises:
        InputError: no choice of options fits; the message says the least that is possible.
    """
    limits = budget.limits(before)
    chosen = {path: ways[0] for path, ways in options.items()}
    spent = {name: float(getattr(before, name)) for name in limits}

    def change(path: str, option: Option, name: str) -> int:
        used: int = getattr(option.cost, name) - getattr(chosen[path].cost, name)
        return used

    def take(path: str, option: Option) -> None:
        for name in limits:
            spent[name] += change(path, option, name)
        chosen[path] = option

    def excess(path: str | None = None, option: Option | None = None) -> float:
        """How far above the limits, in shares of them, the network is, or would be with that option."""
        above = 0.0
        for name in limits:
            used = spent[name] + (change(path, option, name) if path is not None and option else 0)
            above += max(0.0, used / limits[name] - 1)
        return above

    while (now := excess()) > 0:  # each choice lowers the excess, so this ends
        best: tuple[float, str, Option] | None = None
        for path, ways in options.items():
            for option in ways:
                saved = now - excess(path, option)
                if saved > 0:
                    price = (option.error - chosen[path].error) / saved
                    if best is None or price < best[0]:
                        best = price, path, option
        if best is None:
            raise InputError(_unreachable(options, before, limits))
        take(best[1], best[2])
    while True:
        gains = [
            (chosen[path].error - option.error, path, option)
            for path, ways in options.items()
            for option in ways
            if option.error < chosen[path].error
            and all(spent[name] + change(path, option, name) <= limits[name] for name in limits)
        ]
        if not gains:
            return chosen
        _, path, option = max(gains, key=lambda gain: gain[0])
        take(path, option)


def _unreachable(options: Mapping[str, Sequence[Option]], before: Cost, limits: Mapping[str, float]) -> str:
    least = {
        name: getattr(before, name)
        - sum(getattr(w[0].cost, name) - min(getattr(o.cost, name) for o in w) for w in options.values())
        for name in limits
    }
    asked = " and ".join(f"{limits[name] / getattr(before, name):.3g} of the {name}" for name in limits)
    reach = " and ".join(f"{least[name] / getattr(before, name):.3g} of the {name}" for name in limits)
    return f"The budget of {asked} can't be met: the least that any plan reaches is {reach}; ask for that or more."


def total(before: Cost, steps: Sequence[Step]) -> Cost:
    """The whole network's cost after the steps, from its cost before."""
    return replace(
        before,
        params=before.params - sum(step.before.params - step.after.params for step in steps),
        macs=before.macs - sum(step.before.macs - step.after.macs for step in steps),
    )
