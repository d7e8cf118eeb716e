"""Tables fit into 80 columns, cut no figure, and show what their values say."""

import io
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

import convlite
from convlite import Budget, kinds
from convlite.analyse import analyse
from convlite.analyse.compare import compare
from convlite.report import figures, tables
from convlite.runtime import Prediction
from convlite.train import Epoch, History, Score


def printed(table, width=80):
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(table)
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text, "something was cut"
    return text


@pytest.fixture(scope="module")
def xception():
    return analyse(convlite.create("xception"), (3, 299, 299))


@pytest.fixture(scope="module")
def light():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 8, 1)
    )
    return convlite.lighten(net, torch.randn(24, 3, 8, 8), Budget(macs=0.5), watch=lambda each: 0.5)


def test_costs(xception):
    text = printed(tables.costs(xception))
    assert "22,855,952 parameters, 8,357,403,496 MACs for an input of 1×3×299×299" in text
    assert re.search(r"middle +Sequential +12\.9 M +4\.65 G +55\.6%", text)
    assert len(printed(tables.costs(xception, depth=0)).splitlines()) < 8
    assert len(printed(tables.costs(xception, depth=None)).splitlines()) > 200


def test_layers_show_kernels_strides_and_groups(xception):
    text = printed(tables.layers(xception, xception.rows))
    assert "depthwise" in text
    assert re.search(r"3×3 /2", text)
    assert len(printed(tables.layers(xception, xception.top(4))).splitlines()) < 15


def test_what_was_not_counted_is_said():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.linalg.svdvals(x)

    assert "Not counted: " in printed(tables.costs(analyse(Odd(), (4, 4))))


@pytest.mark.parametrize("rounds", [0, 1])
def test_comparison(rounds):
    found = compare(12, 12, 5, 6, rounds=rounds).to_dict()
    text = printed(tables.comparison(found))
    for kind in ("normal", "separable", "stacked", "shuffled(4)"):
        assert kind in text
    assert "K²·C·P + K²·P·Q" not in text
    assert "C·P + K²·P·Q + Q·M" in text
    assert ("channels" in text) == bool(rounds)
    assert ("Measured on" in text) == bool(rounds)


def test_a_kind_that_can_t_stand_there_is_named_with_the_reason():
    text = " ".join(printed(tables.comparison(compare(9, 10, 3, 6, rounds=0).to_dict())).split())
    assert "grouped(4): 4 groups don't divide 9 channels in and 10 out." in text


def test_history():
    text = printed(
        tables.history(History((Epoch(1, 2.5, 0.5, None, 1.0, 1234.5), Epoch(2, 1.25, 0.75, 0.8, 1.0, 99))))
    )
    assert re.search(r"1 +2\.500 +50\.00% +1\.0 +1,23[45]", text)
    assert "80.00%" in text


def test_a_score_names_the_weakest_classes():
    score = Score(0.75, 1.0, 3, 4, 0.5, (1.0, 0.0, None, 0.5))
    text = printed(tables.score(score, ["[a]", "b", "c", "d"], worst=2))
    assert "3 of 4 images" in text
    assert text.index("class b") < text.index("class d")
    assert "class c" not in text
    assert "class [a]" in printed(tables.score(score, ["[a]", "b", "c", "d"]))


def test_a_plan_and_its_record(light):
    text = printed(tables.plan(light.plan))
    assert all(step.path in text for step in light.plan.steps)
    for left in light.plan.left:
        assert left.reason.split()[0] in text
    stages = printed(tables.record(light.record))
    assert all(stage.name in stages for stage in light.record.stages)
    assert "50.00%" in stages


def test_two_networks_side_by_side():
    dense = {"params": 1000, "macs": 20_000, "accuracy": 0.99, "correct": 99, "count": 100}
    light = dense | {"params": 200, "macs": 5000}
    text = printed(tables.side_by_side({"dense": dense, "light": light}))
    assert "5,000 (25.0%)" in text
    assert "200 (20.0%)" in text
    ms = {"1": {"median": 4.0, "q1": 3.8, "q3": 4.2}}
    measured = {"dense": dense | {"milliseconds": ms}, "light": light | {"milliseconds": ms}}
    assert "4 ±0.2 (1.0× as fast)" in printed(tables.side_by_side(measured))


def test_predictions():
    said = [Prediction("[x].png", (("cat", 0.9), ("dog", 0.1))), Prediction("y.png", why_not="cut short")]
    text = printed(tables.predictions(said))
    assert re.search(r"\[x\]\.png +cat +90\.0%", text)
    assert "not read: cut short" in text


def test_models():
    one = {"name": "a_net", "input": [3, 32, 32], "params": 269_722, "macs": 40_551_040, "paper": "Somebody, [1]"}
    text = printed(tables.models([one]))
    assert re.search(r"a_net +3×32×32 +270 k +40\.6 M +Somebody, \[1\]", text)


def test_kinds_kept_by_reason():
    texts = [printed(part) for part in tables.kept({"a": "no", "b": "no", "c": "other"})]
    assert texts == ["Kept as published, no: a, b.\n", "Kept as published, other: c.\n"]


@settings(deadline=None)
@given(st.integers(0, 10**17))
def test_short_figures_have_three_digits_and_the_right_size(number):
    text = figures.short(number)
    size, _, unit = text.partition(" ")
    value = float(size) * 1000 ** figures.UNITS.index(unit)
    assert value == pytest.approx(number, rel=0.0051)
    assert len(text) <= 8


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00 k"),
        (22_855_952, "22.9 M"),
        (8_357_403_496, "8.36 G"),
        (999_999, "1.00 M"),
    ],
)
def test_short_figures(number, text):
    assert figures.short(number) == text


def test_other_figures():
    assert [figures.times(x) for x in (0.5, 1, 8.89, 728)] == ["0.50×", "1.0×", "8.9×", "728×"]
    assert figures.count(1, "layer") == "1 layer"
    assert figures.count(2000, "class", "classes") == "2,000 classes"
    assert figures.exact(kinds.Normal().cost(c=728, m=728, h=19).macs) == "1,721,918,016"
