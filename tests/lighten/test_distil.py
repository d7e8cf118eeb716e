"""Distilling: what is learnt, and how the weights move."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convlite.kernels import trained
from convlite.lighten import distil
from convlite.lighten.answers import answers
from convlite.lighten.descent import SCHEDULE, Descent
from convlite.lighten.distil import RATES, distance, distil_, rate_for


def test_what_is_nearer_is_distilled_at_a_smaller_rate_and_what_is_long_at_a_larger():
    rates = [rate_for(error, 400) for error in (0.0, 0.04, 0.2, 1.0, 1e6)]
    assert rates == sorted(rates) and (rates[0], rates[-1]) == RATES
    assert rates[1] == pytest.approx(6e-4) == rate_for(0.04, 1)
    assert rate_for(0.01, 1600) == pytest.approx(2 * rate_for(0.01, 400))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), channels=st.integers(1, 9), apart=st.sampled_from([0.0, 1e-6, 1.0, 1e6]))
def test_the_distance_is_the_mean_squared_error_and_its_gradient_lies_in_memory_as_what_was_given(
    seed, channels, apart
):
    torch.manual_seed(seed)
    a = torch.randn(3, channels, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    b = a.detach() + apart * torch.randn(3, channels, 4, 5)
    exact = a.detach().double().requires_grad_()
    (found,) = torch.autograd.grad(distance(a, b), a)  # as it comes: what is kept in `a.grad` is laid out as `a`
    F.mse_loss(exact, b.double()).backward()
    torch.testing.assert_close(distance(a, b).double(), F.mse_loss(exact, b.double()), rtol=1e-5, atol=0)
    torch.testing.assert_close(found.double(), exact.grad, rtol=1e-4, atol=1e-6 * apart)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_a_distance_in_half_precision_is_no_larger_than_its_mean():
    a = torch.ones(16, 16, 32, 32, dtype=torch.float16)  # 262,144 numbers: their sum is too large
    assert float(distance(a, torch.zeros_like(a))) == pytest.approx(1, rel=1e-2)


def mirrored(x, generator):
    """Half of the images."""
    turned = torch.rand(len(x), generator=generator) < 0.5
    return torch.where(turned.view(-1, 1, 1, 1), x.flip(3), x)


def lopsided():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    ).eval()  # fmt: skip


def test_the_original_answers_to_what_its_pupil_sees():
    original, images = lopsided(), torch.randn(128, 3, 8, 8)
    light, seen = copy.deepcopy(original), []
    known = answers(original, images)
    for net in (original, light):
        net.register_forward_pre_hook(lambda _, args: seen.append(args[0].clone()))
    distil_(light, original, known, epochs=4, augment=mirrored)
    steps = seen[-16:]  # of both networks, 64 images each
    assert all(torch.equal(theirs, ours) for theirs, ours in zip(steps[::2], steps[1::2]))
    shown = [image.numpy().tobytes() for batch in steps[::2] for image in batch]
    for some in (images, images.flip(3)):
        some = {image.numpy().tobytes() for image in some}
        assert 128 < sum(image in some for image in shown) < 384  # of 512


class Asked(nn.Module):
    """Notes in which precision it is asked, and does then as told."""

    def __init__(self, then):
        super().__init__()
        self.net, self.then, self.half = lopsided(), then, []

    def forward(self, x):
        self.half.append(torch.is_autocast_enabled("cpu"))
        return self.then(self.net(x)) if self.half[-1] else self.net(x)


def refuse(out):
    raise TypeError("bf16?")


@pytest.mark.parametrize(
    ("then", "has", "half"),
    [
        (lambda out: out, True, True),
        (lambda out: out, False, False),
        (refuse, True, False),
        (torch.zeros_like, True, False),
    ],
)
def test_the_original_answers_in_half_precision_where_that_is_fast_and_right(monkeypatch, then, has, half):
    monkeypatch.setattr(distil, "has", lambda feature: has)
    original, images = Asked(then).eval(), torch.randn(128, 3, 8, 8)
    known, light = answers(original, images), Asked(refuse)
    nn.init.zeros_(light.net[-1].weight)
    before = known.error(light)
    distil_(light, original, known, epochs=40, blocks=["net.2"])
    assert original.half[-1] is half  # of the last step
    assert known.error(light) < 0.5 * before and all(p.dtype == torch.float32 for p in light.parameters())


def test_layers_of_small_maps_are_products_in_the_original_and_the_light_network(monkeypatch):
    torch.manual_seed(0)
    original = nn.Sequential(nn.Conv2d(256, 256, 3, padding=1), nn.Flatten(), nn.Linear(1024, 5)).eval()
    images, taught, apply = torch.randn(128, 256, 2, 2), [], trained.Product.apply
    monkeypatch.setattr(trained.Product, "apply", lambda *given: taught.append(given) or apply(*given))
    monkeypatch.setattr(distil, "has", lambda feature: False)
    light = copy.deepcopy(original)
    distil_(light, original, answers(original, images), epochs=1, blocks=[])
    assert len(taught) == 1 + 2 * 2, "a look at the original, then two steps of both"


def test_kernels_learn_by_muon_and_the_rest_by_adamw():
    """Each as by torch's own optimiser of it, with rates that rise and fall to nearly nothing."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(6, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1), nn.Flatten())
    net = net.to(memory_format=torch.channels_last)
    twin = copy.deepcopy(net)
    kernels = [nn.Parameter(twin[i].weight.detach().flatten(1).clone()) for i in (0, 2)]
    rest = [twin[0].bias, *twin[1].parameters(), twin[2].bias]
    rate, steps = 1e-2, 20
    muon = torch.optim.Muon(kernels, lr=rate, weight_decay=1e-4, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, lr=rate, weight_decay=1e-4)
    descent = Descent(net, rate, steps)
    for step in range(steps):
        before = [p.detach().clone() for p in net.parameters()]
        x = torch.randn(5, 6, 6, 6)
        for each in (net, twin):
            each.zero_grad()
            each(x).square().sum().backward()
        for i, kernel in zip((0, 2), kernels):
            kernel.grad = twin[i].weight.grad.flatten(1)
        for optimiser in (muon, adamw):
            optimiser.param_groups[0]["lr"] = rate * SCHEDULE.rate_at((step + 0.5) / steps)
            optimiser.step()
        for i, kernel in zip((0, 2), kernels):
            twin[i].weight.data.copy_(kernel.view_as(twin[i].weight))
        descent.step()
        for ours, theirs in zip(net.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert all((p - old).abs().max() < 1e-3 for p, old in zip(net.parameters(), before))
    descent.forget()
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("train", [nn.Conv2d(3, 4, 1, bias=False), nn.Linear(3, 4)], ids=["kernels", "rest"])
def test_one_of_the_two_ways_to_learn_may_have_nothing_to_do(train):
    before = train.weight.detach().clone()
    descent = Descent(train, 1e-2, 2)
    train.weight.grad = torch.ones_like(train.weight)
    descent.step()
    assert not torch.equal(train.weight, before)


class Spectral(nn.Module):
    """A convolution, then a filter with complex weights."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.filter = nn.Parameter(torch.ones(4, 1, 1, dtype=torch.complex64))

    def forward(self, x):
        return torch.fft.ifft2(torch.fft.fft2(self.conv(x)) * self.filter).real.mean((2, 3))


def test_complex_weights_are_distilled_too():
    torch.manual_seed(0)
    original = Spectral().eval()
    light = copy.deepcopy(original)
    light.conv.weight.data *= 0.5
    known = answers(original, torch.randn(64, 3, 8, 8))
    before = known.error(light)
    distil_(light, original, known, epochs=2)
    assert known.error(light) < before
