"""Numbers as people read them."""

from __future__ import annotations

UNITS = ("", "k", "M", "G", "T", "P")


def exact(number: int) -> str:
    """With thousands separators: 22,855,952."""
    return f"{number:,}"


def short(number: float) -> str:
    """Three figures and a unit: 22.9 M, 8.36 G."""
    size, unit = float(number), 0
    while abs(size) >= 999.5 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    if unit == 0:
        return f"{number:.3g}"
    digits = 2 if abs(size) < 9.995 else 1 if abs(size) < 99.95 else 0
    return f"{size:.{digits}f} {UNITS[unit]}"


def percent(share: float, digits: int = 1) -> str:
    """A share of 0 to 1: 12.3%."""
    return f"{share:.{digits}%}"


def times(ratio: float) -> str:
    """How many times less or faster: 8.9×, 0.85×, 728×."""
    return f"{ratio:.2f}×" if ratio < 0.995 else f"{ratio:.1f}×" if ratio < 99.95 else f"{ratio:.0f}×"


def count(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: 1 layer, 20 layers."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
