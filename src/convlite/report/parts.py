"""What all tables share."""

from __future__ import annotations

from collections.abc import Iterable

from rich import box
from rich.table import Table


def plain_table(*columns: str) -> Table:
    """Columns of names, which are folded where they must be, and of figures (">..."), which never are."""
    table = Table(box=box.SIMPLE, pad_edge=False, padding=(0, 1, 0, 0), show_header=any(columns))
    for column in columns:
        if column.startswith(">"):
            table.add_column(column[1:], justify="right", no_wrap=True)
        else:
            table.add_column(column, overflow="fold")
    return table


def spread(median: float, low: float, high: float) -> str:
    """12.3 ±0.4, or 1,230 ±40: the median, and half of what lies between the quartiles."""
    return f"{_rounded(median, 3)} ±{_rounded((high - low) / 2, 2)}"


def _rounded(value: float, digits: int) -> str:
    return f"{value:.{digits}g}" if value < 99.5 else f"{value:,.0f}"


def by_reason(found: Iterable[tuple[str, str]]) -> Iterable[tuple[str, list[str]]]:
    """(path, reason) by (path, reason), as each reason with all its paths."""
    reasons: dict[str, list[str]] = {}
    for path, reason in found:
        reasons.setdefault(reason, []).append(path or "(model)")
    return reasons.items()
