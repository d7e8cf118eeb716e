"""Which option for each layer: a multiple-choice knapsack, solved to a proven bound.

One option a layer is taken so that the sum of their errors is least and the sums of their costs stay within all
limits. That is an integer linear program; HiGHS solves it, mostly exactly and else with a bound on what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..unsaid import OUT, unsaid
from .plan import Option, Uses, uses

GAP = 1e-4  # of the error, at which a choice is as good as the best
ABSOLUTE = 1e-6  # what the solver drops in any case, and does not say so in its bound; nor does it of the gap
SECONDS = 5.0  # after which the best so far will do
MARGIN = 2e-6  # of a limit: what the solver may overstep it by for roundings


@dataclass(frozen=True)
class Choice:
    """An option for each layer, and the error that no choice within the limits goes below."""

    options: Mapping[str, Option]
    bound: float


def choose(options: Mapping[str, Sequence[Option]], before: Uses, limits: Uses) -> Choice:
    """The options with the least sum of errors within the limits.

    Arguments:
        options: path → its options, the dense one first.
        before: what the whole network uses with all of them dense.
        limits: the most it may use, of some resources.

    Raises:
        InputError: no choice fits; the message says the least that is possible.
    """
    options = {path: _undominated(each, limits) for path, each in options.items()}
    ways = [(path, option) for path, each in options.items() for option in each]
    used = {name: np.array([uses(option.cost, option.ms)[name] for _, option in ways]) for name in limits}
    dense = {name: sum(uses(each[0].cost, each[0].ms)[name] for each in options.values()) for name in limits}
    room = {name: limit - (before[name] - dense[name]) for name, limit in limits.items()}  # for these layers

    def over(taken: np.ndarray) -> bool:
        return any(used[name] @ taken > room[name] * (1 + 1e-12) for name in limits)

    first = np.array([option is options[path][0] for path, option in ways], dtype=float)
    if not over(first):
        return Choice({path: each[0] for path, each in options.items()}, 0.0)
    for margin in (0.0, MARGIN):
        found = _solve(options, [option.error for _, option in ways], used, room, margin)
        if found is None:
            raise InputError(_unreachable(options, before, limits))
        taken, bound = found
        if not over(taken):
            break
    picked = {path: option for (path, option), one in zip(ways, taken) if one}
    return Choice(picked, bound)


def _undominated(each: Sequence[Option], limits: Uses) -> list[Option]:
    """The dense option first, and those that no other beats in the error and in all that is limited."""
    keys = [(*(uses(one.cost, one.ms)[name] for name in limits), one.error) for one in each]

    def beaten(i: int) -> bool:
        return any(
            all(a <= b for a, b in zip(keys[j], keys[i])) and (keys[j] != keys[i] or j < i)
            for j in range(len(each))
        )

    return [one for i, one in enumerate(each) if i == 0 or not beaten(i)]


def _solve(
    options: Mapping[str, Sequence[Option]],
    errors: Sequence[float],
    used: Mapping[str, np.ndarray],
    room: Uses,
    margin: float,
) -> tuple[np.ndarray, float] | None:
    """Which ways to take, as zeros and ones, and the proven bound of their error; None where none fits."""
    from scipy.optimize import LinearConstraint, milp
    from scipy.sparse import csr_array

    counts = [len(each) for each in options.values()]
    layer = np.repeat(np.arange(len(counts)), counts)
    one_each = csr_array((np.ones(len(layer)), (layer, np.arange(len(layer)))))
    limits = np.array([used[name] / max(room[name], 1e-30) for name in room])
    error = np.array(errors)
    best: tuple[np.ndarray, float] | None = None
    scale, most = sum(each.max() for each in np.split(error, np.cumsum(counts)[:-1])), np.inf
    # Errors span many orders of magnitude, and the solver sees those near 1. So it is asked again for less than it
    # found, in units of that; what alone is more can be left out.
    for _ in range(2):
        with unsaid(OUT):  # HiGHS 1.12 writes a line of its own there now and then, which would spoil our JSON
            found = milp(
                error / max(scale, 1e-300),
                integrality=np.ones(len(layer)),
                bounds=(0, (error <= most).astype(float)),
                constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(limits, -np.inf, 1 - margin)],
                options={"mip_rel_gap": GAP, "time_limit": SECONDS},
            )
        if found.x is None:
            break  # the first time: none fits
        taken = found.x.round()
        bound = max(0.0, float(found.mip_dual_bound) * (1 - GAP) - ABSOLUTE) * scale
        scale = most = float(error @ taken)
        best = taken, bound
        if not scale:
            break
    return best


def _unreachable(options: Mapping[str, Sequence[Option]], before: Uses, limits: Uses) -> str:
    """What is the least of each resource alone, and what it would lose."""
    told = []
    for name, limit in limits.items():
        least, lost = before[name], 0.0
        for each in options.values():
            smallest = min(each, key=lambda option: (uses(option.cost, option.ms)[name], option.error))
            least += uses(smallest.cost, smallest.ms)[name] - uses(each[0].cost, each[0].ms)[name]
            lost += smallest.error
        told.append(f"{_amount(name, least, before)} (asked: {_amount(name, limit, before)}; error {lost:.2g})")
    together = ", and not all at once" if len(limits) > 1 else ""
    return (
        f"The budget can't be met: the least that any plan reaches is {' and '.join(told)}{together}: ask for more."
    )


def _amount(name: str, value: float, before: Uses) -> str:
    match name:
        case "ms":
            return f"{value:.3g} ms of {before[name]:.3g}"
        case "weight_bytes":
            return f"{value / 1e6:.3g} MB of {before[name] / 1e6:.3g}"
        case _:
            return f"{value / before[name]:.3g} of the {name}"
