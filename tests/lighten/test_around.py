"""What stands around a convolution, on networks written in several ways."""

import weakref

import pytest
import torch
from nets import settled
from torch import nn

import convlite as cl
from convlite.lighten.around import Around, around, hooked
from convlite.lighten.observe import Shortcuts, observe
from convlite.lighten.survey import survey


class Block(nn.Module):
    """A residual block as many are written: the sum in place, one activation used twice."""

    def __init__(self, bias: bool = False, twice: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1, bias=bias)
        self.bn1 = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=bias)
        self.bn2 = self.bn1 if twice else nn.BatchNorm2d(4)

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        return self.relu(out)


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x):
        return x + self.conv(x)


@pytest.fixture
def images():
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def test_the_shortcut_before_the_norm_is_the_sum_after_it(images):
    torch.manual_seed(0)
    block = settled(Block())
    found = around(block, ["conv1", "conv2"], images)
    assert (found["conv1"].norm, found["conv1"].shortcut) == ("bn1", "")
    at = found["conv2"]
    assert (at.norm, at.shortcut) == ("bn2", "conv1")
    y = block.conv2(block.relu(block.bn1(block.conv1(images))))
    before = block.bn2(y + images * at.scale.view(1, -1, 1, 1))
    torch.testing.assert_close(before, block.bn2(y) + images)


def test_a_channel_that_the_norm_holds_back_makes_up_for_nothing(images):
    block = settled(Block())
    block.bn2.weight.data[1] = 0
    assert around(block, ["conv2"], images)["conv2"].scale[1] == 0


def test_without_a_norm_the_sum_is_the_convolution_s_own(images):
    found = around(Bare().eval(), ["conv"], images)["conv"]
    assert (found.norm, found.shortcut) == ("", "conv")
    assert torch.equal(found.scale, torch.ones(4))


def test_what_runs_twice_does_not_count(images):
    assert around(settled(Block(twice=True)), ["conv2"], images)["conv2"].norm == ""
    again = Bare().eval()
    assert around(nn.Sequential(again, again), ["0.conv"], images) == {}
    assert around(Block().eval(), [], images) == {}


def test_a_family_s_blocks_are_seen_through():
    net = cl.create("resnet20", num_classes=10).eval()
    paths = [path for path, module in net.named_modules() if isinstance(module, nn.Conv2d)]
    found = around(net, paths, torch.randn(2, 3, 32, 32))
    assert all(found[path].norm == path.removesuffix("conv") + "norm" for path in paths)
    identity = [f"stage{i}.block{j}" for i in (1, 2, 3) for j in (1, 2, 3) if j > 1 or i == 1]
    assert {path for path, at in found.items() if at.shortcut} == {f"{b}.branch.unit2.conv" for b in identity}
    assert found["stem.conv1.conv"] == Around("stem.conv1.norm")


def test_shortcuts_are_let_go_once_they_are_taken():
    """Or else a pass over all images would keep the inputs of every block."""
    net = cl.create("resnet20").eval()
    convs = {path: layer.conv for path, layer in survey(net, (3, 32, 32)).layers.items()}
    images, modules = torch.randn(4, 3, 32, 32), dict(net.named_modules())
    seen, _ = observe(net, convs, images)
    shortcuts, taken, alive = Shortcuts(modules, seen), [], []

    def take(path):
        def hook(module, args, y):
            alive.append(sum(each() is not None for each in taken))
            taken.append(weakref.ref(shortcuts.take(path)))

        return hook

    hooks = {modules[path]: take(path) for path, at in seen.items() if at.around.shortcut}
    with torch.no_grad(), shortcuts.held(), hooked(hooks):
        net(images)
    assert len(alive) > 5 and max(alive) == 0
