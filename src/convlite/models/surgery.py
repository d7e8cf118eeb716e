"""Putting other convolutions in the place of those a network has."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..kinds import Conv, Kind, LowRank, conv, conv_of

Weighted = nn.Conv2d | nn.Linear
Build = Callable[[str, Weighted, Kind], nn.Module]
"""Makes the new module from the path, the old layer and the kind."""


def spec(net: nn.Module) -> dict[str, Any]:
    """What is known of how `net` came to be: the `create` call, and the kinds put in since, by path."""
    known: dict[str, Any] | None = getattr(net, "_convlite", None)
    return known or {"create": None, "replaced": {}}


def value_of(layer: Weighted) -> Conv:
    """The value of a convolution, or of a linear layer as the 1×1 convolution of its rows."""
    if isinstance(layer, nn.Conv2d):
        return conv_of(layer)
    return conv(c=layer.in_features, m=layer.out_features, k=1, bias=layer.bias is not None)


def new_layer(path: str, old: Weighted, kind: Kind) -> nn.Module:
    """A module of that kind in `old`'s sizes, device and dtype, with torch's own initial weights.

    Raises:
        InputError: the kind can't stand there.
    """
    like: dict[str, Any] = {"device": old.weight.device, "dtype": old.weight.dtype}
    if isinstance(old, nn.Conv2d):
        return kind.build(conv_of(old), **like)
    if not (isinstance(kind, LowRank) and kind.linear and kind.slices == 1):
        raise InputError(f"{kind} can't stand for a linear layer: a LowRank with nothing between can.")
    return nn.Sequential(*(nn.Linear(each.c, each.m, each.bias, **like) for each in kind.layers(value_of(old))))


def replace_(net: nn.Module, kinds: Mapping[str, Kind], build: Build = new_layer) -> nn.Module:
    """Put a module of the given kind in the place of each convolution or linear layer, named by its path.

    That is done in place. A layer that stands in several places is replaced in all of them by one module.

    Arguments:
        kinds: path (as in `net.named_modules()`) → kind.
        build: makes the new modules; plain untrained ones where left out.

    Returns:
        `net`, or the new module where `net` itself is the layer.

    Raises:
        InputError: a path that is neither, or a kind that can't stand there; nothing is replaced then.
    """
    modules = dict(net.named_modules())
    fresh: dict[nn.Module, nn.Module] = {}
    for path, kind in kinds.items():
        old = modules.get(path)
        if not isinstance(old, Weighted):
            found = f"a {type(old).__name__}" if old is not None else "no module"
            raise InputError(
                f"Expected an nn.Conv2d or nn.Linear at {path!r} of {type(net).__name__}, found {found}."
            )
        fresh[old] = build(path, old, kind).train(old.training)
    known = spec(net)
    net._convlite = {  # type: ignore[assignment]
        "create": known["create"],
        "replaced": known["replaced"] | {path: kind.to_dict() for path, kind in kinds.items()},
    }
    return _exchanged(net, fresh)


def as_convs(net: nn.Module, makers: Mapping[type[nn.Module], Callable[[Any], nn.Conv2d]]) -> nn.Module:
    """A copy of `net` in which layers of one's own are the plain convolutions that do the same.

    What knows `nn.Conv2d` alone, such as `lighten`, can then work on them.

    Arguments:
        net: left as it is.
        makers: type of layer → what makes the convolution, with the layer's weights, from such a layer.

    Returns:
        The copy, in eval mode.

    Raises:
        InputError: no layer of these types, or a convolution that answers otherwise than its layer.
    """
    copied = copy.deepcopy(net).eval()
    fresh = {}
    for path, module in copied.named_modules():
        if type(module) in makers:
            fresh[module] = made = makers[type(module)](module)
            if not isinstance(made, nn.Conv2d):
                raise InputError(f"Expected an nn.Conv2d for {path!r}, the maker gave a {type(made).__name__}.")
            _check_same(path, module, made.eval())
    if not fresh:
        raise InputError(f"No layer of {type(net).__name__} is a {' or a '.join(t.__name__ for t in makers)}.")
    return _exchanged(copied, fresh)


def _check_same(path: str, layer: nn.Module, conv: nn.Conv2d) -> None:
    """On random images, small but larger than the kernel."""
    height, width = (16 + k * d for k, d in zip(conv.kernel_size, conv.dilation))
    source = torch.Generator().manual_seed(0)
    x = torch.randn(2, conv.in_channels, height, width, generator=source).to(conv.weight)  # (2, C, H, W)
    try:
        with torch.no_grad():
            wanted, given = layer(x), conv(x)
    except RuntimeError as error:
        raise InputError(f"The layer {path!r} and its convolution can't be compared: {error}") from error
    near = 1e-4 * float(wanted.abs().max())
    if given.shape != wanted.shape or not torch.allclose(given, wanted, rtol=1e-3, atol=near):
        raise InputError(
            f"The convolution made for {path!r} answers otherwise than the {type(layer).__name__}: "
            f"{tuple(given.shape)} and {tuple(wanted.shape)} for images of {tuple(x.shape)}."
        )


def _exchanged(net: nn.Module, fresh: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """`net`, or what stands for it, with modules exchanged wherever they stand."""
    for parent in list(net.modules()):
        for name, child in list(parent._modules.items()):  # named_children() would skip a second name
            if child is not None and child in fresh:
                setattr(parent, name, fresh[child])
    return fresh.get(net, net)
