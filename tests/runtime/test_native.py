"""The graph of a network with convlite's own convolutions: which are fused, and that no answer changes."""

import peers
import pytest
import torch
from torch import nn

from convlite import kernels
from convlite.errors import InputError
from convlite.kernels import FusedConv2d
from convlite.kinds import Asymmetric, Bottleneck, Grouped, LowRank, Separable, Shuffled
from convlite.models import create
from convlite.runtime import export, open_engine, optimise
from convlite.runtime.native import native
from convlite.runtime.optimise import difference
from convlite.runtime.trace import traced

pytestmark = pytest.mark.skipif(kernels.why_not() is not None, reason=str(kernels.why_not()))


def fused_of(net, size=32):
    """The fused layers of a network, and how often each other operation is left."""
    example = torch.zeros(2, 3, size, size)
    graph = native(traced(optimise(net, example), example))
    others = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    return graph, [each for each in graph.modules() if isinstance(each, FusedConv2d)], others


def test_xception_is_separable_blocks_and_little_else():
    torch.manual_seed(0)
    net = peers.randomise_(create("xception_small", width=0.25, depth=1)).eval()
    graph, fused, others = fused_of(net)
    separable = sum(each.grouped is not None and each.dense is not None for each in fused)
    assert separable == sum(name.endswith("depthwise") for name, _ in net.named_modules())
    assert not any("conv2d" in name or "relu" in name or ".add." in name for name in others)
    x = torch.randn(3, 3, 40, 36)
    with torch.no_grad():
        assert difference(net(x), graph(x)) < 1e-5


@pytest.mark.parametrize("terms", [2, 3])
def test_separable_sums_are_one_layer_each(terms):
    torch.manual_seed(0)
    net = peers.randomise_(create("resnet20", conv=Separable(multiplier=terms))).eval()
    graph, fused, others = fused_of(net)
    assert sum(e.grouped is not None and e.dense is not None for e in fused) == 18  # all but the first and 1x1
    assert not any("cat" in name for name in others)
    x = torch.randn(2, 3, 24, 28)
    with torch.no_grad():
        assert difference(net(x), graph(x)) < 1e-5


@pytest.mark.parametrize("between", [None, nn.ReLU6()], ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("channels, terms", [(3, 1), (3, 2), (2, 5), (4, 2)])
def test_a_separable_stem_of_an_images_channels_is_one_dense_convolution(channels, terms, bias, between):
    torch.manual_seed(0)
    inner = channels * terms
    depthwise = nn.Conv2d(channels, inner, 3, stride=2, padding=1, groups=channels, bias=bias)
    layers = [depthwise, between, nn.Conv2d(inner, 7, 1, bias=not bias), nn.ReLU()]
    net = nn.Sequential(*filter(None, layers)).eval()
    x = torch.randn(2, channels, 15, 12)
    with torch.no_grad():
        graph = native(traced(net, x))
        assert difference(net(x), graph(x)) < 1e-5
    (one,) = (each for each in graph.modules() if isinstance(each, FusedConv2d))
    assert (one.grouped is None) == (channels < 4 and between is None)


@pytest.mark.parametrize(
    "kind",
    [
        Separable("pointwise_first"), Separable("pointwise_first", multiplier=3), LowRank(16, slices=16),
        Grouped(16), Asymmetric(5), Bottleneck(6, 7), Bottleneck(12, 12, slices=12), Shuffled(16),
    ],
    ids=str,
)  # fmt: skip
def test_every_convolution_of_a_light_network_is_the_kernels(kind):
    torch.manual_seed(0)
    net = peers.randomise_(create("resnet20", conv=kind)).eval()
    graph, _, others = fused_of(net)
    left = [each for each in others if any(name in each for name in ("conv", "linear", "split", "relu"))]
    assert left == []
    with torch.no_grad():
        for x in (torch.randn(2, 3, 24, 28), torch.randn(1, 3, 36, 20)):
            assert difference(net(x), graph(x)) < 1e-5


@pytest.mark.parametrize("which", ["before", "depthwise", "term", "sum"])
def test_a_sum_of_depthwise_convolutions_stays_where_a_part_of_it_is_read_elsewhere(which):
    class Seen(nn.Module):
        def __init__(self):
            super().__init__()
            self.point, self.last = nn.Conv2d(5, 12, 1), nn.Conv2d(6, 4, 1)
            self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False)

        def forward(self, x):
            before = self.point(x)
            spread = self.depthwise(before)
            one, other = spread.chunk(2, 1)
            parts = {"before": before, "depthwise": spread, "term": one, "sum": one + other}
            return self.last(one + other) + parts[which].mean((1, 2, 3), keepdim=True)

    torch.manual_seed(0)
    net, x = Seen().eval(), torch.randn(2, 5, 9, 9)
    with torch.no_grad():
        graph = native(traced(net, x))
        assert difference(net(x), graph(x)) < 1e-5
    groups = {each.grouped.groups for each in graph.modules() if isinstance(each, FusedConv2d) and each.grouped}
    assert groups == {12} if which != "sum" else groups


