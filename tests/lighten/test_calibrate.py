"""What a refit chooses from images that are set aside."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convlite.kinds import Conv
from convlite.lighten.calibrate import RIDGES, best_for, ridge_of
from convlite.lighten.patches import Sums


@settings(max_examples=40, deadline=None)
@given(
    rows=st.sampled_from([20, 40, 200, 4000]),
    noise=st.sampled_from([0.0, 0.01, 0.3, 3.0]),
    off=st.sampled_from([0.0, 0.1, 1.0]),
    centred=st.booleans(),
    seed=st.integers(0, 99),
)
def test_no_ridge_beside_the_one_that_is_taken_is_better(rows, noise, off, centred, seed):
    """Few rows or many, of outputs that the layer's weight explains nearly, or hardly."""
    torch.manual_seed(seed)
    conv = Conv(c=24, m=8, k=(1, 1), h=4, w=4)
    true, scale = torch.randn(8, 24), torch.linspace(-3, 1, 24).exp()
    weight = true + off * torch.randn(8, 24)
    own, aside = Sums.empty(conv, torch.device("cpu")), Sums.empty(conv, torch.device("cpu"))
    for sums, count in ((own, rows), (aside, rows // 4)):
        x = torch.randn(count, 24) * scale + 0.5
        sums.add(x, x @ true.T + noise * torch.randn(count, 8))
    unseen = aside.target(weight, centred=centred)
    lost = [
        float(unseen.error(best_for(own.target(weight, centred=centred, ridge=ridge))).sum()) for ridge in RIDGES
    ]
    taken = RIDGES.index(ridge_of(own, aside, weight, centred=centred))
    assert lost[taken] <= min(lost[max(0, taken - 1) : taken + 2])
