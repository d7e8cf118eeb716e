"""Decompositions: exact at full rank, never worse with more, and as wrong as they say."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convlite import kinds
from convlite.errors import InputError
from convlite.lighten import decompose
from convlite.lighten.patches import read_patches, sample_positions

QUICK = settings(max_examples=25, deadline=None)


def convolution(seed: int, c: int, m: int, k: tuple[int, int], **sizes) -> nn.Conv2d:
    torch.manual_seed(seed)
    return nn.Conv2d(c, m, k, **sizes).double().requires_grad_(False)


def full_rank(conv: nn.Conv2d) -> list[kinds.Kind]:
    c, m, (kh, kw) = conv.in_channels, conv.out_channels, conv.kernel_size
    return [
        kinds.Separable(multiplier=kh * kw),
        kinds.Separable("pointwise_first", multiplier=kh * kw),
        kinds.Asymmetric(min(c * kh, m * kw)),
        kinds.Asymmetric(c * kh + m * kw),  # more than full: idle channels
        kinds.LowRank(m),
        *(kinds.LowRank(s * min(m, c * kh * kw // s), slices=s) for s in range(2, c + 1) if c % s == 0),
        kinds.Bottleneck(c, m),
    ]


@QUICK
@given(
    st.integers(0, 99),
    st.integers(1, 7),
    st.integers(1, 9),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.booleans(),
    st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
)
def test_full_rank_reproduces_the_dense_convolution(seed, c, m, k, stride, padding, dilation, bias, mode):
    conv = convolution(
        seed, c, m, k, stride=stride, padding=padding, dilation=dilation, bias=bias, padding_mode=mode
    )
    x = torch.randn(2, c, 11, 10, dtype=torch.float64)
    want = conv(x)
    for kind in full_rank(conv):
        module, error = decompose(conv, kind)
        assert error < 1e-12
        torch.testing.assert_close(module(x), want, rtol=1e-6, atol=1e-6)


@QUICK
@given(st.integers(0, 99), st.integers(2, 6), st.integers(2, 6), st.booleans())
def test_error_said_is_error_made(seed, c, m, known):
    """With the inputs' moments the error is that of the outputs; without, that of the weights."""
    conv = convolution(seed, c, m, (3, 3), padding=1, bias=False)
    x = torch.randn(40, c, 6, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    value = kinds.conv_of(conv, 6)
    seen = read_patches(x, value, sample_positions(value, 40, torch.Generator()))
    moments = seen.T @ seen / len(seen) if known else None
    sliced = kinds.LowRank(2 * c, slices=c)
    for kind in (
        kinds.Separable(multiplier=2),
        kinds.Asymmetric(2),
        kinds.LowRank(1),
        sliced,
        kinds.Bottleneck(1, 2),
    ):
        module, error = decompose(conv, kind, moments)
        module.requires_grad_(False)
        if known:
            made = (module(x) - conv(x)).square().sum() / conv(x).square().sum()
        else:  # an impulse in each channel shows the kernel
            impulse = torch.zeros(c, c, 5, 5, dtype=torch.float64)
            impulse[range(c), range(c), 2, 2] = 1
            made = (module(impulse) - conv(impulse)).square().sum() / conv(impulse).square().sum()
        assert error == pytest.approx(float(made), rel=1e-6, abs=1e-9)


@QUICK
@given(st.integers(0, 99))
def test_knowing_the_inputs_never_hurts(seed):
    """On the inputs that the moments were taken of, the fit that used them makes the smaller error."""
    conv = convolution(seed, 6, 8, (3, 3), padding=1, bias=False)
    x = torch.randn(40, 6, 6, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    x = x * torch.logspace(0, -2, 6, dtype=torch.float64).view(1, 6, 1, 1)
    value = kinds.conv_of(conv, 6)
    seen = read_patches(x, value, sample_positions(value, 40, torch.Generator()))
    for kind in (kinds.Separable(), kinds.Asymmetric(3), kinds.LowRank(2)):
        blind, sighted = (decompose(conv, kind, known)[0] for known in (None, seen.T @ seen / len(seen)))
        blind.requires_grad_(False), sighted.requires_grad_(False)
        errors = [float((module(x) - conv(x)).square().sum()) for module in (blind, sighted)]
        assert errors[1] <= errors[0] * (1 + 1e-6)


@QUICK
@given(st.integers(0, 99), st.integers(2, 5), st.integers(2, 5))
def test_more_rank_never_hurts(seed, c, m):
    conv = convolution(seed, c, m, (3, 3))
    families = [
        [kinds.Separable(multiplier=r) for r in range(1, 10)],
        [kinds.LowRank(r) for r in range(1, m + 1)],
        [kinds.LowRank(c * r, slices=c) for r in range(1, 10)],
        [kinds.Asymmetric(r) for r in range(1, 3 * min(c, m) + 1)],
    ]
    for family in families:
        errors = [decompose(conv, kind)[1] for kind in family]
        assert all(after <= before + 1e-9 for before, after in pairwise(errors))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@QUICK
@given(
    st.integers(1, 4),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.sampled_from([(0, 0), (1, 2), "same"]),
    st.sampled_from(["zeros", "reflect"]),
)
def test_patches_are_what_the_convolution_reads(c, k, stride, padding, mode):
    stride = (1, 1) if padding == "same" else stride
    conv = nn.Conv2d(c, 4, k, stride, padding, bias=False, padding_mode=mode).double()
    x = torch.randn(3, c, 9, 8, dtype=torch.float64)
    value = kinds.conv_of(conv, 9, 8)
    positions = sample_positions(value, 3, torch.Generator())
    read = read_patches(x, value, positions) @ conv.weight.flatten(1).T  # (N·P, M)
    torch.testing.assert_close(read.view(3, -1, 4).transpose(1, 2), conv(x).flatten(2))
    if padding == (0, 0):
        assert torch.equal(F.unfold(x, k, stride=stride)[0, :, 0], read_patches(x, value, positions)[0])


def test_what_cannot_hold_a_dense_kernel_is_refused():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    refused = [kinds.Grouped(2), kinds.Pointwise(), kinds.Separable(between="relu"), kinds.Separable(multiplier=10)]
    for kind in refused:
        with pytest.raises(InputError):
            decompose(conv, kind)
    with pytest.raises(InputError, match="grouped by 2"):
        decompose(nn.Conv2d(4, 4, 3, groups=2), kinds.Separable())
    with pytest.raises(InputError, match=r"\(36, 36\)"):
        decompose(conv, kinds.Separable(), torch.eye(9))
    conv.weight.data[0] = float("nan")
    with pytest.raises(InputError, match="not finite"):
        decompose(conv, kinds.Separable())


def test_dead_inputs_and_zero_weights_are_no_trouble():
    conv = nn.Conv2d(4, 6, 3, padding=1, bias=False)
    moments = torch.zeros(36, 36, dtype=torch.float64)
    moments[:9, :9] = torch.eye(9)  # three channels are always 0
    for kind in (
        kinds.Separable(),
        kinds.Separable("pointwise_first"),
        kinds.Asymmetric(2),
        kinds.Bottleneck(2, 2),
    ):
        module, error = decompose(conv, kind, moments)
        assert 0 <= error <= 1 + 1e-9
        assert all(p.isfinite().all() for p in module.parameters())
    nn.init.zeros_(conv.weight)
    module, error = decompose(conv, kinds.Separable())
    assert error == 0
    assert not module(torch.randn(1, 4, 5, 5)).any()
