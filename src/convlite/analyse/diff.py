"""What changed between two reports: of two models, or of one at two times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..errors import InputError
from .table import Table

FIGURES = ("params", "macs", "other_ops", "weight_bytes", "input_bytes", "output_bytes")
MEASURED = {
    "ms": ("times", "bare", "median"),
    "peak_inference": ("memory", "inference", "bytes"),
    "peak_training": ("memory", "training", "bytes"),
}
"""Where in a report the totals stand that were measured or followed, if they were."""


@dataclass(frozen=True, slots=True)
class Change:
    """A module that differs.

    Arguments:
        path: its name, in both.
        before, after: its class; None where it is in one of the two only, "" where a file does not tell it.
        figures: name → (before, after), of those that differ. Where the class is another, they hold everything
            within the module, and no change within it has a place of its own; else they are of its own rows.
    """

    path: str
    before: str | None
    after: str | None
    figures: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Difference:
    """Two reports side by side.

    Arguments:
        models: what the two are called.
        totals: name → (before, after), of all figures; with milliseconds and peak memory where both have them.
        changes: the modules that differ, in the order of the first report, then what only the second has.
        same: how many modules don't.
    """

    models: tuple[str, str]
    totals: dict[str, tuple[float, float]]
    changes: tuple[Change, ...]
    same: int

    def largest(self, by: str | None, top: int | None = None) -> Difference:
        """The same with the changes sorted by how much one figure changes, or the `top` of them only.

        Arguments:
            by: one of `FIGURES`; None leaves the order as it is, and stands for "macs" for `top`.

        Raises:
            InputError: no such figure.
        """
        if by is not None and by not in FIGURES:
            raise InputError(f"Changes are sorted by {', '.join(FIGURES)}, given {by!r}.")
        if by is None and top is None:
            return self

        def size(change: Change) -> int:
            before, after = change.figures.get(by or "macs", (0, 0))
            return abs(after - before)

        return replace(self, changes=tuple(sorted(self.changes, key=size, reverse=True)[:top]))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "models": list(self.models),
            "totals": {name: list(pair) for name, pair in self.totals.items()},
            "changes": [
                {**asdict(one), "figures": {name: list(pair) for name, pair in one.figures.items()}}
                for one in self.changes
            ],
            "same": self.same,
        }


def diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> Difference:
    """What differs from one report to another.

    Arguments:
        before, after: what `Table.to_dict` or `report` gave, as it is or read back from a file.

    Raises:
        InputError: one of them is no such report.
    """
    tables = Table.from_dict(before), Table.from_dict(after)
    own = [_own(table) for table in tables]
    within = [{path: _figures(one) for path, one in table.by_module().items()} for table in tables]
    changes: list[Change] = []
    replaced: list[str] = []
    same = 0
    for path in dict.fromkeys((*own[0], *own[1])):
        if any(path.startswith(f"{outer}.") for outer in replaced):
            continue
        types = tables[0].modules.get(path), tables[1].modules.get(path)
        other = types[0] != types[1] and "" not in (path, *types)  # two networks are compared part by part
        a, b = ((within if other else own)[side].get(path, {}) for side in (0, 1))
        pairs = {name: (a.get(name, 0), b.get(name, 0)) for name in FIGURES}
        differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        if other:
            replaced.append(path)
        if differing or other:
            changes.append(Change(path, *types, differing))
        else:
            same += 1
    totals: dict[str, tuple[float, float]] = {name: (within[0][""][name], within[1][""][name]) for name in FIGURES}
    for name, keys in MEASURED.items():
        pair = _at(before, keys), _at(after, keys)
        if pair[0] is not None and pair[1] is not None:
            totals[name] = pair[0], pair[1]
    return Difference((before["model"], after["model"]), totals, tuple(changes), same)


def _own(table: Table) -> dict[str, dict[str, int]]:
    """The sums of each module's own rows."""
    sums = {path: dict.fromkeys(FIGURES, 0) for path in table.modules}
    for row in table.rows:
        for name, value in _figures(row).items():
            sums[row.path][name] += value
    return sums


def _figures(one: Any) -> dict[str, int]:
    return {name: getattr(one, name) for name in FIGURES}


def _at(found: Any, keys: tuple[str, ...]) -> float | None:
    for key in keys:
        found = (found or {}).get(key)
    return found
