"""Training: it learns, repeats itself to the bit, and leaves whole checkpoints whatever stops it."""

import copy
import dataclasses
import json

import pytest
import torch

from convlite.errors import InputError, RunError
from convlite.models import saved
from convlite.preprocess import Preprocess
from convlite.train import Classification, Compute, Recipe, evaluate, train
from convlite.train.optimise import groups

QUICK = Recipe(epochs=2, batch_size=20, rate=0.2, shift=1, label_smoothing=0.0)


def state(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class WithAux(torch.nn.Module):
    """A network whose training mode gives auxiliary logits too."""

    def __init__(self, net):
        super().__init__()
        self.net, self.aux = net, torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(432, 3))

    def forward(self, x):
        return (self.net(x), self.aux(x)) if self.training else self.net(x)


def test_auxiliary_heads_learn_too_by_their_share(net, tiny):
    once = Recipe(epochs=1, batch_size=200, rate=0.1, momentum=0.0, weight_decay=0.0, warmup=0.0, shift=0)
    moves = []
    for share in (0.0, 0.3, 0.6):
        model = WithAux(copy.deepcopy(net))
        before = model.aux[1].weight.detach().clone()
        main = model.net[0].weight.detach().clone()
        train(model, tiny, dataclasses.replace(once, aux=share))
        moves.append((model.aux[1].weight - before).norm())
        assert not torch.equal(model.net[0].weight, main)
    assert moves[0] == 0
    torch.testing.assert_close(moves[2], 2 * moves[1])


def test_it_learns(net, tiny):
    before = evaluate(net, tiny.test, tiny)
    history = train(net, tiny, Recipe(epochs=6, batch_size=20, rate=0.2, shift=1), test_each_epoch=True)
    score = evaluate(net, tiny.test, tiny)
    assert before.top1 < 0.7 < 0.9 <= score.top1
    assert history.last.test_accuracy == score.top1  # measured on what it ended with
    assert [epoch.number for epoch in history.epochs] == [1, 2, 3, 4, 5, 6]
    assert history.last.loss < history.epochs[0].loss
    assert json.loads(json.dumps(history.to_dict()))["epochs"][0]["number"] == 1
    assert not net.training


def test_the_same_seed_gives_the_same_weights(net, tiny):
    twins = [copy.deepcopy(net) for _ in range(3)]
    for twin, seed in zip(twins, (5, 5, 6)):
        torch.rand(int(torch.randint(1, 9, ())))  # what was drawn before doesn't matter
        train(twin, tiny, QUICK, seed=seed)
    first, again, other = map(state, twins)
    assert same(first, again) and not same(first, other)


def test_measuring_in_between_changes_no_weight(net, tiny):
    twin = copy.deepcopy(net)
    train(net, tiny, QUICK, test_each_epoch=True)
    train(twin, tiny, QUICK)
    assert same(state(net), state(twin))


def test_a_step_is_sgd_with_nesterov_momentum(net, tiny):
    """Against the update written out in float64, without augmentation, for one epoch of one batch."""
    net[8] = torch.nn.Identity()  # no dropout
    twin = copy.deepcopy(net).double().train()
    recipe = Recipe(
        epochs=1, batch_size=200, warmup=0, schedule="constant", shift=0, rate=0.1, momentum=0.8, weight_decay=0.01
    )
    train(net, tiny, recipe)
    logits = twin(tiny.normalise(tiny.train.pixels).double())
    loss = torch.nn.functional.cross_entropy(logits, tiny.train.labels, label_smoothing=0.1)
    loss.backward()
    for name, parameter in twin.named_parameters():
        gradient = parameter.grad + (0.01 * parameter if parameter.ndim > 1 else 0)
        expected = parameter - 0.1 * (gradient + 0.8 * gradient)  # the first step's velocity is the gradient
        torch.testing.assert_close(net.get_parameter(name).double(), expected.detach(), atol=1e-6, rtol=1e-5)


def test_norms_and_biases_do_not_decay_and_frozen_parameters_do_not_train(net, tiny):
    net[0].requires_grad_(False)
    found = groups(net, Recipe(weight_decay=0.1))
    assert [group["weight_decay"] for group in found] == [0.1, 0.0]
    assert [p.ndim for p in found[0]["params"]] == [4, 2] and {p.ndim for p in found[1]["params"]} == {1}
    before = net[0].weight.clone()
    train(net, tiny, QUICK)
    assert torch.equal(net[0].weight, before)


