"""Tables fit into 80 columns, cut no figure, and show what their values say."""

import io
import re
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

import convlite
from convlite import Budget, kinds
from convlite.analyse import alternatives, analyse, diff, examine, largest, modules, priced, summary, what_if
from convlite.analyse.compare import compare
from convlite.analyse.latency import Timing, machine
from convlite.report import costs, figures, tables
from convlite.runtime import Prediction
from convlite.runtime.bench import Bench, Run
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
    return {**analyse(convlite.create("xception"), (3, 299, 299)).to_dict(), "model": "xception"}


@pytest.fixture(scope="module")
def light():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 8, 1)
    )
    return convlite.lighten(net, torch.randn(24, 3, 8, 8), Budget(macs=0.5), watch=lambda each: 0.5)


def test_costs(xception):
    text = printed(costs.costs(xception, modules(xception, 2)))
    assert re.search(r"middle +Sequential +12\.9 M +4\.65 G +55\.6%", text)
    assert len(printed(costs.costs(xception, modules(xception, 0))).splitlines()) < 8
    assert len(printed(costs.costs(xception, modules(xception))).splitlines()) > 200
    facts = printed(costs.facts(summary(xception)))
    assert "22,855,952 parameters, 8,357,403,496 MACs for an input of 1×3×299×299" in facts


def test_layers_show_kernels_strides_and_groups(xception):
    text = printed(costs.layers(xception))
    assert "depthwise" in text
    assert re.search(r"3×3 /2", text)
    assert len(printed(costs.layers(largest(xception, None, 4))).splitlines()) < 15
    assert "other_ops" in printed(costs.layers(largest(xception, "other_ops", 4), "other_ops"))


class Deep(nn.Module):
    """Forty levels, and a path that no column holds."""

    def __init__(self):
        super().__init__()
        net = nn.Conv2d(3, 8, 3)
        for i in range(40):
            net = nn.Sequential(net, nn.Conv2d(8, 8, 1)) if i % 2 else nn.Sequential(net)
        self.a_name_that_is_far_longer_than_it_should_be_and_than_any_column_is_wide = net

    def forward(self, x):
        return self.a_name_that_is_far_longer_than_it_should_be_and_than_any_column_is_wide(x)


@pytest.mark.parametrize("width", [80, 200])
def test_deep_networks_and_long_names_stay_readable(width):
    found = examine(Deep(), (3, 6, 6), memory=True)
    text = printed(costs.costs(found, modules(found)), width)
    assert re.search(r"\+34 0  Conv2d +224", text)
    assert max(len(line) - len(line.lstrip()) for line in text.splitlines() if line.strip()) < 20 + width // 4
    flat = printed(costs.layers(largest(found, "bytes", 3), "bytes"), width)
    assert len(flat.splitlines()) < (80 if width == 80 else 20)
    printed(costs.facts(summary(found)), width)


