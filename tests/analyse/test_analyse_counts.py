"""Counts against what is derived by hand, against the kinds' closed forms, and against torch's own counter."""

import warnings

import peers
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from published import PUBLISHED
from reference import macs_by_shapes
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.flop_counter import FlopCounterMode
from toys import Own, Tied, Twice, toys

import convlite as cl
from convlite import kinds
from convlite.analyse import analyse


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", list(toys()))
@pytest.mark.parametrize("training", [True, False])
def test_hand_derived_counts(name, training):
    toy = toys()[name]
    table = analyse(toy.net.train(training), toy.input)
    assert (table.params, table.macs) == (toy.params, toy.macs)
    assert table.coverage.calls == table.coverage.elements == 1.0
    assert not table.unknown


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", list(toys()))
def test_children_and_self_add_up(name):
    toy = toys()[name]
    table = analyse(toy.net, toy.input)
    sums = table.by_module()
    assert (sums[""].params, sums[""].macs, sums[""].other_ops) == (table.params, table.macs, table.other_ops)
    for path, module in toy.net.named_modules():
        prefix = f"{path}." if path else ""
        children = [sums[prefix + child] for child, _ in module.named_children() if prefix + child in sums]
        own = [row for row in table.rows if row.path == path]
        for figure in ("calls", "params", "macs", "other_ops", "input_bytes", "output_bytes", "weight_bytes"):
            parts = sum(getattr(part, figure) for part in (*children, *own))
            assert getattr(sums[path], figure) == parts, (path, figure)
        if name not in ("tied", "repeated"):
            assert sums[path].params == sum(p.numel() for p in module.parameters()), path


pair = st.tuples(st.integers(1, 3), st.integers(1, 3))


