"""Law 1: the closed-form cost of a kind is the cost counted from the tensors its module really touches."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes import Options, convs, every_kind, options, touched
from torch import nn

from convlite import Cost
from convlite.errors import InputError
from convlite.kinds import (
    KINDS,
    Asymmetric,
    Bottleneck,
    Conv,
    Depthwise,
    Grouped,
    LowRank,
    Normal,
    Pointwise,
    Separable,
    Shuffled,
    Stacked,
    conv,
    conv_of,
)

# Torch says of each even kernel with "same" that it copies its input.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")


def check(dense, kind, device):
    module = kind.build(dense, device=device)
    seen, output = touched(module, dense, device)
    cost = kind.cost(dense)
    first = seen[0][1]
    assert cost == Cost(
        params=sum(p.numel() for p in module.parameters()),
        macs=sum(macs for *_, macs, _ in seen),
        weight_bytes=sum(p.nbytes for p in module.parameters()),
        input_bytes=sum(4 * layer_input.numel() for _, layer_input, *_ in seen),
        output_bytes=sum(written for *_, written in seen),
    )
    assert first == (1, dense.c, dense.h, dense.w)
    plain = nn.Conv2d(
        dense.c, dense.m, dense.k, dense.stride, dense.padding, dense.dilation,
        padding_mode=dense.padding_mode, device="meta",
    )  # fmt: skip
    assert output.shape == plain(torch.empty(first, device="meta")).shape == (1, dense.m, *dense.out_size)
    built = [conv_of(layer, *layer_input[2:]) for layer, layer_input, *_ in seen]
    assert list(kind.layers(dense)) == built


@settings(max_examples=100, deadline=None)
@given(convs(), options)
def test_cost_is_what_the_module_touches(dense, choice):
    for kind in every_kind(dense, choice):  # some nine for each shape
        check(dense, kind, "meta")


@settings(max_examples=150, deadline=None)
@given(convs(), options)
def test_cost_is_what_real_tensors_touch(dense, choice):
    torch.manual_seed(0)
    for kind in every_kind(dense, choice):
        check(dense, kind, "cpu")


@settings(max_examples=60, deadline=None)
@given(convs(), options, st.integers(2, 4))
def test_groups_cost_what_their_modules_touch(dense, choice, groups):
    grouped = replace(dense, c=groups * dense.c, m=groups * dense.m, groups=groups)
    rank = None if choice.rank is None else groups * choice.rank
    found = every_kind(grouped, replace(choice, rank=rank, multiplier=groups * choice.multiplier))
    assert {type(kind) for kind in found} >= {Asymmetric, Bottleneck, LowRank}
    for kind in found:
        check(grouped, kind, "meta")


@settings(max_examples=50, deadline=None)
@given(convs(), options, st.sampled_from([1, 2, 8]))
def test_other_number_sizes_scale_the_bytes_alone(dense, choice, itemsize):
    for kind in every_kind(dense, choice):
        cost, single = kind.cost(dense, itemsize=itemsize), kind.cost(dense)
        assert (cost.params, cost.macs) == (single.params, single.macs)
        assert 4 * cost.bytes == itemsize * single.bytes


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 8), st.integers(1, 4), st.sampled_from([1, 3, 5, 7, 9]), st.integers(5, 12), options)
def test_the_formula_says_the_parameters_and_the_multiply_accumulates(a, b, k, size, choice):
    dense = conv(c=a * 12, m=b * 12, k=k, h=size)
    for kind in every_kind(dense, choice):
        if isinstance(kind, Shuffled) and k == 1:
            continue  # without neighbours to look at it has no depthwise term
        p, q = kind.ranks(dense) if isinstance(kind, Bottleneck) else (0, 0)
        letters = {
            "C": dense.c, "M": dense.m, "K": k, "P": p, "Q": q,
            "g": getattr(kind, "groups", 0), "r": getattr(kind, "multiplier", 0),
            "R": kind.inner(dense) if isinstance(kind, LowRank) else getattr(kind, "rank", None) or dense.m,
            "s": getattr(kind, "slices", 0),
        }  # fmt: skip
        code = kind.formula.replace("²", "**2").replace("·", "*")
        value = eval(code, {}, letters)
        assert kind.cost(dense).params == value
        assert kind.cost(dense).macs == value * size * size


def test_these_are_all_the_kinds():
    dense = conv(c=4, m=4, k=5, h=9)
    assert {type(kind) for kind in every_kind(dense, Options(2, 3, "pointwise_first", "ReLU"))} == set(
        KINDS.values()
    )


def test_the_study_note_s_table():
    sizes = {"c": 728, "m": 728, "k": 3, "h": 19, "w": 19}
    normal, separable = Normal().cost(**sizes), Separable().cost(**sizes)
    assert (normal.params, normal.macs) == (4_769_856, 1_721_918_016)
    assert (separable.params, separable.macs) == (536_536, 193_689_496)
    assert separable.macs / normal.macs == pytest.approx(1 / 728 + 1 / 9)
    assert 4 * Grouped(4).cost(**sizes).macs == normal.macs
    assert 728 * Depthwise().cost(**sizes).macs == normal.macs
    assert 9 * Pointwise().cost(**sizes).macs == normal.macs


@pytest.mark.parametrize(
    ("kind", "sizes", "words"),
    [
        (Grouped(3), {"c": 8, "m": 9}, "3 groups don't divide 8 channels in and 9 out"),
        (Shuffled(3), {"c": 9, "m": 8}, "3 groups don't divide 9 channels in and 8 out"),
        (Depthwise(2), {"c": 4, "m": 4}, "gives 8, not 4"),
        (Pointwise(), {"c": 4, "m": 4, "padding": 0}, "nothing to make up for"),
        (Stacked(), {"c": 4, "m": 4, "k": 3}, "odd kernel of 5 or more, not 3×3"),
        (Stacked(), {"c": 4, "m": 4, "k": (5, 4)}, "odd kernel of 5 or more, not 5×4"),
        (Separable(), {"c": 4, "m": 4, "groups": 2}, "grouped by 2 already"),
    ],
)
def test_a_kind_says_why_it_can_t_stand_somewhere(kind, sizes, words):
    assert words in kind.why_not(**sizes, h=9)
    for question in (kind.layers, kind.cost, kind.build):
        with pytest.raises(InputError, match="can't stand here") as error:
            question(**sizes, h=9)
        assert words in str(error.value)


@pytest.mark.parametrize(
    "sizes",
    [
        {"c": 0, "m": 4},
        {"c": 4, "m": -1},
        {"c": 4, "m": 4, "k": 0},
        {"c": 4, "m": 4, "k": (3, 3, 3)},
        {"c": 4, "m": 4, "stride": 0},
        {"c": 4, "m": 4, "dilation": (1, 0)},
        {"c": 4, "m": 4, "padding": -1},
        {"c": 4, "m": 4, "padding": "full"},
        {"c": 4, "m": 4, "padding_mode": "mirror"},
        {"c": 4, "m": 6, "groups": 4},
        {"c": 4, "m": 4, "k": 2, "stride": 2},
        {"c": 4, "m": 4, "h": -1},
    ],
)
def test_no_convolution_has_such_sizes(sizes):
    with pytest.raises(InputError, match=r"\.$"):
        conv(**sizes)


def test_a_cost_needs_an_input_that_the_kernel_fits_in():
    with pytest.raises(InputError, match="give h= and w="):
        Normal().cost(c=4, m=4)
    with pytest.raises(InputError, match="smaller than the kernel"):
        Normal().cost(c=4, m=4, k=5, padding="valid", h=4)
    assert [layer.params for layer in Separable().layers(c=4, m=8)] == [36, 32]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_same_padding_is_one_value_however_it_is_written(kind):
    options = {"grouped": (2,), "shuffled": (2,), "permuted": (2,)}.get(kind, ())
    words = Conv(c=4, m=4, k=(5, 5), padding="same", dilation=(2, 1), h=9, w=9)
    numbers = conv(c=4, m=4, k=5, padding=(4, 2), dilation=(2, 1), h=9)
    assert words == numbers
    assert KINDS[kind](*options).layers(words) == KINDS[kind](*options).layers(numbers)


def test_a_given_convolution_and_keywords_over_it():
    dense = conv(c=4, m=6, h=8)
    assert Asymmetric().cost(dense, m=8) == Asymmetric().cost(c=4, m=8, h=8)
