"""Strided 1×1 convolutions of few channels learn what they should, where torch's may write past its memory."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from learning import learnt
from torch import nn
from torch.utils.checkpoint import checkpoint

from convlite.kernels import conv2d, convolutions


@given(
    n=st.integers(1, 9), c=st.integers(1, 20), m=st.integers(1, 20), size=st.tuples(*[st.integers(1, 33)] * 2),
    stride=st.tuples(*[st.integers(1, 3)] * 2), padding=st.integers(0, 1), threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)  # fmt: skip
@example(n=7, c=8, m=8, size=(32, 32), stride=(2, 2), padding=0, threads=2, seed=0)  # torch's crash with AVX-512
@example(n=7, c=12, m=8, size=(33, 33), stride=(3, 3), padding=0, threads=2, seed=0)
@example(n=7, c=3, m=16, size=(16, 16), stride=(2, 2), padding=0, threads=2, seed=0)  # or are wrong
@settings(deadline=None, max_examples=100)
def test_they_learn_what_float64_does(n, c, m, size, stride, padding, threads, seed):
    torch.manual_seed(seed)
    x = torch.randn(n, c, *size).contiguous(memory_format=torch.channels_last)
    tensors, how = [x, torch.randn(m, c, 1, 1), torch.randn(m)], (stride, padding)
    exact = [tensor.double() for tensor in tensors]
    given = torch.randn_like(F.conv2d(*exact, *how)).contiguous(memory_format=torch.channels_last)
    found = learnt(conv2d, tensors, how, given, threads=threads)
    for ours, wanted in zip(found, learnt(F.conv2d, exact, how, given), strict=True):
        assert ours.shape == wanted.shape
        torch.testing.assert_close(ours.double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("recomputed", [True, False])
def test_a_network_learns_so_whoever_calls_its_layers(compiled, recomputed):
    def gradients(net, dtype):
        net = net.to(dtype, memory_format=torch.channels_last)
        x = images.to(dtype)
        y = checkpoint(net, x, use_reentrant=False) if recomputed else net(x)
        y.backward(torch.ones_like(y))
        return [parameter.grad.double() for parameter in net.parameters()]

    torch.manual_seed(0)
    images = torch.randn(7, 8, 32, 32).contiguous(memory_format=torch.channels_last)
    net, plain = (nn.Sequential(nn.Conv2d(8, 8, 1, stride=2), nn.ReLU(), nn.Conv2d(8, 9, 1)) for _ in range(2))
    plain.load_state_dict(net.state_dict())
    said = []
    with convolutions(net, said.append, compiled=compiled):
        found = gradients(net, torch.float32)
    assert not said, "nothing runs in the kernels"
    for ours, wanted in zip(found, gradients(plain, torch.float64), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-3)


def test_an_interrupted_layer_leaves_torchs_convolutions_in_place():
    def interrupt(*_):
        raise KeyboardInterrupt

    net = nn.Conv2d(8, 8, 1, stride=2)
    net.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt), convolutions(net):
        net(torch.randn(1, 8, 4, 4))
    assert not torch.overrides._get_current_function_mode_stack()
