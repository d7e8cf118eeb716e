"""What a network is, costs and does, as tables for a terminal of 80 columns or more.

Every function takes values and gives something that rich can print; none reads, measures or computes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .figures import count, exact, percent, short, times

if TYPE_CHECKING:
    from ..analyse import Row
    from ..analyse import Table as Costs
    from ..lighten import Left, Plan, Record
    from ..runtime.predict import Prediction
    from ..train import History, Score

BAR = 12  # characters of a bar that stands for the whole


def models(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    """The families: name, input, parameters, multiply-accumulates, paper."""
    table = _table("network", ">input", ">params", ">MACs", "published")
    for one in found:
        size = "×".join(map(str, one["input"]))
        table.add_row(one["name"], size, short(one["params"]), short(one["macs"]), escape(one["paper"]))
    return table


def costs(found: Costs, *, depth: int | None = 2) -> RenderableType:
    """Each module down to `depth`, with all that is within it."""
    table = _table("module", ">params", ">MACs", ">of all MACs", "")
    for path, one in found.by_module(depth).items():
        if not one.calls and not one.params:
            continue
        name = "  " * (one.depth - 1) + path.rpartition(".")[2] if path else found.model
        share = one.macs / found.macs if found.macs else 0.0
        label = Text(name, style="" if path else "bold").append(f"  {one.type}" if path else "", style="dim")
        table.add_row(label, short(one.params), short(one.macs), percent(share), _bar(share))
    own = [row for row in found.rows if not row.path and (row.macs or row.params)]
    if own and len(found.modules) > 1:  # what the model's forward does by itself stands in no module's row
        macs, params = sum(row.macs for row in own), sum(row.params for row in own)
        share = macs / found.macs if found.macs else 0.0
        table.add_row(
            Text("in its own forward", style="dim"), short(params), short(macs), percent(share), _bar(share)
        )
    return Group(table, *_totals(found))


def layers(found: Costs, rows: Iterable[Row]) -> RenderableType:
    """Some rows of the table of costs, in the order they are given."""
    table = _table("layer", "operation", ">output", ">params", ">MACs", ">of all MACs")
    for row in rows:
        share = row.macs / found.macs if found.macs else 0.0
        table.add_row(
            escape(row.path or "(model)"),
            escape(_operation(row)),
            "×".join(map(str, row.output_shape[1:])),
            short(row.params),
            short(row.macs),
            percent(share),
        )
    return Group(table, *_totals(found))


def comparison(found: Mapping[str, Any]) -> RenderableType:
    """The study notes' table of one layer: what each kind promises, and what was measured beside it."""
    layouts = found["layouts"]
    headers = (f">{name.replace('_', chr(10))} ms" for name in layouts)
    table = _table("kind", ">params", ">MACs", ">promised", *headers)
    for one in found["kinds"]:
        cells: list[Text | str] = [
            Text(one["kind"], style="bold").append(f"\n{one['formula']}", style="not bold dim"),
            short(one["params"]),
            short(one["macs"]),
            times(one["promised"]),
        ]
        for name in layouts:
            ms = one["ms"][name]
            spread = _spread(ms["median"], ms["low"], ms["high"])
            cells.append(Text(f"{spread}\n").append(times(ms["speedup"]), style="bold"))
        table.add_row(*cells)
    machine = found["machine"] or {}
    lines = (
        [
            Text(
                f"Measured on {machine['processor']}, {count(machine['threads'], 'thread')}, {machine['dtype']}, "
                f"torch {machine['torch']}."
            )
        ]
        if machine
        else []
    )
    lines += [Text(f"{one['kind']}: {one['why_not']}.", style="dim") for one in found["left_out"]]
    return Group(
        table,
        Text(
            "promised: MACs of the normal convolution over this kind's. Below the milliseconds (median, "
            "and half the middle 50%): how many times faster than the normal one, in the same memory layout."
        ),
        *lines,
    )


def history(found: History) -> RenderableType:
    """How training went, epoch by epoch."""
    table = _table(">epoch", ">loss", ">accuracy", ">held out", ">seconds", ">images/s")
    for one in found.epochs:
        held_out = "" if one.test_accuracy is None else percent(one.test_accuracy, 2)
        table.add_row(
            str(one.number), f"{one.loss:.3f}", percent(one.train_accuracy, 2), held_out,
            f"{one.seconds:.1f}", f"{one.images_per_second:,.0f}",
        )  # fmt: skip
    return table


def score(found: Score, classes: Sequence[str], worst: int = 3) -> RenderableType:
    """How good a network is, and the classes it knows least."""
    table = _table("score", ">", "")
    table.add_row("accuracy", percent(found.top1, 2), f"{found.correct:,} of {count(found.count, 'image')}")
    table.add_row("among the five highest", percent(found.top5, 2), "")
    table.add_row("cross entropy", f"{found.loss:.4f}", "")
    known = [(share, name) for share, name in zip(found.per_class, classes) if share is not None]
    for share, name in sorted(known)[:worst]:
        table.add_row(f"class {escape(name)}", percent(share, 2), "")
    return table