def test_a_loss_of_ones_own(net, tiny):
    shapes = set()

    def loss(inputs, logits, labels):
        shapes.add((tuple(inputs.shape), tuple(logits.shape), tuple(labels.shape)))
        return (logits**2).mean()

    history = train(net, tiny, Recipe(epochs=3, batch_size=20, rate=0.1), task=Classification(loss))
    assert shapes == {((20, 3, 12, 12), (20, 3), (20,))}
    assert history.last.loss < history.epochs[0].loss


def test_each_epoch_is_saved_with_all_that_using_it_takes(net, tiny, tmp_path):
    blank = copy.deepcopy(net)
    history = train(net, tiny, QUICK, out=tmp_path / "runs" / "a", seed=3, test_each_epoch=True)
    again = saved.load(tmp_path / "runs" / "a", model=blank)
    assert same(state(again), state(net))
    assert evaluate(again, tiny.test, tiny) == evaluate(net, tiny.test, tiny)
    about = saved.read_config(tmp_path / "runs" / "a")["about"]
    assert (
        about["classes"] == ["standing", "lying", "none"]
        and Preprocess.from_dict(about["preprocess"]) == tiny.preprocess
    )
    assert about["metrics"]["test_accuracy"] == history.last.test_accuracy
    assert Recipe.from_dict(about["training"]["recipe"]) == QUICK and about["training"]["seed"] == 3
    assert len(about["training"]["epochs"]) == 2


def test_an_interrupt_leaves_the_last_whole_epoch(net, tiny, tmp_path, capsys):
    weights = []

    def interrupt(epoch):
        weights.append(state(net))
        if epoch.number == 2:
            raise KeyboardInterrupt

    blank, half = copy.deepcopy(net), copy.deepcopy(net)
    with pytest.raises(KeyboardInterrupt):
        train(net, tiny, Recipe(epochs=5, batch_size=20), out=tmp_path, after_epoch=interrupt)
    assert same(state(saved.load(tmp_path, model=blank)), weights[1])
    said = " ".join(capsys.readouterr().err.split())
    assert (
        f"Stopped in epoch 3 after step 0 of 6: {tmp_path}/checkpoints/00000012.safetensors holds the run" in said
    )
    assert not net.training

    calls = []

    def interrupt_within(inputs, logits, labels):
        calls.append(1)
        if len(calls) == 9:  # in the second epoch of six steps
            raise KeyboardInterrupt
        return torch.nn.functional.cross_entropy(logits, labels)

    with pytest.raises(KeyboardInterrupt):
        train(
            half, tiny, Recipe(epochs=5, batch_size=20), out=tmp_path / "b", task=Classification(interrupt_within)
        )
    assert saved.read_config(tmp_path / "b")["about"]["metrics"]["number"] == 1


def test_a_loss_that_is_no_number_stops_the_run_before_it_harms_the_weights(net, tiny, tmp_path):
    def loss(inputs, logits, labels):
        calls.append(1)
        return logits.mean() * (float("nan") if len(calls) == 9 else 1)

    calls, blank = [], copy.deepcopy(net)
    with pytest.raises(RunError, match=r"loss became nan in step 3 of epoch 2; .* after 6 steps: .* below 0\.2"):
        train(net, tiny, QUICK, out=tmp_path, task=Classification(loss))
    assert all(value.isfinite().all() for value in net.state_dict().values())
    saved.load(tmp_path, model=blank)


def test_progress_goes_to_stderr_and_silence_is_silence(net, tiny, capfd):
    train(net, tiny, QUICK)
    out, err = capfd.readouterr()
    assert out == "" and "epoch 2/2  loss" in err and "images/s" in err
    train(net, tiny, QUICK, progress=False)
    assert capfd.readouterr() == ("", "")


def test_what_is_refused_before_any_training(net, tiny, tmp_path):
    before = state(net)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Can't write"):
        train(net, tiny, QUICK, out=tmp_path / "file")
    with pytest.raises(InputError, match="create it with num_classes=3"):
        train(net[:6], tiny, QUICK)
    with pytest.raises(InputError, match="no device 'tpu'"):
        train(net, tiny, QUICK, compute=Compute("tpu"))
    assert same(state(net), before)
