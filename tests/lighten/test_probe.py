"""Probes: of the plans that were built, the one that measured best."""

import pytest
import torch
from nets import pictures, settled, unit
from torch import nn

import convlite as cl
from convlite.errors import InputError
from convlite.lighten import build
from convlite.lighten.probe import probed


@pytest.fixture(scope="module")
def known():
    torch.manual_seed(1)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5))
    units = (unit(3, 12), unit(12, 16), unit(16, 16), unit(16, 24, 2), unit(24, 24))
    return cl.study(settled(nn.Sequential(*units, *head)), pictures())


def test_the_plan_that_measured_best_is_taken(known):
    budget = cl.Budget(macs=0.25)
    light = cl.lighten(known, None, budget, probes=5)
    tried = light.record.probed
    first = known.plan(budget)
    assert len(tried) > 1, "no other plan was near"
    assert tried[0][0] == first.error
    assert light.record.stages[-1].error == min(measured for _, measured in tried)
    assert light.plan.bound == first.bound <= first.error <= light.plan.error
    assert light.plan.after.macs <= 0.25 * light.plan.before.macs
    again = build(known, light.plan)
    assert again.record.stages[-1].error == light.record.stages[-1].error, "another network than was probed"


def test_what_was_probed_is_gone_on_with_as_if_built_anew(known):
    budget = cl.Budget(macs=0.25)
    light = cl.lighten(known, None, budget, probes=2, distil=1)
    anew = cl.lighten(known, None, budget, probes=2, distil=1, watch=lambda net: 0.0)
    assert [stage.name for stage in light.record.stages] == [stage.name for stage in anew.record.stages]
    assert [stage.watched for stage in anew.record.stages] == [0.0] * 5
    assert light.plan == anew.plan and light.record.probed == anew.record.probed
    for name, value in anew.model.state_dict().items():
        torch.testing.assert_close(light.model.state_dict()[name], value, rtol=0, atol=0)


def test_without_probes_nothing_but_the_plan_is_built(known):
    budget = cl.Budget(macs=0.5)
    assert probed(known, budget, 0) == (known.plan(budget), None)
    assert cl.lighten(known, None, budget).record.probed == ()


def test_a_budget_that_is_met_already_has_one_plan(known):
    assert probed(known, cl.Budget(macs=1.0), 5) == (known.plan(cl.Budget(macs=1.0)), None)


def test_bad_probes(known):
    for probes in (-1, 6):
        with pytest.raises(InputError, match=f"From 0 to 5 further plans can be probed, not {probes}"):
            cl.lighten(known, None, cl.Budget(macs=0.5), probes=probes)
    with pytest.raises(InputError, match="leave the probes out"):
        cl.lighten(known, None, cl.Budget(latency_ms=1, engine="torch"), probes=1)
