"""The depthwise convolution that is fast on CPUs is the plain grouped one, forward and backward."""

import pytest
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
    interleaved = torch.arange(max(into, out)).view(c, -1).T.flatten()  # c·r + t, in t·C + c's place
    outputs_of, inputs_of = (interleaved, torch.arange(into)) if spread else (torch.arange(out), interleaved)
    fast.load_state_dict({name: value[outputs_of] for name, value in plain.state_dict().items()})
    x = torch.randn(*((2,) if batched else ()), into, 8, 7, dtype=torch.float64, requires_grad=True)
    outputs = [plain(x).index_select(-3, outputs_of), fast(x.index_select(-3, inputs_of))]
    torch.testing.assert_close(outputs[1], outputs[0])
    back = torch.randn_like(outputs[0])
    gradients = [torch.autograd.grad(y, [x, *layer.parameters()], back) for y, layer in zip(outputs, (plain, fast))]
    torch.testing.assert_close(gradients[1][0], gradients[0][0])
    for one, other in zip(gradients[0][1:], gradients[1][1:]):
        torch.testing.assert_close(other, one[outputs_of])


@pytest.mark.parametrize(("into", "out"), [(8, 16), (16, 8), (24, 8)])
def test_channels_last_stays_channels_last(into, out):
    layer = DepthwiseConv2d(into, out, 3, groups=8).to(memory_format=torch.channels_last)
    y = layer(torch.randn(2, into, 6, 6).to(memory_format=torch.channels_last))
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_in_low_precision_it_is_no_worse_than_the_plain_one():
    plain = nn.Conv2d(8, 32, 3, groups=8)
    x = torch.randn(4, 8, 9, 9)
    exact = nn.functional.conv2d(x.double(), plain.weight.double(), plain.bias.double(), groups=8)
    fast = DepthwiseConv2d(8, 32, 3, groups=8)
    by_term = torch.arange(32).view(8, 4).T.flatten()
    fast.load_state_dict({name: value[by_term] for name, value in plain.state_dict().items()})
    exact = {plain: exact, fast: exact[:, by_term]}
    errors = [(layer.bfloat16()(x.bfloat16()).double() - exact[layer]).abs().max() for layer in (plain, fast)]
    assert errors[1] <= 2 * errors[0]
