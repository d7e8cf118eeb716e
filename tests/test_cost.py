"""Costs form a commutative monoid with a partial order, and a batch reads its weights once."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convlite import Cost

counts = st.integers(0, 10**15)
costs = st.builds(Cost, counts, counts, counts, counts, counts)
settings.register_profile("costs", deadline=None)
settings.load_profile("costs")


@given(costs, costs, costs)
def test_addition_is_commutative_and_associative_with_zero(a, b, c):
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Cost() == a == sum([a])
    assert sum([a, b, c]) == a + b + c


@given(costs, st.integers(0, 50), st.integers(0, 50))
def test_scaling_is_repeated_addition(a, m, n):
    assert n * a == a * n == sum([a] * n, start=Cost())
    assert (m + n) * a == m * a + n * a


@given(costs, costs, costs)
def test_the_order_is_partial_and_agrees_with_addition(a, b, c):
    assert a <= a
    assert not a < a
    assert a <= a + b
    assert (a <= b and b <= a) == (a == b)
    assert not (a <= b <= c) or a <= c
    assert (a <= b) == (b >= a)
    assert (a < b) == (b > a) == (a <= b and a != b)
    assert not a <= b or a + c <= b + c


def test_two_costs_can_be_incomparable():
    few_params, few_macs = Cost(params=1, macs=2), Cost(params=2, macs=1)
    assert not few_params <= few_macs
    assert not few_macs <= few_params


@given(costs, st.integers(1, 512))
def test_a_batch_reads_its_weights_once(a, n):
    batch = a.batch(n)
    assert (batch.params, batch.weight_bytes) == (a.params, a.weight_bytes)
    assert batch.macs == n * a.macs
    assert batch.bytes == a.weight_bytes + n * (a.input_bytes + a.output_bytes)
    assert batch.intensity >= a.intensity


@given(costs)
def test_it_is_a_frozen_hashable_value_of_json_types(a):
    assert Cost(**json.loads(json.dumps(a.to_dict()))) == a
    assert hash(Cost(**a.to_dict())) == hash(a)
    assert a.bytes * a.intensity == pytest.approx(a.macs if a.bytes else 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        a.params = 1


@pytest.mark.parametrize("other", [1, 0.5, "cost", None])
def test_costs_mix_with_nothing_else(other):
    for mixed in (lambda: Cost() + other, lambda: Cost() <= other, lambda: Cost() > other):
        with pytest.raises(TypeError):
            mixed()
    if not isinstance(other, int):
        with pytest.raises(TypeError):
            Cost() * other
