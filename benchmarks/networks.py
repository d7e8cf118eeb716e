"""The networks that the cost benchmarks run on, and what they must come to.

The tests' own: published figures, toys with hand-derived counts, and timm's networks, whose reference is the shapes
that their layers see in a real run.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import convlite as cl
from convlite.analyse.inputs import is_shape

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "models"), str(TESTS / "analyse")]

import peers  # noqa: E402
from published import PUBLISHED  # noqa: E402
from reference import macs_by_shapes  # noqa: E402
from toys import Toy, toys  # noqa: E402

peers._torchvision()  # as `peers` does it, since other tools import it plainly

SIZES = {
    "xception": 299, "resnet50": 224, "mobilenet_v2": 224, "tf_efficientnet_b0": 224, "convnext_tiny": 224,
    "vit_small_patch16_224": 224, "regnety_016": 224,
}  # fmt: skip


def make(name: str) -> nn.Module:
    """A network of ours or timm's with random weights, in eval mode."""
    net = cl.create(name) if name in PUBLISHED else peers.randomise_(peers.timm(name))
    return net.eval()


def images(name: str, batch: int = 1) -> Tensor:
    """Random images of the size a network takes: (N, 3, H, W)."""
    return torch.rand(batch, 3, SIZES[name], SIZES[name])


def known(name: str) -> Toy:
    """A network by name with its input and its true parameters and multiply-accumulates."""
    net = make(name)
    if name in PUBLISHED:
        params, macs = PUBLISHED[name]
    else:
        params, macs = sum(p.numel() for p in net.parameters()), macs_by_shapes(net, images(name))
    return Toy(net, (images(name),), params, macs)


def toy_networks() -> dict[str, Toy]:
    """The tests' toys in eval mode, with tensors as input; those with named inputs are the same networks again.

    A layer by itself is put into an `nn.Sequential`: some tools look at children only.
    """
    found = {}
    for name, toy in toys().items():
        if not isinstance(toy.input, dict):
            inputs = arguments(toy.input)
            net = toy.net if len(inputs) > 1 else nn.Sequential(toy.net)
            found[name] = Toy(net.eval(), inputs, toy.params, toy.macs)
    return found


def copy_to(net: nn.Module, device: str) -> nn.Module:
    """A copy on the meta device or another; unlike `Module.to`, it keeps parameters that are one."""
    moved = {id(t): nn.Parameter(t.detach().to(device, copy=True)) for t in net.parameters()}
    moved |= {id(t): t.to(device, copy=True) for t in net.buffers()}
    return copy.deepcopy(net, moved)  # what deepcopy need not copy: the original's id, and what it became


def arguments(given: Any) -> tuple[Tensor, ...]:
    """Tensors with data from what `analyse` takes."""
    several = isinstance(given, tuple) and not is_shape(given)
    return tuple(
        one if isinstance(one, Tensor) else torch.rand(1, *one) for one in (given if several else (given,))
    )
