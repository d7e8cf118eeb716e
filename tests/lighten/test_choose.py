"""The choice of options against all choices there are, and what its bound proves."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import plain

import convlite as cl
from convlite.cost import Cost
from convlite.errors import InputError
from convlite.kinds import LowRank
from convlite.lighten.choose import GAP, choose
from convlite.lighten.plan import Option, uses

amounts = st.integers(1, 1000)


@st.composite
def layers(draw):
    """Up to four layers of up to four options each, the dense one first."""
    made = {}
    for i in range(draw(st.integers(1, 4))):
        each = [Option(None, Cost(draw(amounts), draw(amounts)), 0.0, ms=draw(amounts) / 7)]
        for rank in range(1, draw(st.integers(1, 4))):
            cost = Cost(draw(amounts), draw(amounts), 4 * draw(amounts))
            error = 10 ** draw(st.floats(-9, 2))
            each.append(Option(LowRank(rank), cost, error, ms=draw(amounts) / 7))
        made[f"layer{i}"] = each
    return made


def summed(options):
    every = [uses(option.cost, option.ms) for option in options]
    return {name: sum(use[name] for use in every) for name in every[0]}


@given(
    layers(),
    st.floats(0.05, 1.0),
    st.sets(st.sampled_from(["macs", "params", "ms"]), min_size=1),
    st.integers(0, 99),
)
@settings(deadline=None, max_examples=80)
def test_no_choice_within_the_limits_is_better(options, share, limited, rest):
    before = {name: value + rest for name, value in summed([each[0] for each in options.values()]).items()}
    limits = {name: share * before[name] for name in limited}
    fits = [
        sum(one.error for one in choice)
        for choice in itertools.product(*options.values())
        if all(summed(choice)[name] + rest <= limit * (1 + 1e-12) for name, limit in limits.items())
    ]
    if not fits:
        with pytest.raises(InputError, match="can't be met"):
            choose(options, before, limits)
        return
    found = choose(options, before, limits)
    used = summed(found.options.values())
    assert all(used[name] + rest <= limit * (1 + 1e-9) for name, limit in limits.items())
    error, worst = (
        sum(one.error for one in found.options.values()),
        sum(max(o.error for o in e) for e in options.values()),
    )
    assert found.bound <= min(fits) * (1 + 1e-6) + 1e-7 * worst
    assert error <= min(fits) * (1 + 2 * GAP) + 1e-6 * worst


def test_one_study_serves_every_budget():
    torch.manual_seed(0)
    net, images = plain(), torch.randn(64, 3, 12, 12).cumsum(2).cumsum(3) / 8
    known = cl.study(net, images)
    curve = known.frontier()
    assert [plan.after.macs for plan in curve] == sorted((plan.after.macs for plan in curve), reverse=True)
    assert [plan.error for plan in curve] == sorted(plan.error for plan in curve)
    assert all(plan.bound <= plan.error * (1 + 1e-6) for plan in curve)
    for budget in (cl.Budget(macs=0.5), cl.Budget(params=0.4, macs=0.6), cl.Budget(size_mb=0.004)):
        light, alone = cl.lighten(known, None, budget), cl.lighten(net, images, budget)
        assert light.plan == alone.plan and light.record.after == alone.record.after
    size = sum(p.numel() * p.element_size() for p in light.model.parameters())
    assert size == light.plan.after.weight_bytes <= 4000
