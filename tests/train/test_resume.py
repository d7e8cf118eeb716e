"""A run that was stopped, however and whenever, ends with the weights of one that was not, to the last bit."""

import copy
import dataclasses
import os
import random
import signal
import time
from types import SimpleNamespace

import pytest
import torch
from bars import bars, network
from forked import CPU, RECIPE, start
from hypothesis import given, settings
from hypothesis import strategies as st

from convlite.data import Data
from convlite.errors import InputError
from convlite.models import create, saved
from convlite.train import Classification, Compute, Keep, Recipe, checkpoint, train

STEPS = 18  # of RECIPE: three epochs of six


def fit(net, data, recipe=RECIPE, **options):
    return train(net, data, recipe, compute=CPU, progress=False, **options)


def weights(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stopping(after, how=lambda: os.kill(os.getpid(), signal.SIGINT)):
    """A task that is stopped in the step with this number, counted from 1, as often as it is called anew."""
    calls = []

    def loss(inputs, logits, labels):
        calls.append(1)
        if len(calls) == after:
            how()
        return torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)

    return Classification(loss)


def fail():
    raise RuntimeError("the power is gone")


@pytest.fixture(scope="module")
def whole():
    """The weights, and what was measured, of a run of RECIPE that nothing stopped."""
    import bars as small

    net = network()
    history = fit(net, small.data(), test_each_epoch=True)
    return weights(net), [dataclasses.replace(e, seconds=0, images_per_second=0) for e in history.epochs]


@given(st.lists(st.integers(1, STEPS), min_size=1, max_size=3))
@settings(deadline=None, max_examples=6)
def test_ctrl_c_after_any_step_and_on(whole, tiny, tmp_path_factory, stops):
    folder, done = tmp_path_factory.mktemp("run"), 0
    for stop in stops:
        if done + stop > STEPS:
            break
        with pytest.raises(KeyboardInterrupt):
            fit(network(), tiny, out=folder, resume=True, task=stopping(stop), test_each_epoch=True)
        done += stop  # the step in which it came is done wholly, and kept
        assert checkpoint.newest(folder).path.stem == f"{done:08d}"
    net = network()
    history = fit(net, tiny, out=folder, resume=True, test_each_epoch=True)
    assert same(weights(net), whole[0])
    assert same(saved.load(folder, model=network()).state_dict(), whole[0])
    assert [dataclasses.replace(e, seconds=0, images_per_second=0) for e in history.epochs] == whole[1]
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3


RECIPES = {
    "sgd": {"optimiser": "sgd", "schedule": "exponential", "fall_epochs": 0.5},
    "rmsprop": {"optimiser": "rmsprop", "epsilon": 1.0, "clip": 0.5, "schedule": "linear"},
    "adamw": {"optimiser": "adamw", "rate": 1e-2, "average": 0.99},
    "parts": {"accumulate": 3, "average": 0.0},
}


@pytest.mark.parametrize("name", RECIPES)
def test_every_optimiser_goes_on_exactly(name, tiny, tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=2, **RECIPES[name])
    ends = []
    for folder in (None, tmp_path):
        net = network()
        if folder:
            for after in (3, 5):
                with pytest.raises(RuntimeError, match="power"):
                    task = stopping(after * recipe.accumulate, fail)
                    fit(net, tiny, recipe, out=folder, resume=True, task=task, keep=Keep(steps=2))
                net = network()
            assert [file.stem for file in checkpoint.files(folder)] == ["00000006", "00000004"]
        fit(net, tiny, recipe, out=folder, resume=folder is not None)
        ends.append(weights(net))
    assert same(*ends)


def test_half_precision_of_a_family_with_everything_on(tiny, tmp_path):
    recipe = Recipe(epochs=1, batch_size=60, rate=0.05, dropout=0.3, drop_path=0.2, layer_decay=0.8, shift=0)
    compute = Compute("cpu", precision="bf16", recompute=True)

    def family():
        torch.manual_seed(1)
        return create("xception_small", num_classes=3, width=0.25, depth=1)

    whole, half = family(), family()
    options = {"compute": compute, "progress": False}
    train(whole, tiny, recipe, **options)
    with pytest.raises(KeyboardInterrupt):
        train(half, tiny, recipe, out=tmp_path, task=stopping(1), **options)
    again = family()
    train(again, tiny, recipe, out=tmp_path, resume=True, **options)
    assert same(weights(again), weights(whole)) and not again.checkpointing


