"""Pools give what torch's do, of any window: the largest to the bit, NaN among them, and means to rounding."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from convlite import kernels
from convlite.kernels import pool, run

pytestmark = pytest.mark.skipif(kernels.why_not() is not None, reason=str(kernels.why_not()))


def pooled(x, wanted, *window, threads=2, **how):
    """By the kernel, into memory full of NaN."""
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.full_like(wanted, math.nan, memory_format=torch.channels_last)
    step = pool(tuple(x.shape), tuple(wanted.shape[2:]), *window, **how)
    assert step.output == tuple(wanted.shape)
    step.threads, step.x, step.y = threads, x.data_ptr(), y.data_ptr()
    run([step])
    return y


@st.composite
def windows(draw):
    """Images, and a window that torch takes."""
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    least = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    shape = (
        draw(st.integers(1, 3)),
        draw(st.sampled_from([1, 5, 8, 19])),
        *(k + draw(st.integers(0, 9)) for k in least),
    )
    torch.manual_seed(draw(st.integers(0, 99)))
    return torch.randn(shape), kernel, stride, padding, dilation, draw(st.booleans())


@given(case=windows(), threads=st.integers(1, 3), nan=st.booleans())
@settings(deadline=None, max_examples=100)
def test_the_largest_are_torchs(case, threads, nan):
    x, kernel, stride, padding, dilation, up = case
    if nan:
        x[..., 0, 0] = math.nan
    wanted = F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode=up)
    found = pooled(x, wanted, kernel, stride, padding, dilation, largest=True, threads=threads)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)


@given(case=windows(), counted=st.booleans())
@settings(deadline=None, max_examples=100)
def test_means_are_torchs(case, counted):
    x, kernel, stride, padding, _, up = case
    wanted = F.avg_pool2d(x.double(), kernel, stride, padding, up and not counted, counted).float()
    over = kernel[0] * kernel[1] if counted else 0
    torch.testing.assert_close(pooled(x, wanted, kernel, stride, padding, largest=False, over=over), wanted)
