"""What changed between two reports: of two models, or of one at two times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import InputError

FIGURES = ("params", "macs", "other_ops", "weight_bytes", "input_bytes", "output_bytes")


@dataclass(frozen=True, slots=True)
class Change:
    """A module whose own rows differ.

    Arguments:
        path: its name, in both.
        before, after: its class; None where it is in one of the two only.
        figures: name → (before, after), of those that differ.
    """

    path: str
    before: str | None
    after: str | None
    figures: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Difference:
    """Two reports side by side.

    Arguments:
        models: the two models' classes.
        totals: name → (before, after), of all figures.
        changes: the modules that differ, in the order of the first report, then what only the second has.
        same: how many modules don't.
    """

    models: tuple[str, str]
    totals: dict[str, tuple[int, int]]
    changes: tuple[Change, ...]
    same: int

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
        before, after: what `Table.to_dict` or `formats.report` gave, as it is or read back from a file.

    Raises:
        InputError: one of them is no such report.
    """
    old, new = _by_path(before), _by_path(after)
    changes, same = [], 0
    for path in dict.fromkeys((*old, *new)):
        a, b = old.get(path, {}), new.get(path, {})
        figures = {name: (a.get(name, 0), b.get(name, 0)) for name in FIGURES}
        differing = {name: pair for name, pair in figures.items() if pair[0] != pair[1]}
        types = before["modules"].get(path), after["modules"].get(path)
        if differing or types[0] != types[1]:
            changes.append(Change(path, *types, differing))
        else:
            same += 1
    totals = {
        name: (sum(one[name] for one in old.values()), sum(one[name] for one in new.values())) for name in FIGURES
    }
    return Difference((before["model"], after["model"]), totals, tuple(changes), same)


def _by_path(found: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """The sums of each module's own rows."""
    sums: dict[str, dict[str, int]] = {}
    try:
        for path in found["modules"]:
            sums[path] = dict.fromkeys(FIGURES, 0)
        for row in found["rows"]:
            for name in FIGURES:
                sums[row["path"]][name] += row[name]
        str(found["model"])
    except (KeyError, TypeError) as error:
        raise InputError(
            f"This is no report of what a model costs ({type(error).__name__}: {error}): "
            "save one with convlite cost MODEL --json."
        ) from error
    return sums
