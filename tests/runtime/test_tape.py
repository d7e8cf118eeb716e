"""A network played from its tape answers as its graph does, whatever stands between the kernels, every time."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from convlite import kernels
from convlite.kernels import FusedConv2d
from convlite.models import create
from convlite.runtime import optimise
from convlite.runtime.native import native
from convlite.runtime.optimise import difference
from convlite.runtime.tape import SHAPES, Tape, Tapes
from convlite.runtime.trace import traced

pytestmark = pytest.mark.skipif(kernels.why_not() is not None, reason=str(kernels.why_not()))


def graph_of(net, x):
    with torch.no_grad():
        return native(traced(net.eval(), x))


class Mixed(nn.Module):
    """Pools, linear layers and torch's own operations between the kernels' steps; views of what those give."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3), nn.Conv2d(16, 8, 1)
        self.hidden, self.last = nn.Linear(8 * 9, 20), nn.Linear(20, 5)

    def forward(self, x):
        early = self.a(x)
        left, right = early.split(4, 1)  # parts of one memory, read at the end
        y = self.b(F.max_pool2d(early, 3, 2, 1)).relu()
        y = torch.cat([y, F.avg_pool2d(y, 3, 1, 1)], 1)
        y = self.c(y) * y.mean((2, 3), keepdim=True)[:, :8].sigmoid()
        y = F.adaptive_avg_pool2d(y, 3).flatten(1)
        y = self.last(self.hidden(y).relu())
        return y + left.mean((1, 2, 3))[:, None] - right.amax((1, 2, 3))[:, None]


def test_whatever_stands_between_the_kernels_the_answer_is_the_same():
    torch.manual_seed(0)
    net = Mixed()
    graph = graph_of(net, torch.zeros(2, 3, 20, 22))
    assert sum(isinstance(each, FusedConv2d) for each in graph.modules()) == 5  # linear layers too
    assert not any("linear" in str(node.target) for node in graph.graph.nodes)
    for shape in [(2, 3, 20, 22), (1, 3, 17, 13), (3, 3, 20, 22)]:
        tape = Tape(graph, torch.randn(shape))
        for _ in range(3):
            x = torch.randn(shape)
            with torch.no_grad():
                assert difference(net(x), tape(x)) < 1e-5


@pytest.mark.parametrize("name", ["resnet34", "inception_v3", "mobilenet_v3_small", "vgg11"])
def test_a_network_of_kernels_is_few_calls(name):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 80, 96)
    net = optimise(create(name).eval(), x)
    tape = Tape(graph_of(net, torch.zeros(2, 3, 80, 96)), x)
    with torch.no_grad():
        assert difference(net(x), tape(x)) < 1e-4
        assert torch.equal(tape(x), tape(x))
    if name == "resnet34":
        assert len(tape._plays) == 1


def test_answers_stay_when_the_next_ones_are_made():
    torch.manual_seed(0)
    tapes = Tapes(graph_of(nn.Sequential(nn.Conv2d(3, 4, 3)), torch.zeros(2, 3, 8, 8)))
    one, other = torch.randn(2, 2, 3, 8, 8)
    first = tapes(one)
    kept = first.clone()
    tapes(other)
    assert torch.equal(first, kept)


def test_many_threads_and_shapes_may_be_in_one_network():
    torch.manual_seed(0)
    net = Mixed()
    tapes = Tapes(graph_of(net, torch.zeros(2, 3, 20, 22)))
    images = [torch.randn(1 + i % 7, 3, 20, 16 + i % 3) for i in range(30)]

    def answer(x):
        with torch.no_grad():
            return tapes(x)

    with ThreadPoolExecutor(4) as pool:
        for x, y in zip(images, pool.map(answer, images)):
            with torch.no_grad():
                assert difference(net(x), y) < 1e-5
    assert len(tapes._idle) <= SHAPES


def test_several_outputs_are_torchs_to_run():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            y = self.conv(x)
            return y, y.mean()

    net = Two().eval()
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        for one, other in zip(Tapes(graph_of(net, x))(x), net(x)):
            torch.testing.assert_close(one, other)
