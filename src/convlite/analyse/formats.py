"""A report as CSV, Markdown or a page; see `report` for what stands in it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

COLUMNS = (
    "path", "type", "op", "calls", "input_shape", "output_shape", "params", "macs", "other_ops",
    "weight_bytes", "input_bytes", "output_bytes", "bytes", "intensity",
)  # fmt: skip
MEASURED = ("ms", "of_best")
WORDS = ("path", "paths", "type", "op", "kind", "note")  # the columns that hold no figures


def to_csv(found: Mapping[str, Any]) -> str:
    """The rows, with full figures and a heading; where it was asked what if, those of every kind in every layer."""
    columns, rows = _rows(found)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row[name], exact=True) for name in columns] for row in rows)
    return text.getvalue()


def to_markdown(found: Mapping[str, Any]) -> str:
    """The totals, and the rows as a table."""
    columns, rows = _rows(found)
    lines = [
        f"# {found['model']}",
        "",
        *(f"- {line}" for line in summary(found)),
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "|".join(" --- " if name in WORDS else " ---: " for name in columns) + "|",
    ]
    for row in rows:
        cells = [_cell(row[name]).replace("|", "\\|") for name in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def to_html(found: Mapping[str, Any]) -> str:
    """A page that needs nothing else: the totals, and the rows."""
    columns, rows = _rows(found)
    head = "".join(f"<th>{escape(name.replace('_', ' '))}</th>" for name in columns)
    body = "\n".join("<tr>" + "".join(_td(name, row[name]) for name in columns) + "</tr>" for row in rows)
    items = "".join(f"<li>{escape(line)}</li>" for line in summary(found))
    return _PAGE.format(title=escape(found["model"]), items=items, head=head, body=body)


def summary(found: Mapping[str, Any]) -> list[str]:
    """The report in a few lines."""
    inputs = ", ".join("×".join(map(str, one["shape"])) for one in found["input"])
    frozen = f" ({found['frozen']:,} of them frozen)" if found["frozen"] else ""
    lines = [
        f"{found['params']:,} parameters{frozen}, {found['macs']:,} MACs for an input of {inputs or 'nothing'}",
        f"other element operations: {found['other_ops']:,}; numbers in buffers: {found['buffers']:,}",
    ]
    if found["unknown"]:
        names = ", ".join(f"{one['op']} ({one['calls']} times)" for one in found["unknown"])
        share = 1 - found["coverage"]["elements"]
        lines.append(f"not counted: {names}; that is {share:.1%} of all elements written")
    if found["idle"]:
        lines.append(f"never ran: {', '.join(found['idle'])}")
    if "as" in found:
        one = found["as"]
        lines.append(
            f"as {one['kind']}: {one['params']:,} parameters, {one['macs']:,} MACs; "
            f"replaced: {len(one['replaced'])}, left alone: {len(one['left'])}"
        )
    lines += _memory(found["memory"]) if "memory" in found else []
    lines += _times(found) if "times" in found else []
    return lines


def _memory(memory: Mapping[str, Any]) -> list[str]:
    lines = [
        f"weights: {_bytes(memory['weights'])}",
        f"peak memory of a forward: {_bytes(memory['inference']['bytes'])}{_at(memory['inference'])}",
    ]
    if memory["training"]:
        peak = memory["training"]
        lines.append(f"peak memory of a training step: {_bytes(peak['bytes'])}{_at(peak)}")
    elif memory.get("no_training"):
        lines.append(f"no training step: {memory['no_training'].rstrip('.')}")
    return lines


def _times(found: Mapping[str, Any]) -> list[str]:
    times = found["times"]
    bare, here = times["bare"], times["machine"]
    lines = [
        f"time: {bare['median']:.4g} ms, half of {bare['runs']} runs from {bare['q1']:.4g} to {bare['q3']:.4g}",
        f"unattributed: {times['unattributed']:.3g} ms of it; the clocks cost {times['overhead']:.3g} ms",
        f"measured on: {here['processor']}, {here['cores']} cores, threads: {here['threads']}, {here['dtype']}, "
        f"{times['layout']}, torch {here['torch']}",
    ]
    if "peaks" in found:
        best = found["peaks"]
        lines.append(
            f"the best here: {best['macs'] / 1e9:.4g} G MACs/s, {best['cache'] / 1e9:.3g} GB/s in the cache, "
            f"{best['memory'] / 1e9:.3g} GB/s in memory"
        )
    faults = [roof["path"] or "the model itself" for roof in found.get("roofline", ()) if roof["fault"]]
    if faults:
        lines.append(f"above 100% of the best, which is a fault of the calibration: {', '.join(faults)}")
    return lines


def _at(peak: Mapping[str, Any]) -> str:
    return f", in {peak['path']}" if peak["path"] else ""


def _rows(found: Mapping[str, Any]) -> tuple[tuple[str, ...], Sequence[Mapping[str, Any]]]:
    """The columns of the report's table, and its rows."""
    if "what_if" in found:
        rows = [_alternative(layer, kind) for layer in found["what_if"] for kind in layer["kinds"]]
        return tuple(rows[0]) if rows else ("paths",), rows
    measured = MEASURED if "times" in found else ()
    return (*COLUMNS, *measured, "note"), found["rows"]


def _alternative(layer: Mapping[str, Any], kind: Mapping[str, Any]) -> dict[str, Any]:
    row = {"paths": " ".join(layer["paths"]), **{name: kind[name] for name in ("kind", "params", "macs", "bytes")}}
    row |= {f"{name}_ratio": ratio for name, ratio in kind["ratios"].items()}
    for layout, ms in kind["ms"].items():
        row |= {f"ms_{layout}": ms["median"], f"speedup_{layout}": ms["speedup"]}
    return {**row, "note": kind["note"]}


def _cell(value: Any, exact: bool = False) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "×".join(map(str, value))
    if isinstance(value, float):
        return repr(value) if exact else f"{value:.3g}"
    return str(value) if exact or not isinstance(value, int) else f"{value:,}"


def _td(name: str, value: Any) -> str:
    kind = "" if name in WORDS else " class=n"
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