def test_what_was_measured_stands_beside_what_was_counted(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name, size in (("_MULTIPLIED", 32), ("_CONVOLVED", 4), ("_SMALL", 1 << 8), ("_LARGE", 1 << 10)):
        monkeypatch.setattr(sys.modules["convlite.analyse.roofline"], name, size)
    found = {**examine(convlite.create("resnet20"), (3, 32, 32), measure=True, rounds=1), "model": "resnet20"}
    assert "of all ms" in printed(costs.costs(found, modules(found, 2)))
    assert "of best" in printed(costs.layers(largest(found, "ms", 5), "ms"))
    facts = " ".join(printed(costs.facts(summary(found))).split())
    for said in ("unattributed: ", "measured on: ", "the best here: ", "contiguous"):
        assert said in facts
    if any(roof["fault"] for roof in found["roofline"]):
        assert "a fault of the calibration" in facts


def test_the_price_of_a_whole_network(xception):
    found = analyse(convlite.create("resnet20"), (3, 32, 32))
    text = printed(costs.price(priced(found, kinds.Separable()).to_dict()))
    assert re.search(r"MACs +40,551,040 +6,026,880 +14\.9%", text)
    assert "Replaced: 19 convolutions." in text
    assert "it would save nothing there" in printed(costs.price(priced(found, kinds.Normal()).to_dict()))


@pytest.mark.parametrize("rounds", [0, 1])
def test_alternatives(rounds):
    net = nn.Sequential(*(nn.Conv2d(12, 12, 3, padding=1) for _ in range(3)), nn.Conv2d(12, 24, 3, stride=2))
    found = alternatives(what_if(analyse(net, (12, 8, 8)), rounds=rounds))
    assert [one["paths"] for one in found] == [["0", "1", "2"], ["3"]]
    text = printed(costs.alternatives(found))
    assert "0 and 2 like it: 3×3, 12 → 12 channels, 8×8" in text
    assert "3: 3×3 /2, 12 → 24 channels, 8×8" in text
    assert re.search(r"separable +2\d\.\d% +\d+\.\d%", text)
    assert ("Measured on" in text) == bool(rounds)
    printed(costs.alternatives([]))


def test_a_kind_that_is_lighter_and_no_faster_is_flagged():
    (one,) = alternatives(what_if(analyse(nn.Conv2d(8, 8, 3), (8, 8, 8)), rounds=1))
    slow = one["kinds"][1]
    assert "not faster" in printed(
        costs.alternatives([{**one, "kinds": [{**slow, "note": "fewer MACs, not faster"}]}])
    )
    assert "not faster" not in printed(costs.alternatives([{**one, "kinds": [{**slow, "note": ""}]}]))


def test_difference():
    before, after = (
        analyse(convlite.create("resnet20", conv=kind), (3, 32, 32)).to_dict()
        for kind in (kinds.Normal(), kinds.Separable())
    )
    text = printed(costs.difference(diff(before, after).to_dict()))
    assert re.search(r"macs +40,551,040 +6,392,448 +-84\.2%", text)
    assert "Conv2d → SeparableConv2d" in text
    assert "modules the same" in printed(costs.difference(diff(before, before).to_dict()))


def test_what_was_not_counted_is_said():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.linalg.svdvals(x)

    assert any("not counted: " in line for line in summary(analyse(Odd(), (4, 4)).to_dict()))


@pytest.mark.parametrize("rounds", [0, 1])
def test_comparison(rounds):
    found = compare(12, 12, 5, 6, rounds=rounds).to_dict()
    text = printed(costs.comparison(found))
    for kind in ("normal", "separable", "stacked", "shuffled(4)"):
        assert kind in text
    assert "K²·C·P + K²·P·Q" not in text
    assert "C·P + K²·P·Q + Q·M" in text
    assert ("channels" in text) == bool(rounds)
    assert ("Measured on" in text) == bool(rounds)


def test_a_kind_that_can_t_stand_there_is_named_with_the_reason():
    text = " ".join(printed(costs.comparison(compare(9, 10, 3, 6, rounds=0).to_dict())).split())
    assert "grouped(4): 4 groups don't divide 9 channels in and 10 out." in text


def test_history():
    text = printed(
        tables.history(History((Epoch(1, 2.5, 0.5, None, 1.0, 1234.5), Epoch(2, 1.25, 0.75, 0.8, 1.0, 99))))
    )
    assert re.search(r"1 +2\.500 +50\.00% +1\.0 +1,23[45]", text)
    assert "80.00%" in text


def test_a_score_names_the_weakest_classes():
    score = Score(0.75, 1.0, 3, 4, 0.5, (1.0, 0.0, None, 0.5), 0.125)
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


def test_ways_to_run_it_stand_in_one_line_each():
    engines, timing = ("onnxruntime", "openvino", "convlite"), Timing(1234.5, 1004.5, 1304.5, 20, 1234.5)
    made = tuple(
        Run(name, "int8", 64, 2, timing, 1e3, 1e-1, 1.0, 0.875, 0.0, 1.242, 1234 * 2**20) for name in engines
    )
    text = printed(tables.bench(Bench((3, 32, 32), made, {}, machine(), 0.2)))
    for name in engines:
        assert re.search(rf"64 +{name} +int8 +1,234 ±150 +124% +1,234 +1e-01 +100\.0% +87\.5% +equal", text)


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
