"""What the kinds compute, against one dense convolution with the kernel that they amount to (float64)."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shapes import Options, convs, every_kind, linear, orders, ranks, small
from torch import nn

from convlite.kinds import Asymmetric, Depthwise, Grouped, Normal, Separable, Shuffled, Stacked, conv
from convlite.nn import ChannelShuffle

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")


def images(dense, count=2):
    torch.manual_seed(0)
    return torch.randn(count, dense.c, dense.h, dense.w, dtype=torch.float64)


def build(kind, dense):
    torch.manual_seed(1)
    return kind.build(dense, dtype=torch.float64)


def kernel_of(module, dense):
    """The dense kernel (M, C, K, K) that a linear chain without bias amounts to: its answer to impulses."""
    kh, kw = (dense.extent(0) + 1, dense.extent(1) + 1)
    x = torch.zeros(dense.c, dense.c, 2 * kh - 1, 2 * kw - 1, dtype=torch.float64)
    x[range(dense.c), range(dense.c), kh - 1, kw - 1] = 1  # one impulse for each input channel
    y = module(x)  # (C, M, kh, kw): the kernel turned round
    return y.flip(2, 3).transpose(0, 1)[:, :, :: dense.dilation[0], :: dense.dilation[1]]


@settings(max_examples=30, deadline=None)
@given(convs(modes=["zeros"]), linear)
def test_without_anything_between_each_kind_is_one_dense_convolution(dense, choice):
    dense = dataclasses.replace(dense, bias=False)
    bare = dataclasses.replace(dense, stride=(1, 1), padding=(0, 0), h=0, w=0)
    for kind in every_kind(dense, choice):
        if kind.why_not(bare) is not None or isinstance(kind, Stacked):
            continue  # a 1×1 can't be seen without its padding; padding inside a stack is not padding outside
        module = build(kind, dense)
        chain = build(kind, bare)
        chain.load_state_dict(module.state_dict())
        same = build(Normal(), dense)
        same.weight.data = kernel_of(chain, bare)
        torch.testing.assert_close(module(images(dense)), same(images(dense)))


def test_stacked_is_one_larger_kernel_where_nothing_is_padded():
    dense = conv(c=3, m=4, k=(7, 5), padding=0, stride=2, h=15)
    module = build(Stacked(), dense)
    chain = build(Stacked(), dataclasses.replace(dense, stride=(1, 1)))
    chain.load_state_dict(module.state_dict())
    same = build(Normal(), dense)
    same.weight.data = kernel_of(chain, dense)
    assert same.weight.shape == (4, 3, 7, 5)
    torch.testing.assert_close(module(images(dense)), same(images(dense)))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), small, small, st.booleans())
def test_grouped_is_a_block_diagonal_dense_convolution(g, a, b, bias):
    dense = conv(c=g * a, m=g * b, h=6, bias=bias)
    grouped, normal = build(Grouped(g), dense), build(Normal(), dense)
    weight = torch.zeros_like(normal.weight)
    for i in range(g):
        weight[i * b : (i + 1) * b, i * a : (i + 1) * a] = grouped.weight[i * b : (i + 1) * b]
    state = {"weight": weight} | ({"bias": grouped.bias} if bias else {})
    normal.load_state_dict(state)
    torch.testing.assert_close(grouped(images(dense)), normal(images(dense)))


def test_depthwise_mixes_no_channels():
    dense = conv(c=4, m=8, h=6)
    module, x = build(Depthwise(2), dense), images(dense)
    changed = x.clone()
    changed[:, 1] += 1
    differs = (module(x) != module(changed)).any(dim=(0, 2, 3))
    assert differs.tolist() == [False, True, False, False, False, True, False, False]  # term t of c is t·C + c


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4))
def test_a_shuffle_interleaves_and_undoes_itself(g, per):
    x = torch.arange(g * per).view(1, -1, 1, 1)
    y = ChannelShuffle(g)(x)
    assert y.flatten().tolist() == [i * per + j for j in range(per) for i in range(g)]
    assert torch.equal(ChannelShuffle(per)(y), x)


def test_after_a_shuffle_a_second_grouped_layer_sees_every_group():
    dense = conv(c=8, m=8, k=1, h=1)
    x = images(dense).requires_grad_()
    y = build(Grouped(2), dense)(build(Shuffled(2), dense)(x))
    (gradient,) = torch.autograd.grad(y[:, 0].sum(), x)
    assert (gradient != 0).all()
    y = build(Grouped(2), dense)(build(Grouped(2), dense)(x))
    (gradient,) = torch.autograd.grad(y[:, 0].sum(), x)
    assert (gradient[:, 4:] == 0).all()


def test_shuffled_pads_a_1x1_as_it_is_told():
    dense = conv(c=4, m=4, k=1, padding=1, padding_mode="replicate", h=3)
    shuffled, grouped = build(Shuffled(1), dense), build(Grouped(1), dense)
    grouped.load_state_dict({"weight": shuffled.pointwise.weight})
    assert torch.equal(shuffled(images(dense)), grouped(images(dense)))


@settings(max_examples=30, deadline=None)
@given(small, orders, ranks, st.sampled_from(["ReLU", nn.ReLU, nn.ReLU(inplace=True)]))
def test_what_stands_between_stands_between(multiplier, order, rank, between):
    dense = conv(c=3, m=4, h=6, bias=True)
    for kind in (Separable(order, between, multiplier), Asymmetric(rank, between)):
        module, x = build(kind, dense), images(dense)
        first, second = (m for m in module.children() if isinstance(m, nn.Conv2d))
        torch.testing.assert_close(module(x), second(first(x).relu()))
        assert all(not isinstance(p, nn.Module) or p is not between for p in module.children())


def test_every_kind_is_linear_with_a_bias_on_its_last_convolution_alone():
    dense = conv(c=4, m=4, k=5, h=9, bias=True)
    for kind in every_kind(dense, Options(2, 3, "depthwise_first", None)):
        biased = [m.bias is not None for m in build(kind, dense).modules() if isinstance(m, nn.Conv2d)]
        assert biased == [False] * (len(biased) - 1) + [True]
