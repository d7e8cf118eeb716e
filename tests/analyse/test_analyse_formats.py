"""One report in several forms, and two reports side by side."""

import csv
import io
import json
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

import convlite as cl
from convlite.analyse import (
    analyse,
    diff,
    peak_memory,
    report,
    roofline,
    time_layers,
    to_csv,
    to_html,
    to_markdown,
)
from convlite.analyse.latency import machine
from convlite.analyse.roofline import Peaks
from convlite.errors import InputError


class Odd(nn.Module):
    """A name and a note that need escaping, an operation that is not counted, a layer that never runs."""

    def __init__(self):
        super().__init__()
        self.add_module("a|b<c>&", nn.Conv2d(3, 4, 3))
        self.idle = nn.Linear(2, 2)

    def forward(self, x):
        return torch.fft.rfft(self.get_submodule("a|b<c>&")(x)).abs().relu()


@pytest.fixture
def full():
    net = Odd()
    table, times = analyse(net, (3, 8, 8)), time_layers(net, (3, 8, 8), rounds=2, warmup=0)
    best = Peaks(1e12, 1e12, 1e12, 0, machine())
    memory = peak_memory(net, (3, 8, 8), training=False)
    return report(table, memory=memory, times=times, best=best, roofs=roofline(table, times, best))


def test_the_report_is_the_table_and_what_else_was_found(full):
    table = analyse(Odd(), (3, 8, 8))
    plain = report(table)
    assert plain == table.to_dict()
    assert set(full) == {*plain, "memory", "times", "peaks", "roofline"}
    assert json.loads(json.dumps(full)) == json.loads(json.dumps(full))
    of_model = [row for row in full["rows"] if row["path"] == "" and row["op"]]
    assert of_model[0]["ms"] == full["times"]["layers"][""]["median"]
    assert all(row["ms"] is None and row["of_best"] is None for row in of_model[1:])


@pytest.mark.parametrize("measured", [True, False])
def test_csv_has_every_row_and_exact_figures(full, measured):
    found = full if measured else report(analyse(Odd(), (3, 8, 8)))
    rows = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert len(rows) == len(found["rows"])
    assert sum(int(row["macs"]) for row in rows) == found["macs"]
    assert rows[0]["path"] == "a|b<c>&" and rows[0]["output_shape"] == "1×4×6×6"
    if measured:
        assert float(rows[0]["ms"]) == found["rows"][0]["ms"]
    else:
        assert "ms" not in rows[0]


def test_markdown_is_one_table_of_even_rows(full):
    text = to_markdown(full)
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(full["rows"])
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1
    for said in (
        "# Odd",
        "not counted: fft_r2c (1 times)",
        "never ran: idle",
        "peak memory of a forward",
        "measured on",
    ):
        assert said in text


def test_html_is_whole_and_escaped(full):
    class Reader(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.rows, self.text = [], 0, []

        def handle_starttag(self, tag, attrs):
            self.rows += tag == "tr"
            if tag not in ("meta",):
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

        def handle_data(self, data):
            self.text.append(data)

    reader = Reader()
    reader.feed(to_html(full))
    assert reader.open == [] and reader.rows == 1 + len(full["rows"])
    assert "a|b<c>&" in reader.text
    assert "script" not in to_html(full) and "http" not in to_html(full)
    assert analyse(Odd(), (3, 8, 8)).to_html().startswith("<!doctype html>")


def test_the_difference_of_two_networks():
    dense = analyse(cl.create("resnet20", conv=cl.kinds.Normal()), (3, 32, 32))
    light = analyse(cl.create("resnet20", conv=cl.kinds.Separable()), (3, 32, 32))
    found = diff(json.loads(json.dumps(dense.to_dict())), light.to_dict())
    assert found.totals["macs"] == (dense.macs, light.macs)
    assert found.totals["params"] == (dense.params, light.params)
    changed = {one.path for one in found.changes}
    deltas = [one.figures.get("macs", (0, 0)) for one in found.changes]
    assert sum(b - a for a, b in deltas) == light.macs - dense.macs
    assert {(one.before, one.after) for one in found.changes} == {("Conv2d", "SeparableConv2d")}
    within = {path for path in light.modules if any(path.startswith(f"{one}.") for one in changed)}
    assert found.same + len(changed) + len(within) == len(set(dense.modules) | set(light.modules))
    json.dumps(found.to_dict())


def test_the_largest_changes_come_first():
    dense, light = (
        analyse(cl.create("resnet20", conv=kind), (3, 32, 32)).to_dict()
        for kind in (cl.kinds.Normal(), cl.kinds.Separable())
    )
    found = diff(dense, light)
    sizes = [abs(b - a) for a, b in (one.figures["params"] for one in found.largest("params").changes)]
    assert sizes == sorted(sizes, reverse=True)
    assert len(found.largest(None, 3).changes) == 3
    assert found.largest(None) is found
    with pytest.raises(InputError, match="sorted by params"):
        found.largest("speed")


def test_measured_totals_are_compared_where_both_have_them(full):
    found = diff(full, full)
    assert found.totals["ms"] == (full["times"]["bare"]["median"],) * 2
    assert found.totals["peak_inference"][0] > 0
    assert "peak_training" not in found.totals  # which was not asked for
    assert "ms" not in diff(full, analyse(Odd(), (3, 8, 8)).to_dict()).totals


def test_nothing_changed():
    table = analyse(Odd(), (3, 8, 8)).to_dict()
    found = diff(table, table)
    assert (found.changes, found.same) == ((), 3)


@pytest.mark.parametrize("wrong", [{}, {"modules": {}}, {"modules": {}, "rows": [], "nodel": ""}, []])
def test_what_is_no_report_says_so(wrong):
    with pytest.raises(InputError, match="no report of what a model costs"):
        diff(analyse(nn.ReLU(), (3,)).to_dict(), wrong)
