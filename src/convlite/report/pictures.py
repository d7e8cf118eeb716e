"""Pictures of training, confusion, times and labelled pixels: PNG files, drawn by Pillow without a browser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from ..errors import InputError, need
from .colours import palette
from .figures import short

if TYPE_CHECKING:
    from ..runtime.bench import Bench
    from ..runtime.predict import Labels
    from ..train import History, Score, SegmentScore

WHITE, BLACK, GREY, LIGHT = (255, 255, 255), (30, 30, 30), (120, 120, 120), (225, 225, 225)
BLUE, ORANGE = (31, 97, 173), (224, 119, 30)  # apart also for the colour-blind

Line = tuple[str, tuple[int, int, int], Sequence[float | None]]  # its name, its colour, a value an epoch


def history(found: History) -> bytes:
    """Loss and accuracy over the epochs, side by side.

    Raises:
        InputError: no epoch is over.
    """
    if not found.epochs:
        raise InputError("No epoch is over, so that there is nothing to draw: train for one or more.")
    image, draw = _canvas(960, 380)
    epochs = found.epochs
    loss: list[Line] = [("loss", BLUE, [e.loss for e in epochs])]
    accuracy: list[Line] = [
        ("seen", BLUE, [e.train_accuracy for e in epochs]),
        ("held out", ORANGE, [e.test_accuracy for e in epochs]),
    ]
    _panel(draw, (60, 40, 450, 330), "loss", loss)
    _panel(draw, (540, 40, 930, 330), "accuracy", accuracy)
    return _png(image)


def confusion(found: Score | SegmentScore, classes: Sequence[str]) -> bytes:
    """Images, or pixels, of each class (rows) by the class answered (columns), darker where more of a row's are.

    Raises:
        InputError: too many classes for every pair of them to be counted.
    """
    if found.confusion is None:
        raise InputError(f"Of {len(classes)} classes not every pair is counted: there is no picture of them.")
    n = len(classes)
    cell = max(1, min(44, 900 // n))
    named, numbered = cell >= 12, cell >= 22
    font = _font(max(9, min(14, cell - 4)))
    margin = 30 + (max(math.ceil(font.getlength(name)) for name in classes) if named else 20)
    side = margin + n * cell + 20
    image, draw = _canvas(side, side)
    for i, row in enumerate(found.confusion):
        for j, number in enumerate(row):
            share = number / max(1, sum(row))
            colour = tuple(round(255 + (end - 255) * math.sqrt(share)) for end in BLUE)  # few stay visible
            x, y = margin + j * cell, margin + i * cell
            draw.rectangle((x, y, x + cell - 1, y + cell - 1), fill=colour)
            if numbered and number:
                ink = WHITE if share > 0.25 else BLACK
                draw.text(
                    (x + cell / 2, y + cell / 2),
                    short(number) if number > 9999 else str(number),
                    ink,
                    font,
                    anchor="mm",
                )
    draw.rectangle((margin - 1, margin - 1, margin + n * cell, margin + n * cell), outline=GREY)
    for i, name in enumerate(classes if named else ()):
        at = margin + (i + 0.5) * cell
        draw.text((margin - 6, at), name, BLACK, font, anchor="rm")
        _upright(image, name, (at, margin - 6), font)
    draw.text((margin, 4), "answered, across; true, down", GREY, _font(12))
    return _png(image)


def bench(found: Bench) -> bytes:
    """The milliseconds of each way to run a network, a group for each batch size, the fastest on top.

    A bar ends at the median, a line spans the middle half. Blue are the fastest; orange, what answers too wrongly.
    """
    groups = [
        (batch, sorted((run for run in found.runs if run.batch == batch), key=lambda run: run.timing.median))
        for batch in sorted({run.batch for run in found.runs})
    ]
    row, gap, left, right = 24, 44, 250, 780
    image, draw = _canvas(900, 20 + sum(gap + row * len(runs) for _, runs in groups))
    y = 0
    for batch, runs in groups:
        best, longest = found.fastest(batch), max(run.timing.q3 for run in runs)
        draw.text((left, y + gap - 10), f"{batch} at once, ms", BLACK, _font(15), anchor="lb")
        y += gap
        for run in runs:
            t, middle = run.timing, y + row // 2
            end, low, high = (left + (right - left) * ms / longest for ms in (t.median, t.q1, t.q3))
            colour = BLUE if run in best else GREY if found.fits(run) else ORANGE
            name = f"{run.engine} {run.precision}, {run.threads} thread{'s' * (run.threads > 1)}"
            draw.text((left - 8, middle), name, BLACK, _font(13), anchor="rm")
            draw.rectangle((left, y + 4, max(end, left + 1), y + row - 4), fill=colour)
            draw.line((low, middle, high, middle), fill=BLACK, width=2)
            draw.text((max(end, high) + 8, middle), f"{t.median:.3g}", BLACK, _font(13), anchor="lm")
            y += row
    return _png(image)


def overlay(found: Labels, strength: float = 0.5) -> bytes:
    """A picture with the colours of its labels over it; `palette` has them in the order of the classes."""
    pillow = need("PIL.Image", "train")
    picture = pillow.fromarray(found.picture[..., 0] if found.picture.shape[2] == 1 else found.picture)
    return _png(pillow.blend(picture.convert("RGB"), _coloured(found).convert("RGB"), strength))


def mask(found: Labels) -> bytes:
    """The labels alone: every pixel holds its class's number, and the file the colours to show it in."""
    return _png(_coloured(found))