@given(
    groups=st.integers(1, 3),
    per_group=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    k=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=pair,
    dilation=pair,
    padding=st.one_of(st.tuples(st.integers(0, 3), st.integers(0, 3)), st.just("same")),
    mode=st.sampled_from(["zeros", "circular", "replicate"]),
    bias=st.booleans(),
    size=st.tuples(st.integers(10, 15), st.integers(10, 15)),
)
@settings(deadline=None, max_examples=150)
def test_rows_of_convolutions_are_the_kinds_costs(
    groups, per_group, k, stride, dilation, padding, mode, bias, size
):
    c, m = (groups * n for n in per_group)
    if padding == "same":
        stride = (1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an even kernel padded to "same" is slower, says torch
        net = nn.Conv2d(c, m, k, stride, padding, dilation, groups, bias, mode)
    table = analyse(net, (c, *size))
    expected = kinds.conv_of(net, *size)
    assert [row.conv for row in table.rows if row.macs] == [expected]
    cost, row = expected.cost(), next(row for row in table.rows if row.macs)
    assert (row.params, row.macs, row.output_bytes) == (cost.params, cost.macs, cost.output_bytes)
    assert row.weight_bytes == cost.weight_bytes
    if len(table.rows) == 1:  # no padding in an operation of its own
        assert row.input_bytes == cost.input_bytes


@given(
    dims=st.integers(1, 3),
    transposed=st.booleans(),
    groups=st.integers(1, 2),
    per_group=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    k=st.integers(1, 3),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
)
@settings(deadline=None, max_examples=60)
def test_convolutions_of_any_dimension_agree_with_torchs_counter(
    dims, transposed, groups, per_group, k, stride, dilation
):
    kind = getattr(nn, f"Conv{'Transpose' if transposed else ''}{dims}d")
    c, m = (groups * n for n in per_group)
    net = kind(c, m, k, stride=stride, dilation=dilation, groups=groups, device="meta")
    x = torch.empty(2, c, *range(6, 6 + dims), device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x)
    assert 2 * analyse(net, x).macs == counter.get_total_flops()


@pytest.mark.parametrize(
    "name",
    [
        "tf_efficientnet_b0",
        "convnext_atto",
        "vit_tiny_patch16_224",
        "regnety_004",
        "resnetv2_50x1_bit",
        "xcit_nano_12_p16_224",
    ],
)
def test_networks_of_timm_agree_with_torchs_counter(name):
    net = peers.timm(name).to("meta").eval()
    x = torch.empty(1, 3, 224, 224, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x)
    table = analyse(net, (3, 224, 224))
    assert 2 * table.macs == counter.get_total_flops()
    assert table.params == sum(p.numel() for p in net.parameters())
    assert not table.unknown


@pytest.mark.parametrize(
    "name",
    [
        "tf_efficientnet_b0",
        "tf_mixnet_s",
        "convnext_tiny",
        "vit_tiny_patch16_224",
        "deit_tiny_patch16_224",
        "regnety_004",
    ],
)
def test_networks_of_timm_agree_with_the_shapes_their_layers_see(name):
    net = peers.timm(name)
    expected = macs_by_shapes(net, torch.rand(1, 3, 224, 224))
    assert analyse(net, (3, 224, 224)).macs == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_families_cost_what_is_published(name):
    with torch.device("meta"):
        net = cl.create(name)
    table = analyse(net, cl.models.FAMILIES[name].input)
    assert (table.params, table.macs) == PUBLISHED[name]
    assert table.coverage.calls == 1.0


def test_xception_is_the_published_network():
    table = cl.analyse(cl.create("xception"), (3, 299, 299))
    assert (table.params, table.macs) == (22_855_952, 8_357_403_496)
    assert (table.frozen, table.buffers) == (0, 54_528 + 40)  # 40 counters of batches
    assert table.coverage.calls == 1.0
    # batch normalisation, ReLU, residual sums, pooling: about 0.6% of what the convolutions take
    assert 0 < table.other_ops < 0.01 * table.macs


def test_a_module_called_twice_costs_twice_and_says_so():
    table = analyse(Twice(), (4, 8, 8))
    rows = [row for row in table.rows if row.op == "conv"]
    assert [(row.calls, row.params, row.conv.h) for row in rows] == [(2, 144, 8), (1, 0, 4)]
    assert all("called 3 times" in row.note for row in rows)
    assert [conv.h for conv in table.convs["conv"].calls] == [8, 8, 4]


def test_tied_parameters_count_once_and_are_named():
    table = analyse(Tied(), torch.zeros(1, 5, dtype=torch.long))
    notes = {row.path: row.note for row in table.rows}
    assert "embed.weight is also head.weight" in notes["embed"]
    assert "reads embed.weight" in notes["head"]
    assert {row.path: row.params for row in table.rows} == {"embed": 160, "head": 0}


def test_what_lightening_needs_to_know_about_a_convolution():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.plain = nn.Conv2d(3, 3, 3)
            self.alias = self.plain
            self.spied = nn.Conv2d(3, 3, 1)
            self.own = Own(3, 3, 2)
            self.idle = nn.Conv2d(3, 3, 3)
            self.computed = parametrizations.weight_norm(nn.Conv2d(3, 3, 1))
            self.pruned = prune.identity(nn.Conv2d(3, 3, 1), "weight")

        def forward(self, x):
            x = self.computed(self.own(self.spied(self.alias(x))))
            return self.pruned(x) + self.spied.weight.sum()

    table = analyse(Net(), (3, 8, 9))
    plain, spied, own, idle, computed, pruned = table.convs.values()
    assert plain.names == ("plain", "alias")
    assert plain.calls == (kinds.conv(c=3, m=3, k=3, padding="valid", bias=True, h=8, w=9),)
    assert spied.elsewhere == (": sum",) and not plain.elsewhere
    assert [conv.h for conv in own.calls] == [7]  # what the forward padded, and what the convolution sees
    assert (idle.runs, idle.calls, table.idle) == (0, (), ("idle",))
    assert [use.computed for use in (plain, spied, own, idle, computed, pruned)] == [False] * 4 + [True] * 2
    assert {row.path for row in table.rows if row.op == "conv"} == {"plain", "spied", "own", "computed", "pruned"}


def test_hooks_count_as_part_of_their_module():
    net = nn.Sequential(nn.Conv2d(3, 3, 1))
    net[0].register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    net[0].register_forward_hook(lambda module, args, out: out.relu())
    assert [(row.path, row.op) for row in analyse(net, (3, 4, 4)).rows] == [
        ("0", "mul"),
        ("0", "conv"),
        ("0", "relu"),
    ]


def test_what_is_unknown_is_listed_and_never_guessed():
    class Spectrum(nn.Module):
        def forward(self, x):
            return torch.fft.rfft(x).abs() + 1

    table = analyse(Spectrum(), (3, 8))
    assert [(one.op, one.calls, one.elements, one.paths) for one in table.unknown] == [("fft_r2c", 1, 15, ("",))]
    assert table.coverage.elements == 30 / 45
    assert 0.5 < table.coverage.calls < 1
    assert table.rows[0].note == "not counted" and table.rows[0].macs == table.rows[0].other_ops == 0


@pytest.mark.parametrize(
    ("net", "ops"),
    [
        (nn.BatchNorm2d(3), 3 * 8 * 8),
        (nn.GELU(), 3 * 8 * 8),
        (nn.MaxPool2d(3, 2, 1), 3 * 4 * 4 * 9),
        (nn.AvgPool2d(2), 3 * 4 * 4 * 4),
        (nn.AdaptiveAvgPool2d(1), 3 * 8 * 8),
        (nn.LayerNorm(8), 3 * 8 * 8),
        (nn.GroupNorm(3, 3), 3 * 8 * 8),
        (nn.Softmax(1), 3 * 8 * 8),
        (nn.Upsample(scale_factor=2, mode="bilinear"), 3 * 16 * 16 * 4),
        (nn.Upsample(scale_factor=2), 0),
        (nn.ZeroPad2d(1), 0),
        (nn.Flatten(), 0),
        (nn.PixelShuffle(1), 0),
    ],
    ids=repr,
)
def test_element_operations_are_counted_apart(net, ops):
    table = analyse(net, (3, 8, 8))
    assert (table.macs, table.other_ops, table.coverage.calls) == (0, ops, 1.0)


def test_attention_counts_its_softmax_apart():
    class Attention(nn.Module):
        def forward(self, x):
            return F.scaled_dot_product_attention(x, x, x)

    table = analyse(Attention(), torch.rand(2, 4, 10, 8))
    assert table.macs == 2 * (2 * 4 * 10 * 10 * 8)
    assert table.other_ops >= 2 * 4 * 10 * 10


def test_a_batch_multiplies_all_but_the_weights():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    one, five = analyse(net, torch.rand(1, 3, 8, 8)), analyse(net, torch.rand(5, 3, 8, 8))
    assert (five.macs, five.other_ops, five.params) == (5 * one.macs, 5 * one.other_ops, one.params)
    assert five.rows[0].weight_bytes == one.rows[0].weight_bytes
    assert five.rows[0].input_bytes == 5 * one.rows[0].input_bytes


def test_half_precision_halves_the_bytes():
    full, half = analyse(nn.Conv2d(3, 4, 3), (3, 8, 8)), analyse(nn.Conv2d(3, 4, 3).half(), (3, 8, 8))
    assert full.rows[0].bytes == 2 * half.rows[0].bytes
    assert half.input[0]["dtype"] == "float16"
