"""Second moments of what a convolution reads, against products of unfolded patches in float64."""

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from convlite.kinds import Conv
from convlite.lighten.patches import BLOCK, Sums, read_patches, sample_positions


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 3),
    st.sampled_from([1, 5, BLOCK // 9 + 3, 2 * BLOCK // 9 + 5]),
    st.integers(1, 4),
    st.integers(0, 9),
)
def test_moments_are_those_of_all_patches(groups, c, m, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, groups * c, 7, 6, generator=generator) + 0.5
    y = torch.randn(4 * 7 * 6, groups * m, generator=generator)
    layer = Conv(c=groups * c, m=groups * m, k=(3, 3), h=7, w=6, padding=(1, 1), groups=groups)
    sums = Sums.empty(layer, x.device)
    half = len(y) // 2
    patches = read_patches(x, layer, sample_positions(layer, len(x), generator))
    sums.add(patches[:half], y[:half])
    sums.add(patches[half:], y[half:])
    unfolded = F.unfold(x.double(), 3, padding=1).mT.reshape(-1, groups, c * 9).transpose(0, 1)  # (G, rows, D)
    wanted = y.double().view(-1, groups, m).transpose(0, 1)  # (G, rows, m)
    torch.testing.assert_close(sums.second, unfolded.mT @ unfolded, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(sums.cross, wanted.mT @ unfolded, rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(sums.second, sums.second.mT, rtol=1e-6, atol=1e-4)
    assert sums.rows == len(y)
