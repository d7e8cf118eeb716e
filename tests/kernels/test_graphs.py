"""Recorded steps of learning do what the steps themselves do. All but the refusals need a GPU."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import convlite as cl
from convlite.data import load
from convlite.errors import InputError, RunError
from convlite.kernels import Recorded
from convlite.lighten import distil
from convlite.train import Compute, Recipe, seed_everything, train

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
RECIPE = Recipe(epochs=2, batch_size=100, shift=1, first_size=0.6)


def network():
    seed_everything(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 5),
    ).to("cuda")  # fmt: skip


def learning(net):
    def learn(x, labels):
        loss = F.cross_entropy(net(x), labels)
        loss.backward()
        return (loss.detach(),)

    return learn


def steps(net, learn, sizes):
    """Losses, gradients and buffers of steps on images of these sizes, with the weights moved in each."""
    source, found = torch.Generator("cuda").manual_seed(1), []
    for size in sizes:
        x = torch.randn(9, 3, size, size, device="cuda", generator=source)
        labels = torch.randint(5, (9,), device="cuda", generator=source)
        net.zero_grad()
        (loss,) = learn(x, labels)
        found += [loss.clone(), *(p.grad.clone() for p in net.parameters()), *(b.clone() for b in net.buffers())]
        with torch.no_grad():
            for parameter in net.parameters():
                parameter -= 0.1 * parameter.grad
    return found


def close(ours, theirs):
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@on_gpu
def test_they_leave_the_same_gradients_and_statistics():
    sizes = (8, 8, 12, 8, 12, 12)
    recorded, plain = network(), network()
    close(steps(recorded, Recorded(recorded, learning(recorded)), sizes), steps(plain, learning(plain), sizes))


@on_gpu
def test_random_numbers_are_new_in_each_step_and_come_from_the_seed():
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 5)).to("cuda")
    learn, x, labels = Recorded(net, learning(net)), torch.ones(3, 3, 4, 4, device="cuda"), torch.zeros(3).long()

    def losses():
        torch.manual_seed(5)
        return [float(learn(x, labels.to("cuda"))[0]) for _ in range(3)]

    first = losses()
    assert len(set(first)) == 3
    assert losses() == first


@on_gpu
def test_what_looks_at_its_numbers_is_refused_and_leaves_all_as_it_was():
    net = network()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}

    def looking(x, labels):
        (loss,) = learning(net)(x, labels)
        return (loss * float(loss),)

    x, labels = torch.randn(9, 3, 8, 8, device="cuda"), torch.zeros(9, dtype=torch.int64, device="cuda")
    with pytest.raises(RunError, match="can't be recorded"):
        Recorded(net, looking)(x, labels)
    close(list(net.state_dict().values()), list(before.values()))
    close(list(learning(net)(x, labels)), list(Recorded(net, learning(net))(x, labels)))


@on_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("changes", [{}, {"mixup": 0.2, "clip": 1.0, "optimiser": "adamw", "rate": 0.002}])
def test_training_learns_the_same(precision, changes):
    data, histories, nets = load(progress=False), [], []
    data = replace(data, train=data.train[:650], test=data.test[:100])
    for graphs in (False, True):
        seed_everything(0)
        nets.append(cl.create("resnet20", num_classes=10))
        compute = Compute("cuda", precision, graphs=graphs)
        histories.append(train(nets[-1], data, replace(RECIPE, **changes), compute=compute, progress=False))
    plain, recorded = histories
    for ours, theirs in zip(recorded.epochs, plain.epochs, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=0.05)
    if precision == "fp32" and not changes:
        for ours, theirs in zip(nets[1].parameters(), nets[0].parameters(), strict=True):
            assert (ours - theirs).norm() <= 0.05 * theirs.norm() + 1e-3


@on_gpu
@pytest.mark.parametrize("labelled", [False, True])
def test_distilling_learns_the_same(monkeypatch, labelled):
    class Counted(Recorded):
        def __call__(self, *inputs):
            found = super().__call__(*inputs)
            replayed.append(1)
            return found

    def refused(*_):
        raise RunError("not now")

    replayed = []
    seed_everything(0)
    net = cl.create("resnet20", num_classes=10).to("cuda").eval()
    images = torch.randn(128, 3, 16, 16)
    batches = [(images, torch.randint(10, (128,)))] if labelled else images
    known = cl.study(net, batches, labelled=labelled)
    lights = []
    for way in (Counted, refused):
        monkeypatch.setattr(distil, "Recorded", way)
        lights.append(cl.lighten(known, None, cl.Budget(macs=0.4), distil=3).model)
    assert len(replayed) > 3, "the first was not recorded, and both went the plain way"
    for ours, theirs in zip(*(light.parameters() for light in lights), strict=True):
        assert (ours - theirs).norm() <= 1e-2 * theirs.norm() + 1e-4


@pytest.mark.parametrize("how", [{"compile": True}, {"recompute": True}])
def test_a_step_is_recorded_or_changed_otherwise(how):
    with pytest.raises(InputError, match="leave graphs out"):
        Compute(graphs=True, **how)


def test_recording_is_refused_where_it_can_not_be():
    with pytest.raises(InputError, match="on cuda"):
        train(cl.create("resnet20", num_classes=10), load(), compute=Compute("cpu", graphs=True), progress=False)
