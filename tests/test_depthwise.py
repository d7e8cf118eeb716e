"""The depthwise convolution that is fast on CPUs is the plain grouped one, forward and backward."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convlite.nn import DepthwiseConv2d


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5),
    st.integers(1, 4),
    st.booleans(),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(1, 2)),
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    st.booleans(),
    st.sampled_from(["zeros", "reflect", "circular"]),
    st.booleans(),
)
def test_same_results_and_gradients_as_the_grouped_convolution(
    c, r, spread, k, stride, padding, bias, mode, batched
):
    into, out = (c, r * c) if spread else (r * c, c)
    sizes = {"stride": stride, "padding": padding, "groups": c, "bias": bias, "padding_mode": mode}
    plain = nn.Conv2d(into, out, k, **sizes).double()
    fast = DepthwiseConv2d(into, out, k, **sizes).double()
    fast.load_state_dict(plain.state_dict())
    x = torch.randn(*((2,) if batched else ()), into, 8, 7, dtype=torch.float64)
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [plain(inputs[0]), fast(inputs[1])]
    torch.testing.assert_close(outputs[1], outputs[0])
    back = torch.randn_like(outputs[0])
    gradients = [
        torch.autograd.grad(y, [given, *layer.parameters()], back)
        for y, given, layer in zip(outputs, inputs, (plain, fast))
    ]
    for one, other in zip(*gradients):
        torch.testing.assert_close(other, one)


def test_channels_last_stays_channels_last():
    layer = DepthwiseConv2d(8, 16, 3, groups=8).to(memory_format=torch.channels_last)
    y = layer(torch.randn(2, 8, 6, 6).to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_in_low_precision_it_is_no_worse_than_the_plain_one():
    plain = nn.Conv2d(8, 32, 3, groups=8)
    x = torch.randn(4, 8, 9, 9)
    exact = nn.functional.conv2d(x.double(), plain.weight.double(), plain.bias.double(), groups=8)
    fast = DepthwiseConv2d(8, 32, 3, groups=8)
    fast.load_state_dict(plain.state_dict())
    errors = [(layer.bfloat16()(x.bfloat16()).double() - exact).abs().max() for layer in (plain, fast)]
    assert errors[1] <= 2 * errors[0]
