"""Convolutions that learn give what torch's give, and learn what those learn."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from learning import learnt
from torch import nn
from torch.utils.checkpoint import checkpoint

from convlite import kernels
from convlite.kernels import conv2d, convolutions, trained

pytestmark = pytest.mark.skipif(kernels.why_not() is not None, reason=str(kernels.why_not()))


@st.composite
def cases(draw):
    """Images, weights and bias of a convolution of small groups, and how it goes over them."""
    groups, each, outputs = draw(st.sampled_from([2, 3, 8, 17])), draw(st.integers(1, 4)), draw(st.integers(1, 5))
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (3, 3), (5, 5), (7, 7), (1, 3), (3, 1), (2, 4), (5, 3)]))
    pair = st.tuples(st.integers(1, 2), st.integers(1, 2))
    stride, dilation = draw(st.one_of(st.just((1, 1)), pair)), draw(st.one_of(st.just((1, 1)), pair))
    padding = tuple(draw(st.integers(0, k)) for k in kernel)
    least = [max(d * (k - 1) + 1 - 2 * p, 1) for d, k, p in zip(dilation, kernel, padding)]
    height, width = (size + draw(st.integers(0, 12)) for size in least)
    torch.manual_seed(draw(st.integers(0, 99)))
    x = torch.randn(draw(st.integers(1, 3)), groups * each, height, width)
    weight, bias = torch.randn(groups * outputs, each, *kernel), torch.randn(groups * outputs)
    return [x, weight, bias], (stride, padding, dilation, groups)


@given(case=cases(), threads=st.integers(1, 3))
@settings(deadline=None, max_examples=150)
def test_they_are_no_farther_from_the_exact_answer_than_torch(case, threads):
    tensors, how = case
    given = torch.randn_like(F.conv2d(*tensors, *how))
    found = learnt(conv2d, tensors, how, given, threads=threads)
    plain = learnt(F.conv2d, tensors, how, given)
    wanted = learnt(F.conv2d, [tensor.double() for tensor in tensors], how, given)
    sizes = learnt(F.conv2d, [tensor.double().abs() for tensor in tensors], how, given.abs())
    for ours, theirs, exact, size in zip(found, plain, wanted, sizes, strict=True):
        reach = 2**-22 * float(size.max())  # some roundings of it, where torch happens to make less
        assert ours.shape == exact.shape
        assert float((ours - exact).abs().max()) <= 2 * float((theirs - exact).abs().max()) + reach


def test_only_what_they_are_for_runs_in_them(monkeypatch):
    def ran(groups=4, outputs=1, kernel=5, dtype=torch.float32, padding=2):
        seen = []
        apply = trained._Convolution.apply
        monkeypatch.setattr(trained._Convolution, "apply", lambda *given: seen.append(given) or apply(*given))
        x = torch.randn(1, 8, 9, 9, dtype=dtype)
        weight = torch.randn(groups * outputs, 8 // groups, kernel, kernel, dtype=dtype)
        conv2d(x, weight, padding=padding, groups=groups)
        monkeypatch.undo()
        return bool(seen)

    assert ran() and ran(groups=8) and ran(groups=8, outputs=2, kernel=3)
    assert not ran(groups=8, kernel=3), "torch is as fast for depthwise 3×3"
    assert not ran(groups=1) and not ran(groups=8, dtype=torch.float64) and not ran(padding="same")
    assert conv2d(torch.randn(0, 8, 9, 9), torch.randn(8, 2, 3, 3), groups=4).shape == (0, 8, 7, 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv2d(torch.randn(1, 8, 9, 9), torch.randn(8, 2, 3, 3), groups=4).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("x", "weight", "bias", "how"),
    [
        ((1, 7, 9, 9), (8, 2, 3, 3), 8, {}),
        ((1, 8, 9, 9), (7, 2, 3, 3), 7, {}),
        ((1, 8, 9, 9), (8, 2, 3, 3), 5, {}),
        ((1, 8, 2, 9), (8, 2, 3, 3), 8, {}),
        ((1, 8, 9, 9), (8, 2, 3, 3), 8, {"stride": 0}),
        ((1, 8, 9, 9), (8, 2, 3, 3), 8, {"padding": -1}),
        ((8, 9), (8, 2, 3, 3), 8, {}),
    ],
)
def test_what_is_no_convolution_is_refused_as_by_torch(x, weight, bias, how):
    given = torch.randn(x), torch.randn(weight), torch.randn(bias)
    with pytest.raises(RuntimeError):
        F.conv2d(*given, groups=4, **how)
    with pytest.raises(RuntimeError):
        conv2d(*given, groups=4, **how)


def test_one_number_in_a_tuple_is_for_both_sides():
    x, weight = torch.randn(1, 8, 9, 9), torch.randn(8, 2, 3, 3)
    how = {"stride": (2,), "padding": (1,), "groups": 4}
    torch.testing.assert_close(conv2d(x, weight, **how), F.conv2d(x, weight, **how), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("recomputed", [True, False])
def test_a_network_learns_the_same_with_them(recomputed):
    def layers():
        torch.manual_seed(0)
        grouped = nn.Conv2d(12, 8, 3, groups=4)
        return nn.Sequential(grouped, nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2, groups=8))

    images, said, gradients = torch.randn(3, 12, 9, 9), [], []
    for ours in (True, False):
        net = layers()
        with convolutions(net if ours else nn.Identity(), said.append):
            if recomputed:
                checkpoint(net, images, use_reentrant=False).square().sum().backward()
            else:
                loss = net(images).square().sum()
        if not recomputed:
            loss.backward()  # outside, as whoever called may do
        gradients.append([parameter.grad for parameter in net.parameters()])
    assert len(said) == 1 and "small groups" in said[0]
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_without_a_compiler_torch_does_it_and_that_is_said(monkeypatch):
    monkeypatch.setattr(trained, "why_not", lambda: "there is no C++ compiler")
    said = []
    net = nn.Conv2d(8, 8, 3, groups=4)
    with convolutions(net, said.append):
        assert net(torch.randn(1, 8, 5, 5)).shape == (1, 8, 3, 3)
    assert "torch" in said[-1] and "no C++ compiler" in said[-1]
