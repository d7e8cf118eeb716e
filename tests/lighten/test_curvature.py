"""What the outputs are said to feel of a changed kernel, against what it does to them."""

import copy
import sys

import pytest
import torch
from torch import nn

from convlite.kinds import LowRank, Separable
from convlite.lighten import curvature
from convlite.lighten.calibrate import mix_for
from convlite.lighten.curvature import EVEN, curvatures
from convlite.lighten.observe import observe
from convlite.lighten.survey import survey


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(0)
    return torch.randn(60, 3, 8, 8).cumsum(2).cumsum(3) / 4 + 1


def seen_by(net, images):
    layers = survey(net, tuple(images.shape[1:])).layers
    return observe(net, {path: layer.conv for path, layer in layers.items()}, images)[0]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_effect_is_what_a_change_does_to_a_linear_network(images, bias, stride):
    """One output has two random directions, of the same square: nothing is left to chance."""
    torch.manual_seed(1)
    head = nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 1)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, stride, 1, bias=bias), *head).eval()
    seen = seen_by(net, images)
    felt = curvatures(net, seen, images)["0"]
    change = 0.1 * torch.randn(4, 27)
    changed = copy.deepcopy(net)
    with torch.no_grad():
        changed[0].weight += change.view_as(changed[0].weight)
        if bias:
            changed[0].bias -= change @ seen["0"].means[0].float()
        off, answers = changed(images) - net(images), net(images)
    made = off.square().mean() / (answers - answers.mean(0)).square().mean()
    assert felt.effects([change])[0] == pytest.approx(float(made), rel=5e-3)  # of samples with eight bits


def test_an_even_network_feels_all_channels_alike_and_a_root_says_which_it_does_not(images):
    torch.manual_seed(2)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    ).eval()
    with torch.no_grad():
        net[3].weight[:] = torch.tensor([[3.0, 0, 0, 0], [0, 1.0, 1.0, 0]])
    seen = seen_by(net, images)
    root = curvatures(net, seen, images)["0"].root(seen["0"].sums.second / seen["0"].sums.rows)
    assert mix_for(LowRank(1), root) is root
    alone = mix_for(Separable("pointwise_first"), root)[0]
    root = root[0]
    torch.testing.assert_close(root, root.T)
    felt = root @ root - EVEN * torch.eye(4)
    assert felt.diagonal().mean() == pytest.approx(1)
    assert felt[3].abs().max() < 1e-6  # nothing reads it
    assert felt[0, 0] == pytest.approx(9 * float(felt[1, 1]), rel=5e-3)
    assert felt[1, 2] == pytest.approx(float(felt[1, 1]), rel=1e-4)  # the outputs feel their sum alone
    torch.testing.assert_close(alone, (root @ root).diagonal().sqrt().diag())


@pytest.mark.parametrize("groups, bias", [(1, False), (1, True), (4, True)])
def test_wide_layers_are_kept_as_what_their_samples_are_made_of(images, monkeypatch, groups, bias):
    torch.manual_seed(4)
    wide = nn.Conv2d(16, 24, 3, 2, 1, bias=bias, groups=groups)
    layers = (
        nn.Conv2d(3, 16, 3, 2, 1),
        nn.ReLU(),
        wide,
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 40),
        nn.Linear(40, 2),
    )
    net = nn.Sequential(*layers).eval()
    seen = seen_by(net, images)
    found = []
    for numbers in (2**23, len(images) * 700):  # room for all samples; and for what they are made of
        monkeypatch.setattr(curvature, "NUMBERS", numbers)
        found.append(curvatures(net, seen, images))
    whole, small = found
    assert [type(small[path]) for path in "0256"] == [curvature.Products, *[curvature.Maps] * 2, curvature.Products]
    for path in "25":
        changes = [torch.randn_like(net[int(path)].weight).flatten(1) for _ in range(3)]
        assert isinstance(whole[path], curvature.Products) and whole[path].shape[0] == small[path].shape[0] == 60
        assert small[path].effects(changes) == pytest.approx(whole[path].effects(changes), rel=5e-3)
        second = seen[path].sums.second / seen[path].sums.rows
        second = second + 0.01 * second.diagonal(dim1=1, dim2=2).mean() * torch.eye(second.shape[1])
        torch.testing.assert_close(small[path].root(second), whole[path].root(second), rtol=0.02, atol=0.02)


def test_layers_that_run_several_times_are_the_sum_of_that(images, monkeypatch):
    torch.manual_seed(5)
    twice, once = nn.Conv2d(3, 3, 3, 1, 1, bias=False), nn.Conv2d(3, 3, 3, 1, 1, bias=False)
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 1)
    monkeypatch.setattr(curvature, "NUMBERS", 1)
    effects = []
    for layers in ((twice, twice, *head), (twice, once, *head)):
        net = nn.Sequential(*layers).eval()
        once.load_state_dict(twice.state_dict())
        felt = curvatures(net, seen_by(net, images), images)
        assert isinstance(felt["0"], curvature.Products)
        effects.append(felt["0"].some(slice(None)) + (felt["1"].some(slice(None)) if "1" in felt else 0))
    torch.testing.assert_close(*effects, rtol=0.02, atol=0.02)


def test_layers_that_nothing_answers_to_are_felt_as_even(images):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    nn.init.zeros_(net[3].weight)
    seen = seen_by(net, images)
    felt = curvatures(net, seen, images)["0"]
    assert felt.effects([torch.ones(4, 27)])[0] == 0
    torch.testing.assert_close(
        felt.root(torch.eye(27, dtype=torch.float64)[None])[0], torch.eye(4, dtype=torch.float64)
    )


@pytest.mark.parametrize("at_once", [1, 7])
def test_how_many_images_run_at_once_changes_nothing(images, monkeypatch, at_once):
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)).eval()
    seen, change = seen_by(net, images), torch.randn(4, 27)
    felt = curvatures(net, seen, images)["0"].effects([change])[0]
    monkeypatch.setattr(
        sys.modules["convlite.lighten.answers"], "PIXELS", at_once * images.shape[2] * images.shape[3]
    )
    assert curvatures(net, seen, images)["0"].effects([change])[0] == pytest.approx(felt, rel=5e-3)
    again = seen_by(net, images)["0"].sums
    torch.testing.assert_close(again.second, seen["0"].sums.second, rtol=1e-5, atol=1e-5)
