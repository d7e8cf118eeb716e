"""What networks cost, as tables for a terminal of 80 columns or more, from the reports of the room `analyse`.

Every function takes plain values and gives something that rich can print; none reads, measures or computes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.text import Text

from .figures import count, exact, percent, short, times
from .parts import by_reason, plain_table, spread

SHOWN = 4  # of the paths that stay as they are; the report names all
LEVELS = 6  # of modules that are shown by indentation
BAR = 12  # characters of a bar that stands for the whole


def costs(found: Mapping[str, Any], modules: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Each module with all that is within it, parents first; what was measured stands beside what was counted.

    Arguments:
        found: a report of what a model costs.
        modules: the sums of its modules.
    """
    measured = "times" in found
    total = {"macs": found["macs"], "ms": modules[0]["ms"] if measured else 0.0}
    last = (">ms", ">of all ms") if measured else (">of all MACs",)
    table = plain_table("module", ">params", ">MACs", *last, "")

    def add(label: Text, one: Mapping[str, Any]) -> None:
        share = one[last_key] / total[last_key] if total[last_key] else 0.0
        ms = (f"{one['ms']:.3g}",) if measured else ()
        table.add_row(label, short(one["params"]), short(one["macs"]), *ms, percent(share), _bar(share))

    last_key = "ms" if measured else "macs"
    for one in modules:
        if one["calls"] or one["params"]:
            add(_module(one, found["model"]), one)
    own = [row for row in found["rows"] if not row["path"] and (row["macs"] or row["params"])]
    if own and len(found["modules"]) > 1:  # what the model's forward does by itself stands in no module's row
        keys = ("params", "macs", "ms") if measured else ("params", "macs")
        add(Text("in its own forward", style="dim"), {key: sum(row[key] or 0 for row in own) for key in keys})
    return table


def layers(found: Mapping[str, Any], by: str | None = None) -> RenderableType:
    """The rows of a report, in their order; with the figure that they are sorted by."""
    measured = (">ms", ">of best") if "times" in found else (">of all MACs",)
    others = [] if by in (None, "params", "macs", "ms", "of_best") else [by]
    headers = (*measured, *(f">{name}" for name in others))
    table = plain_table("layer", "operation", ">output", ">params", ">MACs", *headers)
    for row in found["rows"]:
        cells = [percent(row["macs"] / found["macs"] if found["macs"] else 0.0)]
        if "times" in found:
            ms, share = row["ms"], row["of_best"]
            cells = ["" if ms is None else f"{ms:.3g}", "" if share is None else percent(share, 0)]
        table.add_row(
            escape(row["path"] or "(model)"),
            escape(_operation(row)),
            "×".join(map(str, row["output_shape"][1:])),
            short(row["params"]),
            short(row["macs"]),
            *cells,
            *(short(row[name]) for name in others),
        )
    return table


def facts(lines: Iterable[str]) -> RenderableType:
    """What is said below a table."""
    return Group(*(Text(line) for line in lines))


def price(found: Mapping[str, Any]) -> RenderableType:
    """A whole network with one kind of convolution in it, beside the network as it is."""
    table = plain_table("", ">now", f">as {found['kind']}", ">kept")
    for key, label in (("params", "parameters"), ("macs", "MACs")):
        before, after = found[f"{key}_before"], found[key]
        table.add_row(label, exact(before), exact(after), percent(after / before) if before else "")
    lines = [Text(f"Replaced: {count(len(found['replaced']), 'convolution')}.")]
    for reason, paths in by_reason(found["left"].items()):
        more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
        lines.append(Text(f"Left alone, {reason}: {', '.join(paths[:SHOWN])}{more}.", style="dim"))
    return Group(table, *lines)


