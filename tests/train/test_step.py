"""Optimisers, averages, rates by layer and parts of a step, against what they are defined as."""

import copy
import dataclasses
from functools import partial

import pytest
import torch
from bars import network

from convlite.errors import InputError, RunError
from convlite.models import create
from convlite.train import Classification, Compute, Recipe, find_batch_size, train
from convlite.train import memory as memory_
from convlite.train.average import Average
from convlite.train.optimise import groups, set_rate
from convlite.train.optimise import optimiser as make

ONE = Recipe(epochs=1, batch_size=200, warmup=0, schedule="constant", shift=0, rate=0.05, label_smoothing=0.0)


def fit(net, data, recipe=ONE, **options):
    return train(net, data, recipe, progress=False, **options)


def plain():
    return network(dropout=0.0, norm=torch.nn.Identity)


def small():
    torch.manual_seed(0)
    return create("xception_small", num_classes=3, width=0.25, depth=1)


@pytest.mark.parametrize(
    ("name", "settings", "made"),
    [
        ("sgd", {"momentum": 0.8}, lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.8)),
        (
            "rmsprop",
            {"epsilon": 1.0},
            lambda p: torch.optim.RMSprop(p, lr=0.05, alpha=0.9, eps=1.0, momentum=0.9),
        ),
        ("adamw", {"epsilon": 1e-6}, lambda p: torch.optim.AdamW(p, lr=0.05, eps=1e-6, weight_decay=0)),
    ],
)
def test_optimisers_are_torchs_own(tiny, name, settings, made):
    recipe = dataclasses.replace(ONE, epochs=4, weight_decay=0.0, optimiser=name, **settings)
    net, twin = plain(), plain()
    fit(net, tiny, recipe)
    other = made(twin.parameters())
    for _ in range(4):
        other.zero_grad()
        torch.nn.functional.cross_entropy(twin(tiny.normalise(tiny.train.pixels)), tiny.train.labels).backward()
        other.step()
    for one, two in zip(net.parameters(), twin.parameters()):
        torch.testing.assert_close(one, two, atol=2e-4, rtol=2e-3)


def test_parts_of_a_step_add_up_to_it(tiny):
    whole, parts = plain(), plain()
    recipe = dataclasses.replace(ONE, epochs=2, batch_size=50)
    first = fit(whole, tiny, recipe)
    second = fit(parts, tiny, dataclasses.replace(recipe, accumulate=7))
    assert second.last.loss == pytest.approx(first.last.loss)
    for one, two in zip(whole.parameters(), parts.parameters()):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-4)


def test_long_gradients_are_cut(tiny):
    moves = []
    for clip in (0.0, 1e-3, 2e-3):
        net = plain()
        before = copy.deepcopy(net)
        fit(net, tiny, dataclasses.replace(ONE, clip=clip, momentum=0.0, weight_decay=0.0))
        difference = [(a - b).detach().flatten() for a, b in zip(net.parameters(), before.parameters())]
        moves.append(float(torch.cat(difference).norm()))
    assert moves[0] > moves[2]
    assert moves[1:] == pytest.approx([0.05 * 1e-3, 0.05 * 2e-3], rel=1e-3)


