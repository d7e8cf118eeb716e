"""Networks are timed beside each other on what can run all of them."""

import pytest
import torch
from torch import nn

from convlite import kernels
from convlite.runtime import sides


def conv():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()


class Untraceable(nn.Module):
    """Its way depends on what is in the image."""

    def forward(self, x):
        return x if float(x.sum()) > 0 else x + 1


@pytest.mark.skipif(kernels.why_not() is not None, reason=str(kernels.why_not()))
def test_every_network_is_timed_in_torch_and_on_the_kernels():
    found = sides.times({"one": conv(), "other": conv()}, (3, 8, 9), (1, 4), seconds=0.05)
    whats = ["1 image, torch", "1 image, our kernels", "4 images, torch", "4 images, our kernels"]
    assert {name: list(each) for name, each in found.items()} == {"one": whats, "other": whats}
    assert all(each["median"] > 0 for side in found.values() for each in side.values())


def test_what_the_kernels_cannot_run_is_timed_in_torch_alone():
    net, training = Untraceable(), conv().train()
    said = []
    found = sides.times({"dense": training, "light": net}, (3, 8, 9), seconds=0.05, tell=said.append)
    assert len(said) == 1 and "torch.export can't trace Untraceable" in said[0]
    assert list(found["dense"]) == list(found["light"]) == ["1 image, torch"]
    assert training.training and torch.is_grad_enabled()


def test_without_a_compiler_torch_is_left(monkeypatch):
    monkeypatch.setattr(sides, "why_not", lambda engine: "no compiler")
    said = []
    assert list(sides.times({"a": conv()}, (3, 8, 8), seconds=0.05, tell=said.append)["a"]) == ["1 image, torch"]
    assert said == ["Not timed on convlite's own kernels: no compiler."]
