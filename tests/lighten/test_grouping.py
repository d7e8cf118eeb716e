"""Which channels stand together in a group, against scipy on the gains as they are."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from convlite.lighten.grouping import MANY, assigned, partition


@settings(max_examples=40, deadline=None)
@given(
    share=st.integers(1, 6),
    groups=st.sampled_from([1, 2, 5, 32, 64]),
    skew=st.sampled_from([0.0, 1.0, 30.0]),
    steps=st.sampled_from([0, 3]),
    seed=st.integers(0, 99),
)
def test_no_assignment_gains_more(share, groups, skew, steps, seed):
    """Also where all rows want one group, and where many gains are the same."""
    torch.manual_seed(seed)
    n = share * groups * (1 if share * groups >= MANY or seed % 2 else -(-MANY // (share * groups)))
    gain = torch.rand(n, groups, dtype=torch.float64) + skew * torch.rand(n, 1) * torch.rand(groups) ** 3
    if steps:
        gain = (gain * steps).round()
    found = assigned(gain)
    assert (found.bincount(minlength=groups) == n // groups).all()
    _, seat = linear_sum_assignment(gain.repeat_interleave(n // groups, dim=1).numpy(), maximize=True)
    best = gain.gather(1, torch.from_numpy(seat)[:, None] // (n // groups)).sum()
    torch.testing.assert_close(gain.gather(1, found[:, None]).sum(), best, rtol=1e-12, atol=1e-12)


def test_groups_that_are_there_are_found():
    torch.manual_seed(0)
    groups, m, c = 8, 256, 128
    outputs, inputs = (torch.arange(groups).repeat(n // groups)[torch.randperm(n)] for n in (m, c))
    use = torch.rand(m, c, dtype=torch.float64) * torch.where(outputs[:, None] == inputs, 1.0, 0.1)
    found = partition(use, groups)
    for one, other in zip(found, (outputs, inputs)):
        pairs = set(zip(one.tolist(), other.tolist()))
        assert len(pairs) == groups  # the same but for their names
