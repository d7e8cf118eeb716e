"""Putting other convolutions in the place of those a network has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..errors import InputError
from ..kinds import Kind, conv_of

Build = Callable[[str, nn.Conv2d, Kind], nn.Module]
"""Makes the new module from the path, the old convolution and the kind."""


def spec(net: nn.Module) -> dict[str, Any]:
    """What is known of how `net` came to be: the `create` call, and the kinds put in since, by path."""
    known: dict[str, Any] | None = getattr(net, "_convlite", None)
    return known or {"create": None, "replaced": {}}


def new_layer(path: str, old: nn.Conv2d, kind: Kind) -> nn.Module:
    """A module of that kind in `old`'s sizes, device and dtype, with torch's own initial weights."""
    return kind.build(conv_of(old), device=old.weight.device, dtype=old.weight.dtype)


def replace_(net: nn.Module, kinds: Mapping[str, Kind], build: Build = new_layer) -> nn.Module:
    """Put a module of the given kind in the place of each convolution named by its path, in place.

    A convolution that stands in several places is replaced in all of them by one module.

    Arguments:
        kinds: path (as in `net.named_modules()`) → kind.
        build: makes the new modules; plain untrained ones where left out.

    Returns:
        `net`, or the new module where `net` itself is the convolution.

    Raises:
        InputError: a path that is no `nn.Conv2d`, or a kind that can't stand there; nothing is replaced then.
    """
    modules = dict(net.named_modules())
    fresh: dict[nn.Module, nn.Module] = {}
    for path, kind in kinds.items():
        old = modules.get(path)
        if not isinstance(old, nn.Conv2d):
            found = f"a {type(old).__name__}" if old is not None else "no module"
            raise InputError(f"Expected an nn.Conv2d at {path!r} of {type(net).__name__}, found {found}.")
        fresh[old] = build(path, old, kind).train(old.training)
    known = spec(net)
    net._convlite = {  # type: ignore[assignment]
        "create": known["create"],
        "replaced": known["replaced"] | {path: kind.to_dict() for path, kind in kinds.items()},
    }
    for parent in modules.values():
        for name, child in list(parent._modules.items()):  # named_children() would skip a second name
            if child in fresh:
                setattr(parent, name, fresh[child])
    return fresh.get(net, net)
