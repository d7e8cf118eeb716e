"""Decompositions: exact at full rank, never worse with more, and as wrong as they say."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convlite import kinds
from convlite.errors import InputError
from convlite.lighten import canonical, decompose
from convlite.lighten.fit import fit, form_of
from convlite.lighten.patches import read_patches, sample_positions
from convlite.lighten.target import own_target

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
        *(kinds.Bottleneck(r, r, slices=r) for r in (m * min(c, kh * kw), m * c * kh * kw + 1) if r > 1),
        kinds.Permuted(1),
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
        kinds.Bottleneck(3, 3, slices=3),
        kinds.Permuted(math.gcd(c, m)),
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
@given(
    st.integers(0, 99),
    st.integers(1, 4),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from([(1, 1), (3, 3), (1, 5)]),
    st.booleans(),
)
def test_groups_that_are_there_are_found_whatever_the_order_of_the_channels(seed, groups, c, m, k, bias):
    conv = convolution(seed, c * groups, m * groups, k, stride=2, bias=bias)
    among = torch.block_diag(*[torch.ones(m, c, dtype=torch.float64)] * groups)
    conv.weight *= among[torch.randperm(m * groups)][:, torch.randperm(c * groups), None, None]
    module, error = decompose(conv, kinds.Permuted(groups))
    assert error < 1e-9
    x = torch.randn(2, c * groups, 7, 9, dtype=torch.float64)
    torch.testing.assert_close(module(x), conv(x), rtol=1e-6, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 99), st.sampled_from([2, 3, 4]), st.integers(2, 5), st.integers(2, 5))
def test_channels_are_grouped_better_than_at_random(seed, groups, c, m):
    """With each group's least squares solved for, whatever the channels in it."""
    conv = convolution(seed, c * groups, m * groups, (3, 3), bias=False)
    _, error = decompose(conv, kinds.Permuted(groups))
    power = conv.weight.square().sum((2, 3))
    whole = float(power.sum())
    at_random = [
        sum(float(power[i::groups, j].sum()) for i, j in enumerate(torch.randperm(c * groups).chunk(groups)))
        for _ in range(20)
    ]
    assert error < 1 - sum(at_random) / len(at_random) / whole


