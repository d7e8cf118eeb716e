"""The modules stand wherever an nn.Conv2d stands."""

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn

from convlite import nn as cnn
from convlite.errors import InputError

MODULES = {
    "SeparableConv2d": {"multiplier": 2},
    "AsymmetricConv2d": {"rank": 5},
    "StackedConv2d": {},
    "BottleneckConv2d": {"rank_in": 3, "rank_out": 2},
    "LowRankConv2d": {"rank": 3},
    "ShuffledConv2d": {"groups": 2},
    "PermutedConv2d": {"groups": 2},
}
NAMES = {
    "SeparableConv2d": ["depthwise", "pointwise"],
    "AsymmetricConv2d": ["vertical", "horizontal"],
    "StackedConv2d": ["conv1", "conv2"],
    "BottleneckConv2d": ["reduce", "spatial", "expand"],
    "LowRankConv2d": ["spatial", "expand"],
    "ShuffledConv2d": ["pointwise", "depthwise"],
    "PermutedConv2d": ["grouped"],
}
every_module = pytest.mark.parametrize("name", MODULES)
BETWEEN = {name: {} if name == "PermutedConv2d" else {"between": "ReLU"} for name in MODULES}


def make(name, *args, **kwargs):
    torch.manual_seed(0)
    return getattr(cnn, name)(*args, **MODULES[name], **kwargs)


def test_these_are_all_the_modules():
    assert (
        {name for name in cnn.__all__ if name.endswith("Conv2d")} - {"DepthwiseConv2d"}
        == set(MODULES)
        == set(NAMES)
    )


OWN_GROUPS = "SeparableConv2d", "StackedConv2d", "ShuffledConv2d", "PermutedConv2d"


@every_module
def test_the_signature_is_conv2d_s_but_for_groups(name):
    """Some kinds say themselves how they group; the rest comes in nn.Conv2d's order, with its defaults."""
    theirs = inspect.signature(nn.Conv2d).parameters
    ours = inspect.signature(getattr(cnn, name)).parameters
    expected = [n for n in theirs if n != "groups" or name not in OWN_GROUPS]
    assert list(ours)[: len(expected)] == expected
    assert all(ours[n].default == theirs[n].default for n in expected)
    assert all(p.kind is p.KEYWORD_ONLY for n, p in ours.items() if n not in expected)


@every_module
def test_plain_state_dict_names(name):
    names = [f"{layer}.weight" for layer in NAMES[name]]
    orders = ["before.order", "after.order"] if name == "PermutedConv2d" else []
    assert sorted(make(name, 4, 6, 5, bias=False).state_dict()) == sorted(names + orders)
    assert sorted(make(name, 4, 6, 5).state_dict()) == sorted([*names, f"{NAMES[name][-1]}.bias", *orders])


@every_module
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2, "padding": 2},
        {"padding": "same", "dilation": (1, 2)},
        {"padding": "valid"},
        {"stride": (1, 3), "padding": (4, 1), "padding_mode": "circular"},
    ],
)
def test_it_has_conv2d_s_shapes_and_attributes(name, options):
    ours, theirs = make(name, 4, 6, 5, **options), nn.Conv2d(4, 6, 5, **options)
    x = torch.randn(2, 4, 11, 13)
    assert ours(x).shape == theirs(x).shape
    assert ours(x[0]).shape == theirs(x[0]).shape, "an image without a batch"
    assert (ours.in_channels, ours.out_channels) == (4, 6)


@every_module
def test_device_and_dtype_reach_every_weight(name):
    for parameter in make(name, 4, 6, 5, device="meta", dtype=torch.bfloat16).parameters():
        assert (parameter.device.type, parameter.dtype) == ("meta", torch.bfloat16)


@every_module
def test_it_trains_in_both_memory_layouts(name):
    module, x = make(name, 4, 6, 5, padding=2), torch.randn(2, 4, 9, 9)
    y = module(x)
    y.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in module.parameters())
    last = module.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, y)


@every_module
def test_copies_compute_the_same(name):
    module, x = make(name, 4, 6, 5, **BETWEEN[name]), torch.randn(1, 4, 9, 9)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x), module(x))
        assert all(a is not b for a, b in zip(other.parameters(), module.parameters()))


@every_module
def test_it_can_be_exported(name):
    module = make(name, 4, 6, 5, padding=2, **BETWEEN[name]).eval()
    sample = torch.randn(2, 4, 9, 9)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(module, (sample,), dynamic_shapes={"x": {0: batch}})
    x = torch.randn(5, 4, 9, 9)
    torch.testing.assert_close(program.module()(x), module(x))


def test_repr_reads_like_the_networks_of_torch():
    text = repr(cnn.SeparableConv2d(8, 9, 3, bias=False, between="ReLU"))
    assert text.splitlines() == [
        "SeparableConv2d(",
        "  (depthwise): Conv2d(8, 8, kernel_size=(3, 3), stride=(1, 1), groups=8, bias=False)",
        "  (between): ReLU()",
        "  (pointwise): Conv2d(8, 9, kernel_size=(1, 1), stride=(1, 1), bias=False)",
        ")",
    ]
    assert "ChannelShuffle(groups=2)" in repr(cnn.ShuffledConv2d(4, 4, 3, groups=2))


@pytest.mark.parametrize("between", ["ELU", "elu", nn.ELU, nn.ELU(), lambda: nn.ELU()])
def test_between_is_a_name_a_class_a_function_or_a_module_to_copy(between):
    module = cnn.BottleneckConv2d(4, 4, 3, between=between)
    assert [name for name, _ in module.named_children()] == [
        "reduce", "between1", "spatial", "between2", "expand",
    ]  # fmt: skip
    assert isinstance(module.between1, nn.ELU)
    assert len({id(module.between1), id(module.between2), id(between)}) == 3, "copies, never shared"


def test_between_with_weights_of_its_own_is_trained_apart():
    module = cnn.StackedConv2d(4, 4, 7, between=nn.PReLU())
    assert sum(name.startswith("between") for name, _ in module.named_parameters()) == 2


def test_pointwise_first_is_the_other_order():
    module = cnn.SeparableConv2d(4, 6, 3, order="pointwise_first", multiplier=2)
    assert list(module.state_dict()) == ["pointwise.weight", "depthwise.weight", "depthwise.bias"]
    assert (module.pointwise.out_channels, module.depthwise.groups) == (12, 6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: cnn.SeparableConv2d(4, 4, 3, order="spatial_first"), "'spatial_first'"),
        (lambda: cnn.SeparableConv2d(4, 4, 3, between="ReLUU"), "did you mean ReLU"),
        (lambda: cnn.StackedConv2d(4, 4, 3), "3×3"),
        (lambda: cnn.StackedConv2d(4, 4, (5, 6)), "5×6"),
        (lambda: cnn.StackedConv2d(4, 4, 5, padding="full"), "'full'"),
    ],
)
def test_bad_arguments_are_said_in_one_sentence(make, words):
    with pytest.raises(InputError) as error:
        make()
    assert words in str(error.value)


@pytest.mark.parametrize("name", ["BottleneckConv2d", "LowRankConv2d"])
@pytest.mark.parametrize("wrong", [{"slices": 0}, {"groups": 0}])
def test_no_slices_or_no_groups_are_refused(name, wrong):
    with pytest.raises(InputError, match="1 slice and 1 group at least"):
        getattr(cnn, name)(8, 8, 3, **wrong)
