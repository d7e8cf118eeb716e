"""Colours for classes, far apart from each other for the eye."""

from __future__ import annotations

from functools import cache

Colour = tuple[int, int, int]

_STEPS = range(0, 256, 51)  # a sixth of the levels: 216 colours to choose from
_LIGHTNESS = 30, 92  # the darkest and lightest taken, of 0 to 100, so that each shows on black and on white


@cache
def palette(count: int) -> tuple[Colour, ...]:
    """The first so many of a fixed order, in which each is as far as can be from all those before it.

    The distance is that of CIE L*a*b*. After some 150 colours the order begins again.
    """
    free = {rgb: _lab(rgb) for rgb in ((r, g, b) for r in _STEPS for g in _STEPS for b in _STEPS)}
    free = {rgb: lab for rgb, lab in free.items() if _LIGHTNESS[0] <= lab[0] <= _LIGHTNESS[1]}
    order = [(0, 102, 204)]
    nearest = {rgb: _apart(lab, free[order[0]]) for rgb, lab in free.items()}
    while len(order) < min(count, len(free)):
        order.append(max(nearest, key=nearest.__getitem__))
        nearest = {rgb: min(far, _apart(free[rgb], free[order[-1]])) for rgb, far in nearest.items()}
    return tuple(order[i % len(order)] for i in range(count))


def _apart(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return sum((a - b) ** 2 for a, b in zip(one, other))


def _lab(rgb: Colour) -> tuple[float, float, float]:
    """From sRGB (IEC 61966-2-1) to CIE L*a*b*, for its own white, D65."""
    r, g, b = (v / 3294.6 if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in rgb)
    x = (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    z = (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089
    fx, fy, fz = (t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)
