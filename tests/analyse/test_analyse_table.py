"""The table as a value: JSON, sums, the largest rows."""

import copy
import dataclasses
import json

import pytest
import torch
from torch import nn
from toys import toys

from convlite.analyse import Table, analyse
from convlite.errors import InputError


@pytest.fixture
def table():
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.Sequential(nn.ReLU(), nn.Conv2d(4, 8, (1, 3), bias=False)),
        nn.Flatten(),
        nn.Linear(8 * 6 * 4, 2),
    )
    net[0].requires_grad_(False)
    return analyse(net, (3, 8, 8))


def test_json_has_the_figures(table):
    found = json.loads(json.dumps(table.to_dict()))
    assert list(found)[:7] == ["model", "input", "params", "frozen", "buffers", "macs", "other_ops"]
    assert (found["params"], found["frozen"]) == (112 + 96 + 386, 112)
    assert found["macs"] == 108 * 36 + 96 * 24 + 384 == sum(row["macs"] for row in found["rows"])
    assert found["coverage"] == {"calls": 1.0, "elements": 1.0}
    assert found["rows"][2]["conv"]["k"] == [1, 3]
    assert found["rows"][0]["output_shape"] == [1, 4, 6, 6]
    assert found["modules"] == {"": "Sequential", "0": "Conv2d", "1": "Sequential", "1.0": "ReLU", "1.1": "Conv2d",
                                "2": "Flatten", "3": "Linear"}  # fmt: skip


def test_depth_cuts_the_tree_and_not_the_sums(table):
    assert list(table.by_module(1)) == ["", "0", "1", "2", "3"]
    assert table.by_module(0)[""].macs == table.macs
    assert table.by_module(1)["1"].macs == 96 * 24 == table.by_module()["1.1"].macs
    assert [one.depth for one in table.by_module().values()] == [0, 1, 1, 2, 2, 1, 1]


def test_the_largest_rows_come_first(table):
    assert [row.path for row in table.top(2)] == ["0", "1.1"]
    assert [row.path for row in table.top(1, by="params")] == ["3"]


def test_bytes_and_intensity(table):
    row = table.rows[0]
    assert row.bytes == 4 * (112 + 3 * 64 + 4 * 36)
    assert row.intensity == row.macs / row.bytes


def test_tables_are_values(table):
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.macs = 0
    assert copy.deepcopy(table) == table
    assert all(json.dumps(analyse(toy.net, toy.input).to_dict()) for toy in list(toys().values())[:8])


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", list(toys()))
def test_a_saved_table_is_read_back_as_it_was(name):
    toy = toys()[name]
    table = analyse(toy.net, toy.input)
    assert Table.from_dict(json.loads(json.dumps(table.to_dict()))) == table


@pytest.mark.parametrize(
    "spoil", [{"rows": 3}, {"convs": {"0": {}}}, {"coverage": {"calls": 1}}, {"modules": None}]
)
def test_a_spoilt_table_is_refused(table, spoil):
    with pytest.raises(InputError, match="no report of what a model costs"):
        Table.from_dict({**table.to_dict(), **spoil})


def test_parameters_that_nothing_reads_have_a_row():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.spare, self.attention = nn.Parameter(torch.rand(5)), nn.MultiheadAttention(4, 2)

        def forward(self, x):
            return self.attention(x, x, x)[0]

    table = analyse(Spare(), (3, 4))
    unread = {row.path: (row.calls, row.params, row.note) for row in table.rows if not row.op}
    assert unread == {
        "": (0, 5, "never read"),
        "attention.out_proj": (0, 20, "read by attention: addmm"),
    }
    assert sum(row.params for row in table.rows) == table.params == 5 + 4 * 16 + 4 * 4
    assert table.idle == ()
