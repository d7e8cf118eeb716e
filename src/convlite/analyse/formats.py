"""One report, as plain values, and the same as CSV, Markdown or a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .layers import LayerTimes
from .memory import Memory
from .roofline import Roof
from .table import Table

COLUMNS = (
    "path", "type", "op", "calls", "input_shape", "output_shape", "params", "macs", "other_ops",
    "weight_bytes", "input_bytes", "output_bytes",
)  # fmt: skip
MEASURED = ("ms", "of_best")


def report(
    table: Table,
    *,
    memory: Memory | None = None,
    times: LayerTimes | None = None,
    roofs: Sequence[Roof] = (),
) -> dict[str, Any]:
    """Everything that is known about a model as plain JSON types: `table.to_dict()`, and what else was found.

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
    return found


def to_csv(found: Mapping[str, Any]) -> str:
    """The rows, with full figures and a heading."""
    columns = [*_columns(found), "note"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in found["rows"]:
        writer.writerow([_cell(row[name], exact=True) for name in columns])
    return text.getvalue()


def to_markdown(found: Mapping[str, Any]) -> str:
    """The totals, the rows as a table, and what was not counted."""
    columns = [*_columns(found), "note"]
    lines = [
        f"# {found['model']}",
        "",
        *(f"- {line}" for line in summary(found)),
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "|".join(" --- " if name in ("path", "type", "op", "note") else " ---: " for name in columns) + "|",
    ]
    for row in found["rows"]:
        cells = [_cell(row[name]).replace("|", "\\|") for name in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def to_html(found: Mapping[str, Any]) -> str:
    """A page that needs nothing else: the totals, and the rows."""
    columns = [*_columns(found), "note"]
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in columns)
    body = "\n".join("<tr>" + "".join(_td(name, row[name]) for name in columns) + "</tr>" for row in found["rows"])
    items = "".join(f"<li>{escape(line)}</li>" for line in summary(found))
    return _PAGE.format(title=escape(found["model"]), items=items, head=head, body=body)


def summary(found: Mapping[str, Any]) -> list[str]:
    """The report in a few lines."""
    inputs = ", ".join("×".join(map(str, one["shape"])) for one in found["input"])
    frozen = f", {found['frozen']:,} of them frozen" if found["frozen"] else ""
    lines = [
        f"input: {inputs or 'nothing'}",
        f"parameters: {found['params']:,}{frozen}; buffers: {found['buffers']:,}",
        f"multiply-accumulates: {found['macs']:,}; other element operations: {found['other_ops']:,}",
        f"counted: {found['coverage']['calls']:.1%} of the operations",
    ]
    lines += [f"not counted: {one['op']}, {one['calls']} times" for one in found["unknown"]]
    if found["idle"]:
        lines.append(f"never ran: {', '.join(found['idle'])}")
    if "memory" in found:
        memory = found["memory"]
        lines.append(f"weights: {_bytes(memory['weights'])}")
        lines.append(f"peak memory of a forward: {_bytes(memory['inference']['bytes'])}")
        if memory["training"]:
            lines.append(f"peak memory of a training step: {_bytes(memory['training']['bytes'])}")
    if "times" in found:
        bare, here = found["times"]["bare"], found["times"]["machine"]
        lines += [
            f"time: {bare['median']:.4g} ms, half of {bare['runs']} runs from {bare['q1']:.4g} to {bare['q3']:.4g}",
            f"of it in no layer: {found['times']['unattributed']:.3g} ms",
            f"measured on: {here['processor']}, {here['threads']} threads, {here['dtype']}, torch {here['torch']}",
        ]
    return lines


def _columns(found: Mapping[str, Any]) -> tuple[str, ...]:
    return (*COLUMNS, *MEASURED) if "times" in found else COLUMNS


def _cell(value: Any, exact: bool = False) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "×".join(map(str, value))
    if isinstance(value, float):
        return repr(value) if exact else f"{value:.3g}"
    return str(value) if exact or not isinstance(value, int) else f"{value:,}"


def _td(name: str, value: Any) -> str:
    kind = "" if name in ("path", "type", "op", "note") else " class=n"
    return f"<td{kind}>{escape(_cell(value))}</td>"


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:.4g} GB"


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 2em; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .2em .6em; border-bottom: 1px solid #ddd; text-align: left; }}
th {{ position: sticky; top: 0; background: #fff; }}
.n {{ text-align: right; font-variant-numeric: tabular-nums; }}
</style></head><body>
<h1>{title}</h1>
<ul>{items}</ul>
<table><thead><tr>{head}</tr></thead><tbody>
{body}
</tbody></table>
</body></html>
"""