def test_killed_at_any_moment_and_resumed(whole, tmp_path):
    source, killed = random.Random(0), 0
    while killed < 3:
        process = start(tmp_path)
        begun, before = time.monotonic(), len(checkpoint.files(tmp_path))
        while process.is_alive() and not checkpoint.files(tmp_path) and time.monotonic() - begun < 20:
            time.sleep(0.005)  # until it is well under way
        process.join(source.uniform(0, 0.15) if before == 0 else source.uniform(0.1, 0.4))
        process.kill()
        process.join()
        killed += 1
        if checkpoint.files(tmp_path):
            checkpoint.newest(tmp_path, say=pytest.fail)  # the newest can always be read
    process = start(tmp_path)
    process.join()
    assert process.exitcode == 0
    assert same(saved.load(tmp_path, model=network()).state_dict(), whole[0])
    assert not list((tmp_path / "checkpoints").glob(".*")), "nothing half written is left"


def test_a_full_disk_leaves_every_checkpoint_readable(whole, tiny, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(network(), tiny, out=tmp_path, task=stopping(4))
    size = checkpoint.files(tmp_path)[0].stat().st_size
    for limit in (0, 100, size // 2, int(0.9 * size)):  # sizes differ by some digits of the times recorded
        process = start(tmp_path, limit=limit)
        process.join()
        assert process.exitcode == 1
        assert [checkpoint.newest(tmp_path, say=pytest.fail).path.stem] == ["00000004"]
        assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    net = network()
    fit(net, tiny, out=tmp_path, resume=True)
    assert same(weights(net), whole[0])


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_broken_checkpoint_is_named_and_the_one_before_it_taken(whole, tiny, tmp_path, capsys, share):
    with pytest.raises(KeyboardInterrupt):
        fit(network(), tiny, out=tmp_path, task=stopping(7))
    newest, before = checkpoint.files(tmp_path)
    content = newest.read_bytes()
    newest.write_bytes(content[: int(share * len(content))])
    net = network()
    train(net, tiny, RECIPE, out=tmp_path, resume=True, compute=CPU)
    said = " ".join(capsys.readouterr().err.split())
    assert f"{newest} can't be read" in said and f"resumed from {before}: epoch 2, after step 0 of 6" in said
    assert same(weights(net), whole[0])


def test_no_checkpoint_that_can_be_read(tiny, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "00000003.safetensors").write_bytes(b"{}")
    with pytest.raises(InputError, match="None of the checkpoints"):
        fit(network(), tiny, out=tmp_path, resume=True)


def test_another_run_is_not_resumed(net, tiny, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(copy.deepcopy(net), tiny, out=tmp_path, task=stopping(2))

    def refused(says, network=net, data=tiny, recipe=RECIPE, **options):
        with pytest.raises(InputError, match=says):
            train(network, data, recipe, out=tmp_path, resume=True, progress=False, **({"compute": CPU} | options))

    refused(r"recipe\.epochs was 3, now 8", recipe=dataclasses.replace(RECIPE, epochs=8))
    refused("seed was 0, now 1", seed=1)
    refused("precision was fp32, now bf16", compute=Compute("cpu", precision="bf16"))
    refused("data.labels was", data=dataclasses.replace(tiny, train=bars(120, seed=5)))
    refused("data.images was 120, now 50", data=Data(tiny.test, tiny.test, tiny.classes, tiny.preprocess, "x"))
    wider = network()
    wider[9] = torch.nn.Linear(8, 3, bias=False)
    refused("trained tensors was 8, now 7", network=wider)
    other = network()
    other[0] = torch.nn.Conv2d(3, 8, 5, padding=2, bias=False)
    refused("1 tensors are of another shape", network=other)
    with pytest.raises(InputError, match=r"stopped after 0 of 3 epochs: --resume it"):
        fit(net, tiny, out=tmp_path)


def test_a_finished_run_stays_as_it_is_and_makes_room_for_another(whole, tiny, tmp_path, capsys):
    first = network()
    fit(first, tiny, out=tmp_path, test_each_epoch=True)
    (tmp_path / "model.safetensors").unlink()  # as after a kill just before it was written
    history = fit(network(), tiny, out=tmp_path, resume=True)
    assert len(history.epochs) == 3
    assert same(saved.load(tmp_path, model=network()).state_dict(), whole[0])
    fit(network(), tiny, out=tmp_path, seed=9)
    assert checkpoint.newest(tmp_path).run["seed"] == 9
    train(network(), tiny, RECIPE, out=tmp_path / "new", resume=True, compute=CPU)
    assert "no checkpoint yet: the run begins anew" in " ".join(capsys.readouterr().err.split())


def test_the_best_network_stays_beside_the_last(tiny, tmp_path):
    measures = iter([0.2, 0.7, 0.7, 0.4])

    class Measured(Classification):
        def measure(self, model, images, data, *, progress=True):
            ends.append(weights(model))
            return SimpleNamespace(headline=next(measures))

    ends = []
    recipe = dataclasses.replace(RECIPE, epochs=4)
    history = fit(network(), tiny, recipe, out=tmp_path, task=Measured(), test_each_epoch=True)
    assert history.best.number == 2
    assert same(saved.load(tmp_path / "best", model=network()).state_dict(), ends[1])
    assert same(saved.load(tmp_path, model=network()).state_dict(), ends[3])
