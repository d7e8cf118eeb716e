"""Folding changes no answer, whatever the network; and folds only what it may."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convlite.kinds import Asymmetric, Bottleneck, Permuted, Separable, Shuffled
from convlite.models import create
from convlite.nn import ChannelPermutation, PermutedConv2d
from convlite.runtime import optimise
from convlite.runtime.optimise import difference, foldable

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def randomise_(net):
    for module in net.modules():
        if isinstance(module, NORMS):
            if module.track_running_stats:
                nn.init.uniform_(module.running_mean, -1, 1)
                nn.init.uniform_(module.running_var, 0.1, 3)
            if module.affine:
                nn.init.uniform_(module.weight, -1, 2)
                nn.init.uniform_(module.bias, -1, 1)
    return net.eval()


def norms(net):
    return sum(isinstance(module, NORMS) for module in net.modules())


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_every_layer_with_its_norm(data):
    draw = data.draw
    groups = draw(st.sampled_from([1, 2, 4]))
    c, m, n = draw(st.sampled_from([4, 8])), draw(st.sampled_from([4, 12])), draw(st.integers(1, 3))
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[n - 1]
    if draw(st.booleans()):
        layer = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[n - 1]
    torch.manual_seed(draw(st.integers(0, 99)))
    conv = layer(c, m, 3, stride=draw(st.integers(1, 2)), padding=1, groups=groups, bias=draw(st.booleans()))
    net = randomise_(nn.Sequential(conv, NORMS[n - 1](m, affine=draw(st.booleans())), nn.ReLU())).double()
    x = torch.randn(2, c, *[7, 6, 5][:n], dtype=torch.float64)
    light = optimise(net, x)
    assert norms(light) == 0
    torch.testing.assert_close(light(x), net(x))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("xception_small", {}),
        ("resnet20", {}),
        ("resnet20", {"conv": Separable(multiplier=2)}),
        ("resnet20", {"conv": Bottleneck()}),
        ("resnet20", {"conv": Asymmetric(2)}),
        ("resnet20", {"conv": Shuffled(4)}),
        ("vgg11_bn", {"width": 0.25, "hidden": (16,)}),
        ("mobilenet_v3_small", {"width": 0.5}),
        ("googlenet", {}),
        ("shufflenet_v2_x0_5", {}),
        ("xception_small", {"head": "deeplabv3plus", "num_classes": 3}),
    ],
    ids=str,
)
def test_families_lose_all_their_norms_and_no_answer(name, options):
    torch.manual_seed(0)
    net = randomise_(create(name, **options))
    before = copy.deepcopy(net.state_dict())
    x = torch.randn(2, 3, 64, 64)
    light = optimise(net, x)
    assert norms(light) == 0 and not any(isinstance(m, nn.Dropout) for m in light.modules())
    other = torch.randn(3, 3, 80, 96)
    with torch.no_grad():
        assert difference(net(other), light(other)) < 1e-4
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())  # as it was
    assert not any(p.requires_grad for p in light.parameters())


class Awkward(nn.Module):
    """One norm may be folded; each of the others has a reason why not."""

    def __init__(self):
        super().__init__()
        self.plain, self.plain_norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)
        self.read_twice, self.read_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.twice, self.twice_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.tied, self.tied_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.other = nn.Conv2d(4, 4, 1)
        self.other.weight = self.tied.weight
        self.computed = nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1))
        self.computed_norm = nn.BatchNorm2d(4)
        self.batch, self.batch_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)
        self.given, self.given_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.after_relu = nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.plain_norm(self.plain(x))
        y = self.read_twice(x)
        x = self.read_norm(y) + y.relu()
        x = self.twice_norm(self.twice(self.twice_norm(self.twice(x))))
        x = self.other(self.tied_norm(self.tied(x)))
        x = self.computed_norm(self.computed(x))
        x = self.batch_norm(self.batch(x))
        x = self.after_relu(x.relu())
        z = self.given(x)
        return self.given_norm(z), z


def test_only_what_may_be_folded_is():
    torch.manual_seed(0)
    net = randomise_(Awkward())
    x = torch.randn(2, 3, 5, 5)
    names = {module: name for name, module in net.named_modules()}
    assert [names[norm] for _, norm in foldable(net, x)] == ["plain_norm"]
    light = optimise(net, x)
    assert difference(net(x), light(x)) < 1e-4 and norms(light) == norms(net) - 1


def test_a_norm_behind_a_permutation_of_channels_stays():
    torch.manual_seed(0)
    net = randomise_(create("resnet20", conv=Permuted(4)))
    for module in net.modules():
        if isinstance(module, ChannelPermutation):
            module.order.copy_(torch.randperm(len(module.order)))
    x = torch.randn(2, 3, 32, 32)
    light = optimise(net, x)
    permuted = sum(isinstance(module, PermutedConv2d) for module in net.modules())
    assert norms(light) == permuted > 0
    assert difference(net(x), light(x)) < 1e-4
