"""Weights are rounded so that outputs stay near: within what theory allows, and nearer than each by itself."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from convlite.runtime import export, open_engine
from convlite.runtime.quantise import Calibration
from convlite.runtime.rounding import RIDGE, nearest

SHAPE = (6, 12, 12)
FEW = 64.0  # far more steps than any weight here takes


def layer(seed, groups, rows, columns, share):
    """A weight and its scale, and second moments of inputs that are alike to a share."""
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(groups, rows, columns, generator=random, dtype=torch.float64)
    own = torch.randn(groups, 4 * columns, columns, generator=random, dtype=torch.float64)
    common = torch.randn(groups, 4 * columns, 1, generator=random, dtype=torch.float64)
    x = (1 - share) * own + share * common  # (G, rows, D)
    return weight, weight.abs().amax(2, keepdim=True) / 7, x.mT @ x / x.shape[1]


def error(weight, found, scale, second):
    """Of each row's output, squared: (G, m)."""
    off = weight - found * scale
    return torch.einsum("gmd,gde,gme->gm", off, second, off)


def by_itself(weight, scale):
    return (weight / scale).round()


shapes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 150))


@given(st.integers(0, 2**16), shapes, st.floats(0, 0.9))
def test_no_row_is_further_off_than_its_half_steps_allow(seed, sizes, share):
    """Each column adds at most half a step, seen through the factor of the moments (Babai 1986)."""
    weight, scale, second = layer(seed, *sizes, share)
    found = nearest(weight, second, scale, FEW)
    assert torch.equal(found, found.round())
    pulled = second + RIDGE * second.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(sizes[2])
    order = second.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True)
    for g in range(sizes[0]):
        inverse = pulled[g][order[g]][:, order[g]].inverse()
        factor = torch.linalg.cholesky(inverse, upper=True)
        most = scale[g, :, 0] ** 2 / 4 * (1 / factor.diagonal() ** 2).sum()
        assert (
            error(weight[g : g + 1], found[g : g + 1], scale[g : g + 1], pulled[g : g + 1]) <= 1.0001 * most
        ).all()


def test_inputs_that_are_alike_share_the_roundings():
    weight, scale, second = layer(0, 2, 40, 200, 0.7)
    alone = error(weight, by_itself(weight, scale), scale, second).mean()
    assert error(weight, nearest(weight, second, scale, FEW), scale, second).mean() < 0.4 * alone


@given(st.integers(0, 2**16), shapes)
def test_inputs_of_nothing_in_common_change_nothing(seed, sizes):
    weight, scale, second = layer(seed, *sizes, 0.0)
    apart = torch.diag_embed(second.diagonal(dim1=1, dim2=2))
    assert torch.equal(nearest(weight, apart, scale, FEW), by_itself(weight, scale))


@given(st.integers(0, 2**16), shapes, st.floats(0, 0.9))
def test_integers_have_a_limit_and_groups_and_rows_are_apart(seed, sizes, share):
    weight, scale, second = layer(seed, *sizes, share)
    found = nearest(weight, second, scale, 5.0)
    assert found.abs().max() <= 5
    g, m = sizes[0] - 1, sizes[1] - 1
    one = nearest(weight[g:, m:], second[g:], scale[g:, m:], 5.0)
    assert torch.equal(one, found[g:, m:])


@pytest.mark.parametrize("dead", ["all", "some"])
def test_inputs_that_are_always_nothing(dead):
    weight, scale, second = layer(0, 2, 3, 20, 0.5)
    alive = torch.arange(20) < (0 if dead == "all" else 7)
    second = second * alive * alive[:, None]
    found = nearest(weight, second, scale, FEW)
    assert found.isfinite().all() and torch.equal(found[:, :, ~alive], by_itself(weight, scale)[:, :, ~alive])


