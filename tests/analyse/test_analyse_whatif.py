"""The price of another network is what that network costs; the roof is above every layer."""

import json
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import convlite as cl
from convlite import kinds
from convlite.analyse import analyse, peaks, priced, roofline, time_layers, what_if
from convlite.analyse.latency import Timing, machine
from convlite.analyse.layers import LayerTimes
from convlite.analyse.roofline import Peaks
from convlite.models.surgery import replace_

MODULE = sys.modules["convlite.analyse.roofline"]  # the attribute of that name is the function


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.twice = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.large = nn.Conv2d(8, 12, 5, padding=2, dilation=1)
        self.pointwise, self.grouped = nn.Conv2d(12, 12, 1), nn.Conv2d(12, 12, 3, groups=3)
        self.computed = parametrizations.weight_norm(nn.Conv2d(12, 4, 3))
        self.idle, self.read = nn.Conv2d(3, 3, 3), nn.Conv2d(4, 4, 3)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = self.large(self.twice(self.twice(self.stem(x))))
        x = self.read(self.computed(self.grouped(self.pointwise(x)))) * self.read.weight.mean()
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize(
    "kind",
    [
        kinds.Separable(),
        kinds.Separable("pointwise_first"),
        kinds.Asymmetric(4),
        kinds.Bottleneck(),
        kinds.Grouped(4),
    ],
    ids=str,
)
def test_the_price_is_what_the_network_then_costs(kind):
    net = Net()
    table = analyse(net, (3, 20, 24))
    found = priced(table, kind)
    replace_(net, dict.fromkeys(found.replaced, kind))
    after = analyse(net, (3, 20, 24))
    assert (found.params, found.macs) == (after.params, after.macs)
    assert (found.params_before, found.macs_before) == (table.params, table.macs)
    assert found.params < found.params_before
    assert set(found.replaced) | set(found.left) == set(table.convs)
    assert not set(found.replaced) & set(found.left)
    json.dumps(found.to_dict())


def test_what_stays_says_why():
    left = priced(analyse(Net(), (3, 20, 24)), kinds.Separable()).left
    assert left["idle"] == "it never ran"
    assert "also read by : mean" in left["read"]
    assert "computed" in left["computed"]
    assert "grouped by 3" in left["grouped"]
    assert left["pointwise"] == "it would save nothing there"
    assert set(left) == {"idle", "read", "computed", "grouped", "pointwise"}


def test_every_dense_convolution_is_compared_and_equal_ones_once():
    net = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3)), nn.Conv2d(4, 4, 3, groups=2))
    found = what_if(analyse(net, (4, 8, 8)), kinds=[kinds.Separable()], rounds=1, threads=1)
    assert list(found) == ["0", "1", "2"]
    assert found["0"] is found["2"]
    assert found["0"].choices[1].ms["contiguous"].runs == 1
    assert found["0"].layer.bias  # the layer as it stands, not a bare one of its size


def timed(**milliseconds):
    layers = {path: Timing(ms, ms, ms, 1, ms) for path, ms in milliseconds.items()}
    return LayerTimes(Timing(1, 1, 1, 1, 1), Timing(1, 1, 1, 1, 1), layers, machine())


def test_the_roof_by_hand():
    net = nn.Sequential()
    net.conv, net.act, net.flat = nn.Conv2d(4, 8, 3, bias=False), nn.ReLU(), nn.Flatten()
    table = analyse(net, (4, 12, 12))
    macs, out = 4 * 8 * 9 * 100, 4 * 8 * 100
    read = 4 * (4 * 8 * 9 + 4 * 144)
    best = Peaks(macs=1e6, cache=1e7, memory=1e6, cache_bytes=6000, machine=machine())
    conv, act = roofline(table, timed(conv=100.0, act=0.8, flat=1.0), best)
    assert (conv.path, conv.limit, conv.at_best) == ("conv", "compute", macs / 1e3)
    assert conv.share == pytest.approx(macs / 1e5)
    assert not conv.fault
    assert (act.limit, act.at_best) == ("memory", 1e3 * 2 * out / 1e6)  # 6,400 bytes don't fit
    assert act.fault and act.share == pytest.approx(8)
    larger = Peaks(macs=1e6, cache=1e7, memory=1e6, cache_bytes=2 * out, machine=machine())
    assert roofline(table, timed(act=0.8), larger)[0].at_best == 1e3 * 2 * out / 1e7
    wide = Peaks(macs=1e9, cache=1e6, memory=1e5, cache_bytes=0, machine=machine())
    assert roofline(table, timed(conv=100.0), wide)[0].at_best == pytest.approx(1e3 * (read + out) / 1e6)


@pytest.fixture
def quick(monkeypatch):
    for name, size in (("_MULTIPLIED", 32), ("_CONVOLVED", 4), ("_SMALL", 1 << 8), ("_LARGE", 1 << 10)):
        monkeypatch.setattr(MODULE, name, size)


def test_peaks_are_measured_once_and_remembered(tmp_path, quick):
    first = peaks(threads=1, folder=tmp_path)
    assert first.macs > 0 and first.cache >= first.memory > 0
    assert first.machine.threads == 1
    assert peaks(threads=1, folder=tmp_path) == first
    peaks(torch.bfloat16, threads=1, folder=tmp_path)
    known = json.loads((tmp_path / "peaks.json").read_text())
    assert len(known) == 2
    assert peaks(threads=1, folder=tmp_path, again=True) != first
    assert peaks(threads=1, folder=tmp_path) != first


def test_a_real_network_end_to_end(tmp_path, quick):
    net = cl.create("resnet20")
    table, times = analyse(net, (3, 32, 32)), time_layers(net, (3, 32, 32), rounds=2, warmup=1)
    roofs = roofline(table, times, peaks(folder=tmp_path))
    assert {row.path for row in table.rows if row.macs} <= {roof.path for roof in roofs}
    assert all(roof.at_best > 0 and roof.share > 0 for roof in roofs)
    json.dumps([roof.to_dict() for roof in roofs])