@QUICK
@given(
    st.integers(0, 99),
    st.integers(2, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.booleans(),
)
def test_each_group_is_decomposed_by_itself(seed, groups, c, m, stride, known):
    """At full rank nothing is lost; below, as much as the groups alone lose together."""
    sizes = {"stride": stride, "padding": 1, "padding_mode": "reflect"}
    conv = convolution(seed, c * groups, m * groups, (3, 3), groups=groups, **sizes)
    x = torch.randn(30, c * groups, 7, 6, dtype=torch.float64).cumsum(2)
    full = 3 * min(c, m)
    whole = [kinds.Asymmetric(groups * full), kinds.LowRank(groups * m), kinds.Bottleneck(groups * c, groups * m)]
    whole.append(kinds.Bottleneck(groups * 9 * m, groups * 9 * m, slices=9 * m))
    for kind in whole:
        module, error = decompose(conv, kind)
        assert error < 1e-12
        torch.testing.assert_close(module(x), conv(x), rtol=1e-6, atol=1e-6)
    one = kinds.conv_of(conv, 7, 6).one_group
    places = sample_positions(one, 30, torch.Generator())
    seen = [read_patches(part, one, places) for part in x.chunk(groups, 1)]
    moments = torch.stack([each.T @ each for each in seen]) if known else None
    alone = [nn.Conv2d(c, m, 3, bias=False, **sizes).double().requires_grad_(False) for _ in range(groups)]
    pairs = [(kinds.Asymmetric(groups), kinds.Asymmetric(1)), (kinds.LowRank(groups), kinds.LowRank(1))]
    for together, apart in pairs:
        module, _ = decompose(conv, together, moments)
        given = module(x) if conv.bias is None else module(x) - conv.bias[:, None, None]
        for i, (part, layer) in enumerate(zip(x.chunk(groups, 1), alone)):
            layer.weight.copy_(conv.weight.chunk(groups)[i])
            own, _ = decompose(layer, apart, None if moments is None else moments[i])
            torch.testing.assert_close(given.chunk(groups, 1)[i], own(part), rtol=1e-6, atol=1e-6)


@QUICK
@given(st.integers(0, 99), st.integers(2, 8), st.integers(2, 8), st.booleans())
def test_a_linear_layer_is_a_convolution_of_its_rows(seed, c, m, known):
    torch.manual_seed(seed)
    layer = nn.Linear(c, m).double().requires_grad_(False)
    x = torch.randn(50, 3, c, dtype=torch.float64) @ torch.randn(c, c, dtype=torch.float64)
    moments = x.flatten(0, 1).T @ x.flatten(0, 1) if known else None
    module, error = decompose(layer, kinds.LowRank(m), moments)
    assert error < 1e-12
    torch.testing.assert_close(module(x), layer(x))
    module, error = decompose(layer, kinds.LowRank(1), moments)
    assert [type(each) for each in module] == [nn.Linear, nn.Linear]
    if known:
        made = (module.requires_grad_(False)(x) - layer(x)).square().sum() / (layer(x) - layer.bias).square().sum()
        assert error == pytest.approx(float(made), rel=1e-6, abs=1e-9)
    with pytest.raises(InputError, match="can't stand for a linear layer"):
        decompose(layer, kinds.Asymmetric(1))


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
    refused.append(kinds.Bottleneck(4, 4, slices=2))
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


@QUICK
@given(st.integers(0, 99), st.integers(2, 6), st.integers(2, 6), st.integers(2, 12))
def test_terms_of_a_canonical_decomposition_do_not_cancel_each_other(seed, c, m, rank):
    """As they may, with ever larger terms, where a tensor has no best one of that rank."""
    conv = convolution(seed, c, m, (3, 3), padding=1, bias=False)
    x = torch.randn(40, c, 6, 6, dtype=torch.float64).cumsum(2)
    value = kinds.conv_of(conv, 6)
    seen = read_patches(x, value, sample_positions(value, 40, torch.Generator()))
    module, _ = decompose(conv, kinds.Bottleneck(rank, rank, slices=rank), seen.T @ seen / len(seen))
    reduce, spatial, expand = (layer.weight.flatten(1) for layer in module.children())
    terms = reduce.norm(dim=1) * spatial.norm(dim=1) * expand.norm(dim=0)  # (rank,)
    assert terms.square().sum() < 30 * conv.weight.square().sum()


@QUICK
@given(st.integers(0, 99), st.integers(2, 5), st.integers(3, 6), st.integers(2, 5))
def test_no_terms_near_those_found_are_much_better(seed, c, m, rank):
    """Whatever the change of two factors, with the third solved for."""
    conv = convolution(seed, c, m, (3, 3), bias=False)
    root = torch.randn(9 * c, 9 * c, dtype=torch.float64) / (9 * c) ** 0.5
    second = root @ root.T + 0.1 * torch.eye(9 * c, dtype=torch.float64)
    module, error = decompose(conv, kinds.Bottleneck(rank, rank, slices=rank), second)
    first, spatial, _ = (layer.weight.detach().flatten(1) for layer in module.children())
    half = torch.linalg.cholesky(second)
    wanted = conv.weight.flatten(1) @ half

    def lost(inputs, pixels):
        terms = torch.einsum("rc,rk->rck", inputs, pixels).flatten(1) @ half
        found = torch.linalg.lstsq(terms.T, wanted.T).solution.T @ terms
        return float((wanted - found).square().sum() / wanted.square().sum())

    assert lost(first, spatial) == pytest.approx(error, rel=1e-6, abs=1e-9)
    for size in (1e-3, 1e-2, 1e-1):
        near = [x * (1 + size * torch.randn_like(x)) for x in (first, spatial)]
        assert lost(*near) > 0.99 * error - 1e-9


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_tries_in_single_precision_come_as_near(monkeypatch, scale):
    conv = convolution(0, 24, 32, (3, 3), bias=False)
    root = torch.randn(216, 216, dtype=torch.float64) @ torch.diag(torch.logspace(0, -2, 216, dtype=torch.float64))
    errors = []
    for most in (math.inf, 0):
        monkeypatch.setattr(canonical, "DOUBLE", most)
        module, error = decompose(conv, kinds.Bottleneck(40, 40, slices=40), scale**2 * root @ root.T)
        assert all(weight.dtype == torch.float64 for weight in module.parameters())
        errors.append(error)
    double, single = errors
    assert single != double and single == pytest.approx(double, rel=0.02)


@pytest.mark.parametrize("tries", [0, 6])
def test_ranks_with_few_tries_begin_where_those_before_ended(monkeypatch, tries):
    conv = convolution(0, 12, 16, (3, 3), padding=1, bias=False)
    value, ranks = kinds.conv_of(conv, 8), (6, 12, 18, 24, 36, 48)
    root = torch.randn(108, 108, dtype=torch.float64)
    target = own_target(conv.weight, 1, (root @ root.T / 108)[None])

    def lost(form, rank):
        factors = form.fit(kinds.Bottleneck(rank, rank, slices=rank))
        a, p, b = (weight.flatten(2)[0] for weight in factors.weights)
        terms = torch.einsum("rc,rk->rck", a, p).flatten(1)
        torch.testing.assert_close(factors.kernel[0], b @ terms)
        left = (target.cross[0] - factors.kernel[0] @ target.second[0]) @ terms.T  # 0 where the last factor is best
        assert left.norm() < 1e-6 * (target.cross[0] @ terms.T).norm()
        return float(target.error(factors.kernel).sum() / target.energy.sum())

    def form():
        return form_of(kinds.Bottleneck(6, 6, slices=6), value, target, ranks[-1])

    monkeypatch.setattr(canonical, "TRIES", (tries, 400))
    cold = [lost(form(), rank) for rank in ranks]
    monkeypatch.setattr(canonical, "TRIES", (tries + 1, 400))
    monkeypatch.setattr(canonical, "WORK", (tries * ranks[-1] * 108**2, 2**38))
    shared = form()
    warm = [lost(shared, rank) for rank in ranks]
    assert all(b < a for a, b in pairwise(warm))
    assert warm[-1] == pytest.approx(cold[-1], rel=1e-9) if not tries else sum(warm) < 0.98 * sum(cold)


@QUICK
@given(
    st.integers(0, 99), st.integers(1, 2), st.integers(2, 5), st.integers(3, 6), st.integers(2, 5), st.booleans()
)
def test_a_fit_that_has_begun_goes_on_from_there(seed, groups, c, m, rank, dead):
    conv = convolution(seed, groups * c, groups * m, (3, 3), bias=False, groups=groups)
    kind, value = kinds.Bottleneck(groups * rank, groups * rank, slices=rank), kinds.conv_of(conv, 5)
    begun = [torch.randn(groups * rank, n) for n in (c, 9)] + [torch.randn(groups * m, rank)]
    target = own_target(conv.weight, groups)
    if dead:  # a term that is nowhere has no direction to go on in
        begun[1][::rank] = 0
        found = fit(kind, value, target, begun)
        assert torch.equal(found.kernel, fit(kind, value, target).kernel)
        return
    kernel = fit(kind, value, target, begun).kernel  # (G, m, D)
    inputs, pixels = (each.double().unflatten(0, (groups, rank)) for each in begun[:2])
    terms = torch.einsum("grc,grk->grck", inputs, pixels).flatten(2)
    first = torch.linalg.lstsq(terms.mT, target.weight.mT).solution.mT @ terms
    assert target.error(kernel).sum() <= 1.01 * target.error(first).sum() + 1e-9


def test_terms_of_groups_found_together_lose_no_more_than_apart(monkeypatch):
    """In few tries, over several layers: a single one may end near other terms."""
    monkeypatch.setattr(canonical, "TRIES", (30, 30))
    groups, c, m, rank = 6, 5, 7, 6
    together, apart = 0.0, 0.0
    for seed in range(6):
        conv = convolution(seed, groups * c, groups * m, (3, 3), bias=False, groups=groups)
        conv.weight *= torch.logspace(0, -2, groups, dtype=torch.float64).repeat_interleave(m)[:, None, None, None]
        root = torch.randn(groups, 9 * c, 9 * c, dtype=torch.float64) / (9 * c) ** 0.5
        target = own_target(conv.weight, groups, root @ root.mT)
        kind, one = kinds.Bottleneck(rank, rank, slices=rank), kinds.conv_of(conv, 5).one_group
        whole = kinds.Bottleneck(groups * rank, groups * rank, slices=rank)
        together += float(target.error(fit(whole, kinds.conv_of(conv, 5), target).kernel).sum())
        for each, second in zip(conv.weight.chunk(groups), root @ root.mT):
            alone = own_target(each, 1, second[None])
            apart += float(alone.error(fit(kind, one, alone).kernel).sum())
    assert together < apart


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_callers_mode_changes_nothing(mode):
    conv, kind = convolution(0, 4, 6, (3, 3)), kinds.Bottleneck(3, 3, slices=3)
    _, error = decompose(conv, kind)
    with mode():
        _, again = decompose(conv, kind)
    assert again == error


def test_dead_inputs_and_zero_weights_are_no_trouble():
    conv = nn.Conv2d(4, 6, 3, padding=1, bias=False)
    moments = torch.zeros(36, 36, dtype=torch.float64)
    moments[:9, :9] = torch.eye(9)  # three channels are always 0
    for kind in (
        kinds.Separable(),
        kinds.Separable("pointwise_first"),
        kinds.Asymmetric(2),
        kinds.Bottleneck(2, 2),
        kinds.Bottleneck(4, 4, slices=4),
    ):
        module, error = decompose(conv, kind, moments)
        assert 0 <= error <= 1 + 1e-9
        assert all(p.isfinite().all() for p in module.parameters())
    nn.init.zeros_(conv.weight)
    module, error = decompose(conv, kinds.Separable())
    assert error == 0
    assert not module(torch.randn(1, 4, 5, 5)).any()
