"""The same networks in other libraries, and the ways to compare ours with them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.library import Library

from convlite.models import FAMILIES, create

# torchvision's compiled operators must match the torch that is installed. Where they don't, importing it
# fails for want of these two schemas, though no network needs them.
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@functools.cache
def _torchvision() -> tuple[ModuleType, Library | None]:
    folder = Path(find_spec("torchvision").submodule_search_locations[0])
    library = None
    try:
        for compiled in folder.glob("_C*"):
            torch.ops.load_library(compiled)
    except OSError:
        library = Library("torchvision", "DEF")  # the schemas live as long as it does
        for schema in SCHEMAS:
            library.define(schema)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torchvision
    return torchvision, library


def timm(name: str, **options: Any) -> nn.Module:
    """A network of timm's, without trained weights."""
    _torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm

        return bare(timm.create_model, name, pretrained=False, **options)


def said(name: str) -> dict[str, Any]:
    """How timm prepares images for a network's published weights."""
    _torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm

        return timm.get_pretrained_cfg(name).to_dict()


def transforms(**said: Any) -> Callable[[Any], Tensor]:
    """How timm turns a picture into what a network takes, when it evaluates."""
    _torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm.data

        return timm.data.create_transform(**timm.data.resolve_data_config(said))


def torchvision(name: str, **options: Any) -> nn.Module:
    """A network of torchvision's, without trained weights."""
    return bare(getattr(_torchvision()[0].models, name), weights=None, **options)


def bare(make: Callable[..., nn.Module], *arguments: Any, **options: Any) -> nn.Module:
    """A network whose weights nobody has filled in yet, which saves the time to do so."""
    with torch.device("meta"):
        return make(*arguments, **options).to_empty(device="cpu")


def without_norms(net: nn.Module) -> nn.Module:
    """The same shapes, faster without data: a batch norm changes none."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.forward = nn.Identity()
    return net


def randomise_(net: nn.Module) -> nn.Module:
    """Random weights and batch norms, statistics too, such that signals neither die nor explode."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            bound = (6 / module.weight[0].numel()) ** 0.5
            nn.init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                nn.init.uniform_(module.bias, -0.1, 0.1)
    return net


def tensors(net: nn.Module, first: Iterable[str] = ()) -> list[tuple[str, Tensor]]:
    """The state by position; within a module, children named in `first` come before the others."""
    named: list[tuple[str, Tensor]] = []

    def walk(module: nn.Module, prefix: str) -> None:
        for name, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if name != "num_batches_tracked":
                named.append((prefix + name, value))
        children = dict(module.named_children())
        order = [name for name in first if name in children]
        for name in [*order, *(name for name in children if name not in order)]:
            walk(children[name], f"{prefix}{name}.")

    walk(net, "")
    return named


def difference(ours: nn.Module, peer: nn.Module, size: int) -> float:
    """Largest difference of the logits, relative to the largest logit."""
    x = torch.rand(1, 3, size, size) * 2 - 1
    with torch.no_grad():
        expected, given = peer.eval()(x), ours.eval()(x)
    return float((expected - given).abs().max() / expected.abs().max())


def count(name: str, **arguments: Any) -> tuple[int, int]:
    """Trainable parameters, and multiply-accumulates at the default input, from the shapes that a layer sees."""
    macs = 0

    def see(layer: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal macs
        macs += output.numel() * layer.weight[0].numel()

    with torch.device("meta"), torch.no_grad():
        net = without_norms(create(name, **arguments).eval())
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(see)
        net(torch.empty(1, *FAMILIES[name].input))
    return sum(p.numel() for p in net.parameters() if p.requires_grad), macs