def test_the_average_is_the_plain_recursion_and_leaves_the_network_alone(net):
    average, source = Average(net, 0.8), torch.Generator().manual_seed(0)
    expected = {name: t.double() for name, t in net.state_dict().items() if t.is_floating_point()}
    for step in range(1, 9):
        with torch.no_grad():
            for tensor in net.parameters():
                tensor.add_(torch.randn(tensor.shape, generator=source))
        average.update(net)
        decay = min(0.8, (1 + step) / (10 + step))
        for name in expected:
            expected[name] = decay * expected[name] + (1 - decay) * net.state_dict()[name].double()
    before = copy.deepcopy(net.state_dict())
    with average.within(net):
        for name, value in expected.items():
            torch.testing.assert_close(net.state_dict()[name].double(), value, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_an_averaged_run_ends_with_the_average_and_measures_it(net, tiny):
    seen = []

    class Watching(Classification):
        def measure(self, model, images, data, *, progress=True):
            seen.append(copy.deepcopy(model.state_dict()))
            return super().measure(model, images, data, progress=progress)

    recipe = dataclasses.replace(ONE, epochs=3, batch_size=20, average=0.9)
    raw = copy.deepcopy(net)
    fit(net, tiny, recipe, task=Watching(), test_each_epoch=True)
    fit(raw, tiny, dataclasses.replace(recipe, average=0.0))
    assert all(torch.equal(value, seen[-1][name]) for name, value in net.state_dict().items())
    assert not torch.equal(net[0].weight, raw[0].weight)


def test_rates_fall_from_the_head_inwards():
    net = small()
    optimiser = make(net, Recipe(layer_decay=0.5, weight_decay=0.1))
    set_rate(optimiser, 0.8)
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    paths = [path for path, _ in net.steps()]
    for i, (_, step) in enumerate(net.steps()):
        assert {rates[id(p)] for p in step.parameters()} <= {0.8 * 0.5 ** (len(paths) - i)}
    assert {rates[id(p)] for p in net.head.parameters()} == {0.8}
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(list(net.parameters()))
    with pytest.raises(InputError, match="layers come in a known order"):
        groups(network(), Recipe(layer_decay=0.5))


def test_dense_weights_decay_and_nothing_else():
    net = small()
    decayed, free = (
        {name for name, p in net.named_parameters() if any(p is q for q in group["params"])}
        for group in groups(net, Recipe(weight_decay=0.1))
    )
    assert decayed == {name for name, p in net.named_parameters() if p.dim() > 1 and "depthwise" not in name}
    assert any("depthwise.weight" in name for name in free) and not decayed & free


def test_frozen_steps_stay_as_they_are_with_their_norms(tiny):
    net = small()
    net.freeze("entry")
    before = copy.deepcopy(net.entry.state_dict())
    last = copy.deepcopy(net.exit.state_dict())
    fit(net, tiny, dataclasses.replace(ONE, average=0.9))
    assert all(torch.equal(value, before[name]) for name, value in net.entry.state_dict().items())
    assert not all(torch.equal(value, last[name]) for name, value in net.exit.state_dict().items())
    net.requires_grad_(False)
    with pytest.raises(InputError, match="nothing to train"):
        fit(net, tiny)


def test_recomputed_activations_change_nothing(tiny):
    nets = [small(), small()]
    fit(nets[0], tiny, dataclasses.replace(ONE, batch_size=40))
    fit(nets[1], tiny, dataclasses.replace(ONE, batch_size=40), compute=Compute(recompute=True))
    for name, tensor in nets[0].named_parameters():
        torch.testing.assert_close(nets[1].get_parameter(name), tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_with_whole_weights(net, tiny, precision):
    seen = set()

    class Watching(Classification):
        def loss(self, inputs, logits, targets, smoothing):
            seen.add(logits.dtype)
            return super().loss(inputs, logits, targets, smoothing)

    types = set()
    net[9].register_forward_hook(lambda module, x, y: types.add(y.dtype) if module.training else None)
    recipe = Recipe(epochs=6, batch_size=20, rate=0.2, shift=1)
    history = fit(net, tiny, recipe, compute=Compute("cpu", precision), task=Watching(), test_each_epoch=True)
    assert types == {torch.bfloat16 if precision == "bf16" else torch.float16} and seen == {torch.float32}
    assert {tensor.dtype for tensor in net.parameters()} == {torch.float32}
    assert history.last.test_accuracy > 0.85


def test_a_compiled_step_is_the_same_step(net, tiny, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # the others need minutes
    twin = copy.deepcopy(net)
    for each, compiled in ((net, True), (twin, False)):
        fit(each, tiny, dataclasses.replace(ONE, batch_size=60), compute=Compute("cpu", compile=compiled))
    assert net.state_dict().keys() == twin.state_dict().keys()
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, twin.state_dict()[name])


def test_what_can_not_be_computed(net, tiny):
    with pytest.raises(InputError, match="no precision 'fp8'"):
        Compute(precision="fp8")
    with pytest.raises(InputError, match="Only the families can recompute"):
        fit(net, tiny, compute=Compute(recompute=True))
    with pytest.raises(InputError, match="only in the families"):
        fit(net, tiny, dataclasses.replace(ONE, dropout=0.5))


@pytest.mark.parametrize("real", [True, False])
def test_too_little_memory_names_a_batch_that_may_fit(net, tiny, real):
    def loss(inputs, logits, labels):
        if real:
            torch.empty(1 << 60)
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(RunError, match=r"200 images does not fit .* a batch of 64, or accumulate=4 "):
        fit(net, tiny, task=Classification(loss))


def test_the_batch_that_fits_grows_with_the_memory(net, tiny, monkeypatch):
    before = copy.deepcopy(net.state_dict())
    found = []
    for free in (1, 3e5, 6e5, 1.2e6, 1e12):
        monkeypatch.setattr(memory_, "_free", lambda device, free=free: int(free))
        if free == 1:
            with pytest.raises(RunError, match="Not even one image"):
                find_batch_size(net, tiny, ONE)
        else:
            found.append(find_batch_size(net, tiny, ONE))
    assert found[1:3] == [2 * found[0], 4 * found[0]] and found[3] == 64  # of 120 images
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_batch_size_is_halved_until_a_step_fits(net, tiny, monkeypatch):
    monkeypatch.setattr(memory_, "_free", lambda device: 1 << 40)
    monkeypatch.setattr(memory_, "TRUSTED", ())
    tried = []

    def fits(model, data, machine, size):
        tried.append(size)
        return size <= 16

    monkeypatch.setattr(memory_, "_fits", fits)
    assert find_batch_size(net, tiny, ONE) == 16 and tried == [64, 32, 16]
