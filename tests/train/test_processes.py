"""Several processes train the network that one would have trained."""

import dataclasses
import json

import pytest
import torch
from bars import data, network
from forked import CPU, RECIPE, Wide, measure, plain, start, together, unnormed

from convlite.models import saved
from convlite.train import checkpoint, evaluate, train

ALIKE = dataclasses.replace(RECIPE, batch_size=23, clip=1.0)  # shares of 11 and 12 images, of 10 and 10, ...


def one(network, recipe):
    net = network()
    return net, train(net, data(), recipe, compute=CPU, progress=False)


def distance(a, b):
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)


@pytest.mark.parametrize(("network", "parts"), [(plain, 1), (Wide, 1), (unnormed, 3)])
def test_two_processes_end_with_the_weights_of_one(tmp_path, network, parts):
    recipe = dataclasses.replace(ALIKE, accumulate=parts)
    assert together(2, tmp_path, recipe, network=network, steps=None) == [0, 0]
    alone, history = one(network, ALIKE)
    found = saved.load(tmp_path, model=network())
    close = 1e-7 if network is Wide else 1e-5
    assert distance(found.state_dict(), alone.state_dict()) < close
    (last,) = saved.read_config(tmp_path)["about"]["training"]["epochs"][-1:]
    assert last["loss"] == pytest.approx(history.last.loss, rel=1e-5)
    assert (last["number"], last["train_accuracy"]) == (3, history.last.train_accuracy)


def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
    """The batches are the same, so that only rounding tells it from a run that never changed."""
    alone, _ = one(plain, ALIKE)
    half = tmp_path / "a"
    assert together(2, half, ALIKE, network=plain, stop=7) == [1, 1]
    assert checkpoint.newest(half).where["processes"] == 2
    assert int(checkpoint.files(half)[0].stem) == 7
    process = start(half, ALIKE, network=plain)
    process.join(60)
    assert process.exitcode == 0
    found = saved.load(half, model=plain())
    assert distance(found.state_dict(), alone.state_dict()) < 1e-5
    torch.testing.assert_close(found[1].running_var, alone[1].running_var)


def test_every_image_is_measured_once(tmp_path):
    assert together(2, str(tmp_path / "score"), target=measure) == [0, 0]
    small, net = data(), network()
    expected = [evaluate(net, small.test[:count], small).to_dict() for count in (50, 48, 7, 1)]
    for rank in (0, 1):
        for found, whole in zip(json.loads((tmp_path / f"score{rank}").read_text()), expected):
            for name, value in whole.items():
                assert found[name] == pytest.approx(list(value) if name == "per_class" else value), name
