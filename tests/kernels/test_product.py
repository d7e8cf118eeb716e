"""Convolutions of small maps, as products of matrices, give what torch's give and learn the same."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from learning import learnt
from torch import nn

from convlite.kernels import conv2d, convolutions, product, trained


@st.composite
def cases(draw):
    """Images, weights and bias of a dense convolution with a small map, and how it goes over them."""
    kernel = draw(st.sampled_from([(3, 3), (3, 3), (1, 3), (3, 1), (2, 4), (5, 3)]))
    pair = st.tuples(st.integers(1, 2), st.integers(1, 2))
    stride, dilation = draw(st.one_of(st.just((1, 1)), pair)), draw(st.one_of(st.just((1, 1)), pair))
    wide = stride == (1, 1)  # a stride over pixels that see nothing but padding is at times a crash in torch
    padding = tuple(draw(st.integers(0, k if wide else k - 1)) for k in kernel)
    out = draw(st.sampled_from([(1, 1), (2, 2), (1, 4), (2, 1)]))
    size = [max(s * (o - 1) + d * (k - 1) + 1 - 2 * p, 1)
            for o, s, d, k, p in zip(out, stride, dilation, kernel, padding)]  # fmt: skip
    torch.manual_seed(draw(st.integers(0, 99)))
    x = torch.randn(draw(st.integers(1, 3)), draw(st.integers(1, 9)), *size)
    weight, bias = torch.randn(draw(st.integers(1, 9)), x.shape[1], *kernel), torch.randn(9)
    layout = draw(st.sampled_from([torch.contiguous_format, torch.channels_last]))
    return [x.contiguous(memory_format=layout), weight, bias[: len(weight)]], (stride, padding, dilation)


@given(case=cases(), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
@settings(deadline=None, max_examples=150)
def test_they_learn_what_float64_does(case, dtype):
    tensors, how = case
    tensors = [tensor.to(dtype) for tensor in tensors]
    exact = [tensor.double() for tensor in tensors]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(product, "WEIGHTS", 1)
        patch.setattr(product, "_most", lambda dtype: 10**6)
        given = torch.randn_like(F.conv2d(*tensors, *how))
        found = learnt(conv2d, tensors, how, given)
    sizes = learnt(F.conv2d, [tensor.abs() for tensor in exact], how, given.double().abs())
    for ours, wanted, size in zip(found, learnt(F.conv2d, exact, how, given.double()), sizes, strict=True):
        assert ours.shape == wanted.shape and ours.dtype == dtype
        assert float((ours.double() - wanted).abs().max()) <= 4 * torch.finfo(dtype).eps * float(size.max())


def test_only_what_they_are_for_are_products(monkeypatch):
    def is_product(c=256, size=2, dtype=torch.bfloat16, groups=1, kernel=3, autocast=False, amx=True, **how):
        seen = []
        monkeypatch.setattr(product, "has", lambda feature: amx and feature == "amx_bf16")
        apply = trained.Product.apply
        monkeypatch.setattr(trained.Product, "apply", lambda *given: seen.append(given) or apply(*given))
        x, weight = torch.randn(1, c, size, size, dtype=dtype), torch.randn(256, c // groups, kernel, kernel)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = conv2d(x, weight if autocast else weight.to(dtype), padding=kernel // 2, groups=groups, **how)
        monkeypatch.undo()
        assert y.dtype == (torch.bfloat16 if autocast else dtype)
        return bool(seen)

    assert is_product() and is_product(size=4) and is_product(size=2, dtype=torch.float32)
    assert is_product(size=8, stride=2) and is_product(size=4, dtype=torch.float32, autocast=True)
    assert not is_product(size=5) and not is_product(size=4, dtype=torch.float32), "oneDNN is as fast"
    assert not is_product(amx=False) and is_product(amx=False, dtype=torch.float32)
    assert not is_product(c=64) and not is_product(groups=2) and not is_product(kernel=1)
    assert not is_product(dtype=torch.float64) and not is_product(products=False)


@pytest.mark.parametrize("wrong", [
    {"x": torch.randn(1, 255, 2, 2)}, {"bias": torch.randn(2)}, {"stride": 0}, {"padding": -1}, {"dilation": 9},
    {"x": torch.randn(1, 256, 2, 2, dtype=torch.float64)},
])  # fmt: skip
def test_what_is_no_convolution_is_refused_as_by_torch(wrong):
    def refused(conv):
        given = {"x": torch.randn(1, 256, 2, 2), "bias": None, "stride": 1, "padding": 1, "dilation": 1} | wrong
        with pytest.raises(RuntimeError) as error:
            conv(given.pop("x"), torch.randn(256, 256, 3, 3), *given.values())
        return str(error.value)

    assert refused(conv2d) == refused(F.conv2d)


def test_a_network_learns_the_same_with_them(monkeypatch):
    monkeypatch.setattr(product, "has", lambda feature: True)

    def gradients(dtype, products):
        net = nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1))
        net.load_state_dict(plain.state_dict())
        net, x = net.to(dtype), images.to(dtype)
        with convolutions(net, products=products), torch.autocast("cpu", torch.bfloat16, enabled=products):
            net(x).float().square().sum().backward()
        return [parameter.grad.double() for parameter in net.parameters()]

    torch.manual_seed(0)
    images = torch.randn(7, 256, 4, 4).contiguous(memory_format=torch.channels_last)
    plain = nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.Conv2d(256, 256, 3, padding=1))
    for ours, wanted in zip(gradients(torch.float32, True), gradients(torch.float64, False), strict=True):
        assert float((ours - wanted).norm() / wanted.norm()) < 0.02