def _coloured(found: Labels) -> Any:
    image = need("PIL.Image", "train").fromarray(found.mask)
    image.putpalette([level for colour in palette(256) for level in colour])  # which makes it an indexed one
    return image


def frontier(costs: Sequence[float], scores: Sequence[float], of: str, score: str) -> bytes:
    """How good light networks are, by the share that they cost of the original, the largest first."""
    image, draw = _canvas(720, 400)
    names = [f"{cost:.0%}" for cost in costs]
    _panel(draw, (70, 40, 690, 350), score, [("light", BLUE, scores)], of, names)
    return _png(image)


def _panel(
    draw: Any,
    box: tuple[int, int, int, int],
    title: str,
    lines: Sequence[Line],
    axis: str = "epoch",
    names: Sequence[str] | None = None,
) -> None:
    """Lines over 1, 2, ... (or the names of these) in a frame, with a grid of round numbers."""
    left, top, right, bottom = box
    values = [v for _, _, line in lines for v in line if v is not None]
    count = len(lines[0][2])
    marks = _marks(min(values), max(values))
    low, high = min(marks[0], *values), max(marks[-1], *values)

    def place(i: int, value: float) -> tuple[float, float]:
        x = left + (right - left) * (i / (count - 1) if count > 1 else 0.5)
        return x, bottom - (bottom - top) * (value - low) / (high - low)

    for mark in marks:
        y = place(0, mark)[1]
        draw.line((left, y, right, y), fill=LIGHT)
        draw.text((left - 6, y), f"{mark:.6g}", GREY, _font(12), anchor="rm")
    ticks = 5 if names is None else max(1, count - 1)
    for i in sorted({round(k * (count - 1) / ticks) for k in range(ticks + 1)}):
        draw.text((place(i, low)[0], bottom + 6), names[i] if names else str(i + 1), GREY, _font(12), anchor="mt")
    draw.text(((left + right) / 2, bottom + 24), axis, GREY, _font(12), anchor="mt")
    draw.text((left, top - 12), title, BLACK, _font(15), anchor="lb")
    x = right
    for name, colour, line in reversed(lines):
        points = [place(i, value) for i, value in enumerate(line) if value is not None]
        if not points:
            continue
        draw.line(points, fill=colour, width=2, joint="curve")
        for px, py in points if len(points) <= 40 else points[-1:]:
            draw.ellipse((px - 3, py - 3, px + 3, py + 3), fill=colour)
        draw.text((x, top - 12), name, colour, _font(13), anchor="rb")
        x -= int(_font(13).getlength(name)) + 14


def _marks(low: float, high: float) -> list[float]:
    """Some four to eight round numbers around an interval."""
    if high - low <= 1e-6 * (size := max(abs(low), abs(high), 1e-6)):  # all alike
        low, high = low - size / 2, high + size / 2
    width = high - low
    step = 10 ** math.floor(math.log10(width / 4))
    step *= next(times for times in (1, 2, 5, 10) if width / (step * times) <= 6)
    return [i * step for i in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _canvas(width: int, height: int) -> tuple[Any, Any]:
    image = need("PIL.Image", "train").new("RGB", (width, height), WHITE)
    return image, need("PIL.ImageDraw", "train").Draw(image)


def _font(size: int) -> Any:
    return need("PIL.ImageFont", "train").load_default(size)


def _upright(image: Any, text: str, foot: tuple[float, float], font: Any) -> None:
    """Text that reads upwards from its foot."""
    height = font.size + 4
    strip, draw = _canvas(math.ceil(font.getlength(text)) + 2, height)
    draw.text((0, height / 2), text, BLACK, font, anchor="lm")
    strip = strip.rotate(90, expand=True)
    image.paste(strip, (round(foot[0] - height / 2), round(foot[1] - strip.height)))


def _png(image: Any) -> bytes:
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
