"""Which kind and rank where: the plan of a lighter network, as a value."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from .. import kinds
from ..cost import Cost
from ..errors import InputError
from ..kinds import Kind

Uses = Mapping[str, float]  # of each resource: macs, params, weight_bytes, ms


@dataclass(frozen=True)
class Budget:
    """What the light network may cost; all that is given holds at once.

    Arguments:
        macs: share of the original's multiply-accumulates, in (0, 1].
        params: share of its parameters, likewise.
        size_mb: megabytes (10⁶ bytes) that the parameters take, in their own type.
        latency_ms: milliseconds for one batch, measured here on `engine`.
        engine: of `convlite.runtime.ENGINES`, as onnxruntime or convlite; for `latency_ms` alone, as what follows.
        batch: images at once.
        threads: of the processor; as many as there are cores unless given.

    Raises:
        InputError: nothing is limited, or a limit out of its range.
    """

    macs: float | None = None
    params: float | None = None
    size_mb: float | None = None
    latency_ms: float | None = None
    engine: str = "onnxruntime"
    batch: int = 1
    threads: int | None = None

    def __post_init__(self) -> None:
        shares = {"macs": self.macs, "params": self.params}
        sizes = {"size_mb": self.size_mb, "latency_ms": self.latency_ms}
        if all(limit is None for limit in (*shares.values(), *sizes.values())):
            raise InputError(
                "A budget needs a share of macs or of params in (0, 1], or a size_mb or latency_ms: give "
                "Budget(macs=0.4), say."
            )
        for name, share in shares.items():
            if share is not None and not (_is_number(share) and 0 < share <= 1):
                raise InputError(
                    f"A budget is a share of the network's {name} in (0, 1], given {share!r}: 0.4 keeps 40%."
                )
        for name, size in sizes.items():
            if size is not None and not (_is_number(size) and 0 < size < math.inf):
                raise InputError(f"A budget's {name} is a number above 0, given {size!r}.")
        for name, count in {"batch": self.batch, "threads": 1 if self.threads is None else self.threads}.items():
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise InputError(f"A budget's {name} is a whole number, 1 or more, given {count!r}.")

    def limits(self, before: Uses) -> Uses:
        """The most of each resource that a network may use whose original uses `before`."""
        given = {
            "macs": None if self.macs is None else self.macs * before["macs"],
            "params": None if self.params is None else self.params * before["params"],
            "weight_bytes": None if self.size_mb is None else self.size_mb * 1e6,
            "ms": self.latency_ms,
        }
        return {name: limit for name, limit in given.items() if limit is not None}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def uses(cost: Cost, ms: float = 0.0) -> Uses:
    """A cost as amounts of the resources that budgets limit."""
    return {"macs": cost.macs, "params": cost.params, "weight_bytes": cost.weight_bytes, "ms": ms}


@dataclass(frozen=True)
class Option:
    """One way to fill a layer's place: `kind` None is the layer as it is.

    Arguments:
        cost: for one image, over all calls of the layer.
        error: what it adds to the squared error of the network's outputs, relative to their variance.
        layer_error: squared error of the layer's own output, relative to its energy.
        ms: milliseconds for one batch, over all calls, where the budget limits them.
    """

    kind: Kind | None
    cost: Cost
    error: float
    layer_error: float = 0.0
    ms: float = 0.0


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
        before, after: exact costs of the two networks for one image (params, macs and weight_bytes of the whole
            network).
        bound: no choice among all kinds and ranks that were tried has a smaller predicted `error` within the
            budget: proven.
        ms: milliseconds for one batch before and after, where the budget limits them: predicted from those of
            layers, or, of a plan for a latency that was measured whole, those of the two networks in turn.
    """

    steps: tuple[Step, ...]
    left: tuple[Left, ...]
    input: tuple[int, ...]
    before: Cost
    after: Cost
    bound: float = 0.0
    ms: tuple[float, float] | None = None

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
            "bound": self.bound,
            "ms": None if self.ms is None else list(self.ms),
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
            costs = Cost(**values["before"]), Cost(**values["after"])
            ms = None if values.get("ms") is None else (float(values["ms"][0]), float(values["ms"][1]))
            return cls(steps, left, tuple(values["input"]), *costs, float(values.get("bound", 0.0)), ms)
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


def total(before: Cost, steps: Sequence[Step]) -> Cost:
    """The whole network's cost after the steps, from its cost before."""
    return replace(
        before,
        params=before.params - sum(step.before.params - step.after.params for step in steps),
        macs=before.macs - sum(step.before.macs - step.after.macs for step in steps),
        weight_bytes=before.weight_bytes - sum(s.before.weight_bytes - s.after.weight_bytes for s in steps),
    )
