"""Plans near the best one, built and measured, where the sum of their layers' errors says too little."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from ..errors import InputError
from .build import build
from .plan import Budget, Plan
from .record import Light
from .study import Study

# What errors are raised to before they are added up. Layers that lose much lose less together than one by one, so
# that a sum makes too much of large errors; small powers make less of them.
POWERS = (0.7, 0.85, 0.5, 0.6, 1.2)


def check_probes(budget: Budget, probes: int) -> None:
    """Refuse a number of probes that can't be.

    Raises:
        InputError: more probes than there are, or any for a budget of time.
    """
    if not 0 <= probes <= len(POWERS):
        raise InputError(f"From 0 to {len(POWERS)} further plans can be probed, not {probes}.")
    if probes and budget.latency_ms is not None:
        raise InputError("Plans for a latency are measured on its engine already: leave the probes out.")


def probed(
    known: Study, budget: Budget, probes: int, say: Callable[[str], object] = lambda text: None
) -> tuple[Plan, Light | None]:
    """The plan of those near the best that proves best, each being built without distilling.

    Arguments:
        probes: how many plans are tried beside the one with the least predicted error; 5 at most.

    Returns:
        The plan, and what it built, whose record says what was tried; None where there was nothing to choose.

    Raises:
        InputError: no plan meets the budget, or `check_probes` refuses.
    """
    check_probes(budget, probes)
    first = known.plan(budget)
    plans = list(dict.fromkeys([first, *(_bent(known, budget, first, power) for power in POWERS[:probes])]))
    if len(plans) == 1:
        return first, None
    tried: list[tuple[float, float]] = []
    best, least = None, math.nan
    for i, plan in enumerate(plans):
        say(f"probing plan {i + 1} of {len(plans)}")
        light = build(known, plan)
        error = light.record.stages[-1].error
        tried.append((plan.error, error))
        if best is None or error < least or math.isnan(least):
            best, least = light, error
    assert best is not None
    return best.plan, replace(best, record=replace(best.record, probed=tuple(tried)))


def _bent(known: Study, budget: Budget, first: Plan, power: float) -> Plan:
    """The plan with the least sum of errors raised to a power; said and proven of it is what is of the first."""
    bent = {path: [replace(one, error=one.error**power) for one in each] for path, each in known.options.items()}
    plan = replace(known, options=bent).plan(budget)
    errors = {(path, one.kind): one.error for path, each in known.options.items() for one in each}
    steps = tuple(replace(step, error=errors[step.path, step.kind]) for step in plan.steps)
    return replace(plan, steps=steps, bound=first.bound)
