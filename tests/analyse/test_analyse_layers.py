"""The time of each layer inside its network; nothing here depends on how long things take."""

import json
import time

import pytest
import torch
from torch import nn

from convlite.analyse import layers, time_layers
from convlite.errors import InputError


class Nap(nn.Module):
    def __init__(self, milliseconds, inner=None):
        super().__init__()
        self.milliseconds, self.inner = milliseconds, inner

    def forward(self, x):
        time.sleep(self.milliseconds / 1e3)
        return self.inner(x) if self.inner is not None else x


def test_a_module_is_charged_with_its_own_time_only():
    net = nn.Sequential(Nap(1), Nap(6, inner=Nap(20)), nn.Identity())
    found = time_layers(net, (3,), rounds=3, warmup=0)
    assert list(found.layers) == ["0", "1", "1.inner", "2", ""] or set(found.layers) == {
        "",
        "0",
        "1",
        "1.inner",
        "2",
    }
    assert found.layers["1.inner"].q1 >= 20
    assert found.layers["1"].q1 >= 6
    assert found.layers["1"].median < found.layers["1.inner"].median < found.within("1")
    assert found.bare.runs == found.timed.runs == found.layers["0"].runs == 3


def test_it_adds_up(monkeypatch):
    ticks = iter(range(1_000_000))
    monkeypatch.setattr(layers._Clock, "now", lambda self: next(ticks) / 1e3)
    net = nn.Sequential(nn.Identity(), nn.Sequential(nn.Identity(), nn.Identity()))
    shared = nn.Identity()
    for one in (net, nn.Sequential(shared, shared)):
        found = time_layers(one, (3,), rounds=4)
        # one tick for each reading of the clock; the model's own call stands between two of them
        assert sum(t.median for t in found.layers.values()) == pytest.approx(found.timed.median - 2)
        assert found.overhead == pytest.approx(found.timed.median - found.bare.median)
        assert found.unattributed == pytest.approx(found.bare.median - found.within(""))


def test_bare_and_timed_take_turns_and_the_model_is_put_back():
    seen = []

    class Spy(nn.Module):
        def forward(self, x, y=None):
            seen.append("_call_impl" in vars(self))
            self.left_behind = x
            assert not self.training and torch.is_inference_mode_enabled()
            return x

    net = Spy().train()
    time_layers(net, {"x": (3,), "y": torch.rand(2)}, rounds=2, warmup=1)
    assert seen == [False, True, True, False, False, True]
    assert net.training and not hasattr(net, "left_behind") and "_call_impl" not in vars(net)


def test_the_model_is_put_back_after_an_exception():
    class Fails(nn.Module):
        def forward(self, x):
            self.left_behind = x
            raise ValueError("no")

    net = nn.Sequential(Fails()).train()
    with pytest.raises(ValueError, match="no"):
        time_layers(net, (3,))
    assert net.training and "_call_impl" not in vars(net[0]) and not hasattr(net[0], "left_behind")


def test_json_and_bad_input():
    found = time_layers(nn.Linear(3, 4), torch.rand(2, 3), rounds=1, warmup=0, seconds=0)
    again = json.loads(json.dumps(found.to_dict()))
    assert set(again) == {"bare", "timed", "overhead", "unattributed", "layers", "machine", "layout"}
    assert again["layers"][""]["runs"] == 1
    with pytest.raises(InputError, match="given 0"):
        time_layers(nn.Linear(3, 4), (3,), rounds=0)