class Mixed(nn.Module):
    """Strides, dilation, groups, no bias, a row of zeros, rows of a linear layer and of a matrix product."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(6, 12, (3, 2), stride=(2, 1), padding=(1, 0))
        self.grouped = nn.Conv2d(12, 16, 3, padding=2, dilation=2, groups=4, bias=False)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.across = nn.Linear(16, 24)
        self.linear = nn.Linear(24, 10)
        with torch.no_grad():
            self.first.weight[3] = 0

    def forward(self, x):
        x = torch.relu(self.grouped(torch.relu(self.first(x))))
        x = torch.relu(self.depthwise(x))
        x = torch.relu(self.across(x.flatten(2).mT))  # (N, H·W, 24)
        return self.linear(x.mean(1))


@pytest.fixture(scope="module")
def images():
    """Neighbours are alike, as in pictures, and pictures are not."""
    random = torch.Generator().manual_seed(0)
    rough = torch.randn(120, 6, 14, 14, generator=random)
    return nn.functional.avg_pool2d(rough, 3, 1) + torch.randn(120, 6, 1, 1, generator=random)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Mixed().eval()


def loss(net, images, path):
    """Of the answers, relative to how they vary."""
    export(net, path, SHAPE, precision="int8", images=Calibration(images[:60], images[60:], max_drop=0.99))
    with torch.no_grad():
        expected = net(images[60:]).numpy()
    found = open_engine(path, "onnxruntime", "int8", threads=1)(images[60:].numpy())
    return np.square(found - expected).mean() / expected.var(0).mean()


def test_a_network_of_all_layers_answers_nearer_than_with_roundings_apart(net, images, tmp_path, monkeypatch):
    seen = []

    def apart(weight, second, scale, limit):
        seen.append((tuple(weight.shape), tuple(second.shape), limit))
        return by_itself(weight, scale)

    together = loss(net, images, tmp_path / "together.onnx")
    monkeypatch.setattr("convlite.runtime.rounding.nearest", apart)
    assert together < 0.85 * loss(net, images, tmp_path / "apart.onnx") and together < 0.01
    assert seen == [
        ((1, 12, 36), (1, 36, 36), 64),
        ((4, 4, 27), (4, 27, 27), 64),  # by a coarser scale than NNCF gives it
        ((16, 1, 9), (16, 9, 9), 127),  # never added in pairs
        ((1, 24, 16), (1, 16, 16), 64),
        ((1, 10, 24), (1, 24, 24), 64),
    ]


def test_inputs_that_hardly_vary(tmp_path):
    """Their squares are all mean, and differences of squares are all rounding."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 40, 1), nn.Conv2d(40, 8, 3)
    with torch.no_grad():
        first.weight *= 1e-4
        first.weight[:20] = 0
        first.bias += 2
    net = nn.Sequential(first, nn.ReLU(), second, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    x = torch.rand(32, 3, 8, 8)
    path = export(net, tmp_path / "a.onnx", (3, 8, 8), precision="int8", images=Calibration(x, max_drop=0.99)).path
    with torch.no_grad():
        expected = net(x).numpy()
    found = open_engine(path, "onnxruntime", "int8", threads=1)(x.numpy())
    assert np.abs(found - expected).max() < 0.005 * np.abs(expected).max()


def test_sums_of_two_products_have_room_in_groups(tmp_path):
    """Large inputs times large weights of one sign, where a processor may add them in 16 bits."""
    torch.manual_seed(0)
    first, grouped = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 8, 3, groups=4)
    with torch.no_grad():
        first.bias += 2
        grouped.weight.abs_()
    net = nn.Sequential(first, nn.ReLU(), grouped, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    x = torch.rand(32, 3, 8, 8)
    path = export(net, tmp_path / "a.onnx", (3, 8, 8), precision="int8", images=Calibration(x, max_drop=0.99)).path
    with torch.no_grad():
        expected = net(x).numpy()
    for engine in ("onnxruntime", "openvino"):
        found = open_engine(path, engine, "int8", threads=1)(x.numpy())
        assert np.abs(found - expected).max() < 0.005 * expected.max()
