"""Time and memory grow with the number of layers, and not with the size of the weights; counted, not clocked."""

import sys
import tracemalloc

import pytest
import torch
from torch import nn

from convlite.analyse import analyse, peak_memory


class Residual(nn.Module):
    """n blocks, each of four layers and a sum."""

    def __init__(self, n):
        super().__init__()
        block = [nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1)]
        self.blocks = nn.ModuleList(nn.Sequential(*(type(m)(*args(m)) for m in block)) for _ in range(n))

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)
        return x


def args(layer):
    if isinstance(layer, nn.Conv2d):
        return 4, 4, layer.kernel_size, 1, layer.padding
    return (4,) if isinstance(layer, nn.BatchNorm2d) else ()


class Again(nn.Module):
    """One convolution, n times."""

    def __init__(self, n):
        super().__init__()
        self.n, self.conv = n, nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        for _ in range(self.n):
            x = self.conv(x)
        return x


def calls(work):
    """How many functions `work` calls, torch's in Python and those in C that Python calls."""
    count = 0

    def see(frame, event, arg):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def most_bytes(work):
    """The most that Python objects took while `work` ran."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("make", [Residual, Again])
@pytest.mark.parametrize(
    "work",
    [
        lambda net: analyse(net, (4, 8, 8)).to_dict(),
        lambda net: analyse(net, (4, 8, 8)).by_module(),
        lambda net: peak_memory(net, torch.empty(2, 4, 8, 8, device="meta")),
    ],
    ids=["rows", "modules", "memory"],
)
def test_twice_the_layers_cost_twice(make, work):
    with torch.device("meta"):
        small, large = make(8), make(16)
    work(small)  # what is learned once
    assert calls(lambda: work(large)) < 2.05 * calls(lambda: work(small))
    assert most_bytes(lambda: work(large)) < 2.3 * most_bytes(lambda: work(small))


def test_two_thousand_layers():
    with torch.device("meta"):
        net = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2000)))
    table = analyse(net, (4, 8, 8))
    assert (table.params, table.macs, len(table.rows)) == (2000 * 148, 2000 * 144 * 64, 2000)


def test_a_billion_parameters_take_no_memory():
    def net(channels):
        with torch.device("meta"):
            return nn.Sequential(*(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(28)))

    small, large = net(4), net(2048)
    analyse(small, (4, 8, 8))
    table = analyse(large, (2048, 8, 8))
    assert table.params == 28 * 9 * 2048**2 > 1e9
    assert table.macs == table.params * 64
    assert most_bytes(lambda: analyse(large, (2048, 8, 8))) < 1.5 * most_bytes(lambda: analyse(small, (4, 8, 8)))
