"""How things are timed; nothing here depends on how long they take."""

import time

import pytest
import torch
from torch import nn

from convlite.analyse import latency
from convlite.analyse.latency import Timing, machine, measure, measure_models, timing, using
from convlite.errors import InputError


def test_rounds_are_interleaved_and_none_always_follows_the_same():
    ran = []
    found = measure({name: lambda name=name: ran.append(name) for name in "abc"}, rounds=4, warmup=2)
    assert "".join(ran) == "abcabc" + "abc" + "bca" + "cab" + "abc"
    assert list(found) == ["a", "b", "c"]
    assert all(one.runs == 4 and 0 <= one.q1 <= one.median <= one.q3 for one in found.values())


def test_each_settles_before_it_is_timed(monkeypatch):
    ran, clock = [], iter(range(10_000))
    monkeypatch.setattr(latency.time, "perf_counter", lambda: ran.append("|") or next(clock))
    found = measure({name: lambda name=name: ran.append(name) for name in "ab"}, rounds=2, warmup=0, settle=2)
    assert "".join(ran) == "|" + "aa|a|" + "bb|b|" + "bb|b|" + "aa|a|"
    assert all(one.median == 1000 and one.runs == 2 for one in found.values())


@pytest.mark.parametrize(("minimum", "rounds", "expected"), [(3, 20, 3), (7, 20, 7), (5, 2, 2)])
def test_a_budget_ends_the_rounds_but_not_before_the_minimum(monkeypatch, minimum, rounds, expected):
    clock = iter(range(10_000))
    monkeypatch.setattr(latency.time, "perf_counter", lambda: next(clock))
    found = measure({"a": lambda: None}, rounds=rounds, warmup=0, seconds=0.5, minimum=minimum)
    assert found["a"].runs == expected
    assert found["a"].median == 1000  # one tick a run, in milliseconds


def test_the_statistics():
    assert timing([5.0]) == Timing(5.0, 5.0, 5.0, 1, 5.0)
    found = timing([1.0, 2.0, 3.0, 4.0, 100.0])
    assert (found.q1, found.median, found.q3, found.runs) == (2.0, 3.0, 4.0, 5)
    assert found.least == 1.0


def test_what_takes_longer_is_longer():
    found = measure({"short": lambda: None, "long": lambda: time.sleep(0.01)}, rounds=5)
    assert found["long"].q1 > found["short"].q3


def test_models_run_in_eval_and_inference_mode_and_are_put_back():
    seen = []

    class Spy(nn.Module):
        def forward(self, x, y=None):
            seen.append((self.training, torch.is_inference_mode_enabled(), y))
            return x

    net = nn.Sequential(Spy(), nn.Dropout()).train()
    net[1].eval()
    pair = Spy().train()
    x = torch.rand(2)
    measure_models(
        {"net": (net, x), "tuple": (pair, (x, 1)), "named": (pair, {"x": x, "y": 2})}, rounds=1, warmup=0
    )
    assert seen == [(False, True, None), (False, True, 1), (False, True, 2)]
    assert (net.training, net[0].training, net[1].training, pair.training) == (True, True, False, True)


def test_models_are_put_back_after_an_exception():
    class Fails(nn.Module):
        def forward(self, x):
            raise ValueError("no")

    net = Fails().train()
    with pytest.raises(ValueError, match="no"):
        measure_models({"net": (net, torch.rand(1))})
    assert net.training and not torch.is_inference_mode_enabled()


def test_threads_are_set_and_given_back():
    before = torch.get_num_threads()
    with using(1):
        assert torch.get_num_threads() == machine().threads == 1
    with using(None):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before
    with pytest.raises(InputError, match="one thread at least, given 0"), using(0):
        pass


def test_the_machine_is_recorded():
    found = machine(dtype=torch.bfloat16)
    assert (found.device, found.dtype, found.torch) == ("cpu", "bfloat16", torch.__version__)
    assert found.cores >= 1 and found.processor and found.load >= 0
    assert found.to_dict()["threads"] == torch.get_num_threads()


def test_bad_input():
    with pytest.raises(InputError, match="given 0 functions"):
        measure({})
    with pytest.raises(InputError, match="given 1 functions, 0 rounds"):
        measure({"a": lambda: None}, rounds=0)
