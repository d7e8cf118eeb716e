import peers
import pytest
import torch
from torch import nn

from convlite.kinds import Separable
from convlite.models import create


@pytest.mark.parametrize(("depth", "params"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018)])
def test_the_papers_cifar_networks(depth, params):
    assert peers.count(f"resnet{depth}")[0] == params
    net = create(f"resnet{depth}")
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules()) == depth


def test_shortcuts_skip_pixels_and_add_zero_channels():
    shortcut = create("resnet20").stage2.block1.shortcut
    x = torch.randn(2, 16, 7, 7)
    y = shortcut(x)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any() and not y[:, 24:].any()


def test_every_3x3_but_the_first_is_of_the_asked_kind():
    net = create("resnet20", conv=Separable())
    kernels = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert [m.groups == m.in_channels for m in kernels] == [False] + 18 * [True]
    assert net.kept == {}
    assert create("resnet20", stem=Separable()).stem.conv1.conv.depthwise.groups == 3