def alternatives(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    """Every kind of convolution in the place of each layer: its share of what a normal one costs, its time."""
    if not found:
        return Text("There is no dense convolution to replace.")
    parts: list[RenderableType] = []
    for layer in found:
        conv, (first, *others) = layer["layer"], layer["paths"]
        like = f" and {len(others)} like it" if others else ""
        sizes = f": {_kernel(conv)}, {conv['c']} → {conv['m']} channels, {conv['h']}×{conv['w']}"
        headers = (f">{name.replace('_', chr(10))} ms" for name in layer["layouts"])
        table = plain_table("kind", ">params", ">MACs", ">bytes", *headers, "")
        for one in layer["kinds"]:
            ratios = (percent(one["ratios"][name]) for name in ("params", "macs", "bytes"))
            here = (one["ms"][name] for name in layer["layouts"])
            ms = (f"{each['median']:.3g} ({times(each['speedup'])})" for each in here)
            table.add_row(one["kind"], *ratios, *ms, "not faster" if one["note"] else "")
        parts += [Text(f"\n{first}{like}", style="bold").append(sizes, style="not bold"), table]
    meaning = "Shares of the normal convolution's"
    if found[0]["machine"]:
        meaning += "; in brackets, how many times faster than it in the same memory layout"
        parts += [Text(meaning + "."), _machine(found[0]["machine"])]
    else:
        parts.append(Text(meaning + "."))
    return Group(*parts)


def difference(found: Mapping[str, Any]) -> RenderableType:
    """Two reports side by side: the totals, and the modules that differ."""
    totals = plain_table("", *(f">{name}" for name in found["models"]), ">change")
    for name, (before, after) in found["totals"].items():
        both = (f"{value:,}" if isinstance(value, int) else f"{value:.4g}" for value in (before, after))
        totals.add_row(name.replace("_", " "), *both, f"{after / before - 1:+.1%}" if before else "")
    changes = plain_table("module", ">params", "", ">MACs", "")
    for one in found["changes"]:
        cells: list[str] = []
        for name in ("params", "macs"):
            before, after = one["figures"].get(name, (0, 0))
            cells += [short(before), f"→ {short(after)}"] if name in one["figures"] else ["", ""]
        classes = dict.fromkeys((one["before"] or "absent", one["after"] or "absent"))
        label = Text(one["path"] or "(model)").append(f"\n  {' → '.join(classes)}", style="dim")
        changes.add_row(label, *cells)
    same = Text(f"{count(found['same'], 'module')} the same.")
    return Group(totals, changes, same) if found["changes"] else Group(totals, same)


def comparison(found: Mapping[str, Any]) -> RenderableType:
    """The study notes' table of one layer: what each kind promises, and what was measured beside it."""
    layouts = found["layouts"]
    headers = (f">{name.replace('_', chr(10))} ms" for name in layouts)
    table = plain_table("kind", ">params", ">MACs", ">promised", *headers)
    for one in found["kinds"]:
        cells: list[Text | str] = [
            Text(one["kind"], style="bold").append(f"\n{one['formula']}", style="not bold dim"),
            short(one["params"]),
            short(one["macs"]),
            times(one["promised"]),
        ]
        for name in layouts:
            ms = one["ms"][name]
            cells.append(
                Text(f"{spread(ms['median'], ms['low'], ms['high'])}\n").append(times(ms["speedup"]), style="bold")
            )
        table.add_row(*cells)
    lines = [_machine(found["machine"])] if found["machine"] else []
    lines += [Text(f"{one['kind']}: {one['why_not']}.", style="dim") for one in found["left_out"]]
    return Group(
        table,
        Text(
            "promised: MACs of the normal convolution over this kind's. Below the milliseconds (median, "
            "and half the middle 50%): how many times faster than the normal one, in the same memory layout."
        ),
        *lines,
    )


def _bar(share: float) -> str:
    filled = round(share * BAR)
    return "█" * filled if filled else "▏" if share > 0 else ""


def _machine(found: Mapping[str, Any]) -> Text:
    threads = count(found["threads"], "thread")
    return Text(f"Measured on {found['processor']}, {threads}, {found['dtype']}, torch {found['torch']}.")


def _module(one: Mapping[str, Any], model: str) -> Text:
    """Its name under its parent's, and its class; beyond so many levels the level is a number."""
    if not one["path"]:
        return Text(model, style="bold")
    level = one["depth"] - 1
    indent = "  " * level if level <= LEVELS else "  " * LEVELS + f"+{level - LEVELS} "
    return Text(indent + one["path"].rpartition(".")[2]).append(f"  {one['type']}", style="dim")


def _operation(row: Mapping[str, Any]) -> str:
    """ "conv 3×3 /2 groups 728": what a reader looks for in a row."""
    if row["conv"] is None:
        return str(row["op"] or row["type"])
    return f"{row['op']} {_kernel(row['conv'])}"


def _kernel(conv: Mapping[str, Any]) -> str:
    words = ["×".join(map(str, conv["k"]))]
    down, right = conv["stride"]
    if (down, right) != (1, 1):
        words.append(f"/{down}" if down == right else f"/{down}×{right}")
    if conv["groups"] > 1:
        words.append("depthwise" if conv["groups"] == conv["c"] else f"groups {conv['groups']}")
    return " ".join(words)