def plan(found: Plan) -> RenderableType:
    """What takes the place of what, and what was left alone for which reason."""
    table = _table("layer", "becomes", ">MACs", ">kept", ">params", ">kept", ">error")
    for step in found.steps:
        table.add_row(
            escape(step.path),
            escape(str(step.kind)),
            short(step.after.macs),
            percent(step.after.macs / step.before.macs, 0),
            short(step.after.params),
            percent(step.after.params / step.before.params, 0),
            f"{step.layer_error:.1g}",
        )
    return Group(table, *_left(found.left))


def record(found: Record) -> RenderableType:
    """What each stage of lightening gave; `watched` is an accuracy."""
    table = _table("stage", ">seconds", ">output error", ">accuracy")
    for stage in found.stages:
        watched = "" if stage.watched is None else percent(stage.watched, 2)
        table.add_row(stage.name, f"{stage.seconds:.1f}", f"{stage.error:.2g}", watched)
    return table


def side_by_side(sides: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    """Networks in columns, the first the original.

    Arguments:
        sides: name → {"params", "macs", "accuracy", "correct", "count"}, and where measured
            "milliseconds": {images at once: a timing}.
    """
    first = next(iter(sides.values()))
    table = _table("", *(f">{name}" for name in sides))
    for key, label in (("params", "parameters"), ("macs", "MACs")):
        cells = []
        for one in sides.values():
            share = "" if one is first else f" ({percent(one[key] / first[key])})" if first[key] else ""
            cells.append(exact(one[key]) + share)
        table.add_row(label, *cells)
    table.add_row("accuracy", *(percent(one["accuracy"], 2) for one in sides.values()))
    table.add_row("answered right", *(f"{one['correct']:,} of {one['count']:,}" for one in sides.values()))
    for batch, base in first.get("milliseconds", {}).items():
        cells = []
        for one in sides.values():
            ms = one["milliseconds"][batch]
            faster = "" if one is first else f" ({times(base['median'] / ms['median'])} as fast)"
            cells.append(_spread(ms["median"], ms["q1"], ms["q3"]) + faster)
        table.add_row(f"ms for {count(int(batch), 'image')}", *cells)
    return table


def predictions(found: Iterable[Prediction]) -> RenderableType:
    """For each picture the likeliest classes, or why it could not be read."""
    table = _table("picture", "class", ">probability")
    for one in found:
        for i, (name, probability) in enumerate(one.classes):
            table.add_row(escape(one.file) if i == 0 else "", escape(name), percent(probability))
        if one.why_not is not None:
            table.add_row(escape(one.file), f"[dim]not read: {escape(one.why_not)}[/dim]", "")
    return table


def _table(*columns: str) -> Table:
    """Columns of names, which are folded where they must be, and of figures (">..."), which never are."""
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), show_header=any(columns))
    for column in columns:
        if column.startswith(">"):
            table.add_column(column[1:], justify="right", no_wrap=True)
        else:
            table.add_column(column, overflow="fold")
    return table


def _spread(median: float, low: float, high: float) -> str:
    """12.3 ±0.4: the median, and half of what lies between the quartiles."""
    return f"{median:.3g} ±{(high - low) / 2:.2g}"


def _bar(share: float) -> str:
    filled = round(share * BAR)
    return "█" * filled if filled else "▏" if share > 0 else ""


def _operation(row: Row) -> str:
    """ "conv 3×3 /2 groups 728": what a reader looks for in a row."""
    if row.conv is None:
        return row.op or row.type
    conv = row.conv
    words = [row.op, "×".join(map(str, conv.k))]
    if conv.stride != (1, 1):
        words.append(
            "/" + ("×".join(map(str, conv.stride)) if conv.stride[0] != conv.stride[1] else str(conv.stride[0]))
        )
    if conv.groups > 1:
        words.append("depthwise" if conv.groups == conv.c else f"groups {conv.groups}")
    return " ".join(words)


def _totals(found: Costs) -> Iterable[Text]:
    sizes = ", ".join("×".join(map(str, one["shape"])) for one in found.input)
    yield Text(f"{exact(found.params)} parameters, {exact(found.macs)} MACs for an input of {sizes}")
    if found.unknown:
        names = ", ".join(f"{one.op} ({one.calls})" for one in found.unknown)
        yield Text(f"Not counted: {names}; that is {percent(1 - found.coverage.elements)} of all elements written.")
    if found.idle:
        yield Text(f"Never ran: {', '.join(found.idle)}.")


def _left(left: Sequence[Left]) -> Iterable[Text]:
    for reason, paths in _by_reason((one.path, one.reason) for one in left):
        yield Text(f"Left alone, {reason}: {', '.join(paths)}.", style="dim")


def kept(found: Mapping[str, str]) -> Iterable[RenderableType]:
    """Where the asked kind of convolution does not stand, by reason."""
    for reason, paths in _by_reason(found.items()):
        yield Text(f"Kept as published, {reason}: {', '.join(paths)}.", style="dim")


def _by_reason(found: Iterable[tuple[str, str]]) -> Iterable[tuple[str, list[str]]]:
    reasons: dict[str, list[str]] = {}
    for path, reason in found:
        reasons.setdefault(reason, []).append(path or "(model)")
    return reasons.items()
