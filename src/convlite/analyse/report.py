"""Everything that is known about what a model costs, as one dictionary of plain values that a file can keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import InputError
from ..files import read_json
from ..kinds import Conv
from .compare import Comparison
from .count import analyse
from .inputs import float_type
from .latency import using
from .layers import LayerTimes, time_layers
from .memory import Memory, peak_memory
from .roofline import Peaks, Roof, peaks, roofline
from .table import SUMS, Table

ROW_FIGURES = (*SUMS[1:], "bytes", "intensity", "calls")
MEASURED_FIGURES = ("ms", "of_best")


def report(
    table: Table,
    *,
    memory: Memory | None = None,
    times: LayerTimes | None = None,
    best: Peaks | None = None,
    roofs: Sequence[Roof] = (),
) -> dict[str, Any]:
    """`table.to_dict()`, and what else was found.

    A module's milliseconds, and how close they are to the best possible, stand in the first row of that module.
    """
    found = table.to_dict()
    if memory is not None:
        found["memory"] = memory.to_dict()
    if times is not None:
        found["times"] = times.to_dict()
        shares = {roof.path: roof.share for roof in roofs}
        seen: set[str] = set()
        for row in found["rows"]:
            first = row["path"] not in seen and row["path"] in times.layers
            row["ms"] = times.layers[row["path"]].median if first else None
            row["of_best"] = shares.get(row["path"]) if first else None
            seen.add(row["path"])
    if best is not None:
        found["peaks"] = best.to_dict()
        found["roofline"] = [roof.to_dict() for roof in roofs]
    return found


def examine(
    model: nn.Module, input: Any, *, memory: bool = False, measure: bool = False, threads: int | None = None,
    rounds: int = 20, seconds: float | None = 60.0,
) -> dict[str, Any]:  # fmt: skip
    """The report of a model: counted, and where asked for followed in memory and measured.

    Arguments:
        model, input: as for `analyse`; to be measured, with weights and on the device to measure on.
        memory: whether to follow its memory, of a forward and of a training step.
        measure: whether to time its layers, and to set them beside the best of this machine.
        threads, rounds, seconds: of the measurement; see `time_layers`.

    Raises:
        InputError: as for `analyse`.
    """
    table = analyse(model, input)
    followed, no_training = _followed(model, input) if memory else (None, "")
    if not measure:
        found = report(table, memory=followed)
    else:
        device = next((p.device for p in model.parameters()), "cpu")
        best = peaks(float_type(model), threads=threads, device=device)
        with using(threads):
            times = time_layers(model, input, rounds=rounds, seconds=seconds)
        found = report(table, memory=followed, times=times, best=best, roofs=roofline(table, times, best))
    if no_training:
        found["memory"]["no_training"] = no_training
    return found


def read_report(file: Path) -> dict[str, Any]:
    """A report that was saved as JSON.

    Raises:
        InputError: no such file, or no report in it.
    """
    found = read_json(file)
    try:
        Table.from_dict(found)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    return dict(found)


def figures(found: Mapping[str, Any]) -> tuple[str, ...]:
    """The columns of the rows that hold numbers, and so can be sorted by."""
    return (*ROW_FIGURES, *MEASURED_FIGURES) if "times" in found else ROW_FIGURES


def largest(found: Mapping[str, Any], by: str | None, top: int | None = None) -> dict[str, Any]:
    """The same report with its rows sorted by one of `figures`, largest first, or the `top` of them only.

    Arguments:
        by: None leaves the order as it is, for `top` it stands for "macs".

    Raises:
        InputError: no such column.
    """
    known = figures(found)
    if by is not None and by not in known:
        measured = " (of a measured network, as with --measure)" if by in MEASURED_FIGURES else ""
        raise InputError(f"Rows are sorted by {', '.join(known)}, given {by!r}{measured}.")
    if by is None and top is None:
        return dict(found)
    column = by or "macs"
    rows = sorted(found["rows"], key=lambda row: -(row[column] or 0))
    return {**found, "rows": rows[:top]}


def modules(found: Mapping[str, Any], depth: int | None = None) -> list[dict[str, Any]]:
    """Each module down to `depth` with the sums of all that is within it, parents first; with `ms` if measured."""
    layers = found["times"]["layers"] if "times" in found else {}
    sums = []
    for path, one in Table.from_dict(found).by_module(depth).items():
        plain: dict[str, Any] = {"path": path, "type": one.type, "depth": one.depth}
        plain |= {name: getattr(one, name) for name in SUMS}
        if "times" in found:
            prefix = f"{path}." if path else ""
            plain["ms"] = sum(t["median"] for name, t in layers.items() if name == path or name.startswith(prefix))
        sums.append(plain)
    return sums


def alternatives(places: Mapping[str, Comparison]) -> list[dict[str, Any]]:
    """What `what_if` found, as plain JSON types: equal layers once, with all their paths."""
    paths: dict[Conv, list[str]] = {}
    for path, one in places.items():
        paths.setdefault(one.layer, []).append(path)
    return [{"paths": same, **places[same[0]].to_dict()} for same in paths.values()]


def _followed(model: nn.Module, input: Any) -> tuple[Memory, str]:
    """Its memory; and why it can't train on such an input, as batch norms over a single pixel can't."""
    try:
        return peak_memory(model, input), ""
    except InputError as error:
        return peak_memory(model, input, training=False), str(error)
