"""Pictures: whole files of a sensible size, in which the figures can be found again."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convlite.analyse import Timing
from convlite.analyse.latency import machine
from convlite.errors import InputError
from convlite.report import pictures
from convlite.report.pictures import _marks
from convlite.runtime.bench import Bench, Run
from convlite.train import Epoch, History, Score


def opened(content):
    return np.asarray(Image.open(BytesIO(content)).convert("RGB")).astype(int)


def of(*losses, tested=None):
    return History(tuple(Epoch(i + 1, v, 0.5, tested, 1.0, 9.0) for i, v in enumerate(losses)))


def is_colour(image, colour):
    return (abs(image - np.array(colour)).sum(2) < 12).nonzero()


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=60), st.one_of(st.none(), st.floats(0, 1)))
@settings(deadline=None, max_examples=8)
def test_every_history_has_its_picture(losses, tested):
    image = opened(pictures.history(of(*losses, tested=tested)))
    assert image.shape == (380, 960, 3)
    assert len(is_colour(image, pictures.BLUE)[0]) > 10
    assert bool(len(is_colour(image, pictures.ORANGE)[0])) == (tested is not None)


def test_a_falling_loss_falls():
    image = opened(pictures.history(of(4.0, 3.0, 2.0, 1.0)))
    rows, columns = is_colour(image[60:330, 55:480], pictures.BLUE)
    assert rows[columns < 60].mean() < rows[columns > 350].mean()


def test_an_empty_history_is_refused():
    with pytest.raises(InputError, match="nothing to draw"):
        pictures.history(History())


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_marks_hold_the_values_between_them(a, b):
    low, high = sorted((a, b))
    marks = _marks(low, high)
    assert 4 <= len(marks) <= 9
    slack = 1e-9 * max(abs(low), abs(high))
    assert marks[0] <= low + slack and high - slack <= marks[-1]


@pytest.mark.parametrize("n", [2, 10, 60, 300])
def test_the_diagonal_is_dark_and_the_rest_is_white(n):
    pairs = tuple(tuple(9 * (i == j) for j in range(n)) for i in range(n))
    names = [f"class {i}" for i in range(n)]
    image = opened(pictures.confusion(Score(1.0, 1.0, n, n, 0.1, (1.0,) * n, 0.0, pairs), names))
    rows, columns = is_colour(image, pictures.BLUE)
    assert image.shape[0] == image.shape[1] < 1200
    offset = rows - columns
    assert abs(offset).max() <= 44 and len(rows) >= n
    cell = max(1, min(44, 900 // n))
    assert len(rows) >= 0.5 * n * cell * cell


def test_of_too_many_classes_there_is_none():
    with pytest.raises(InputError, match="no picture"):
        pictures.confusion(Score(1.0, 1.0, 1, 1, 0.1, (1.0,), 0.0), ["a"] * 2000)


def bench_of(*runs):
    """(ms, error) each."""
    made = [
        Run("torch", "fp32", batch, 2, Timing(ms, ms - 0.1, ms + 0.1, 20, ms), 1.0, error, 1.0, None, 0.0, 0.5, 1)
        for batch in (1, 8)
        for ms, error in runs
    ]  # fmt: skip
    return Bench((3, 8, 8), tuple(made), {}, machine(), 1e-3)


def test_times_are_bars_as_long_as_they_last():
    image = opened(pictures.bench(bench_of((1.0, 0.0), (4.0, 0.0), (3.0, 0.5))))
    (fast, _), (slow, _), (wrong, _) = (
        is_colour(image[44:120, 250:], colour) for colour in (pictures.BLUE, pictures.GREY, pictures.ORANGE)
    )
    assert len(fast) / len(slow) == pytest.approx(1 / 4, rel=0.1)
    assert len(wrong) / len(slow) == pytest.approx(3 / 4, rel=0.1)
    assert np.median(fast) < np.median(wrong) < np.median(slow)