class Awkward(nn.Module):
    """What may be fused, and what must not be."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(6, 6, 3, padding=1) for _ in range(3))
        self.depthwise, self.point = nn.Conv2d(6, 12, 3, padding=1, groups=6), nn.Conv2d(12, 6, 1)
        self.seen, self.seen_point = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 6, 1)
        self.grouped, self.wide = nn.Conv2d(6, 6, 1, groups=2), nn.Conv2d(6, 1, 1)
        self.same = nn.Conv2d(6, 6, (3, 2), padding="same")

    def forward(self, x):
        y = self.a(x)
        y = y.relu_() + y  # changed in place, and read twice
        y = nn.functional.relu6(self.b(y) + x)
        y = self.point(nn.functional.relu6(self.depthwise(y.relu())))
        z = self.seen(y)
        y = self.seen_point(z) + z.sigmoid()  # the depthwise output is seen
        y = torch.add(self.c(y), y, alpha=2)
        y = self.grouped(y) + self.wide(y)  # broadcast
        y = self.same(y)
        return (self.a(y) + self.c(y)).clamp(min=0)


def test_only_what_may_be_fused_is():
    torch.manual_seed(0)
    net = Awkward().eval()
    with torch.no_grad():
        for p in net.parameters():
            p *= 2
    example = torch.randn(2, 6, 9, 11)
    graph = native(traced(net, example))
    with torch.no_grad():
        for x in (example, torch.randn(3, 6, 12, 8)):
            assert difference(net(x), graph(x)) < 1e-5
    both = [e for e in graph.modules() if isinstance(e, FusedConv2d) and e.dense and e.grouped]
    assert len(both) == 1 and both[0].grouped.high == 6


def test_a_file_of_one_size_refuses_another_and_a_module_is_traced_again(tmp_path):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 5)

        def forward(self, x):
            return self.last(self.conv(x).flatten(1))

    class Sized(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            y = self.conv(x)
            return y.mean((2, 3)) * (2.0 if x.shape[2] == 8 else 3.0)

    file = export(Fixed().eval(), tmp_path / "net.pt2", (3, 8, 8), to="pt2").path
    session = open_engine(file, "convlite", threads=1)
    assert session(torch.randn(3, 3, 8, 8).numpy()).shape == (3, 5)
    with pytest.raises(InputError, match="exported for other images"):
        session(torch.randn(3, 3, 9, 8).numpy())
    net = Sized().eval()
    session = open_engine(net, "convlite", threads=1)
    for size in (8, 10, 8):
        x = torch.randn(2, 3, size, size)
        with torch.no_grad():
            assert difference(net(x), torch.from_numpy(session(x.numpy()))) < 1e-5


def test_other_precisions_are_refused():
    with pytest.raises(InputError, match="convlite computes in fp32, not in bf16"):
        open_engine(nn.Conv2d(3, 4, 3), "convlite", "bf16")
