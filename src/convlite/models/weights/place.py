"""Tensors into a network, by their position and shape."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...errors import InputError
from ...preprocess import Preprocess
from ..backbone import Backbone
from .layouts import is_auxiliary

Mode = Literal["timm", "keras"]
OWN = "convlite"


@dataclass(frozen=True)
class Checkpoint:
    """The named tensors of a file, in the order of the layers; `source` names it in messages."""

    source: str
    layout: str
    state: Mapping[str, Tensor]
    mode: Mode
    preprocess: Preprocess | None = None


def by_position(net: Backbone) -> dict[str, Tensor]:
    """The parameters and statistics of a network, layer after layer."""
    return {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}


def place(net: Backbone, checkpoint: Checkpoint) -> tuple[dict[str, str], list[str]]:
    """Fill the network; all of what stands before its head, or nothing.

    Returns:
        {tensor in the file: why it was left out}, and the network's tensors that nothing filled.

    Raises:
        InputError: the file belongs to another network.
    """
    mine = by_position(net)
    pairs = dict(_pairs(mine, checkpoint))
    first = next(iter(mine))
    fits, left_out = {}, {}
    for name, other in pairs.items():
        value = checkpoint.state[other]
        if name == first:
            value = _channels(value, mine[name])
        if _fits(value, mine[name]):
            fits[name] = value.reshape(mine[name].shape)
        else:
            left_out[other] = f"{tuple(value.shape)} in the file, {tuple(mine[name].shape)} in the network"
    lacking = [name for name in mine if _is_body(name) and name not in fits]
    unused = [name for name in checkpoint.state if name not in pairs.values()]
    if lacking or not _is_head(unused, checkpoint):
        raise _foreign(net, checkpoint, lacking, unused)
    left_out |= dict.fromkeys(unused, "the network has no such layer")
    with torch.no_grad():
        for name, value in fits.items():
            mine[name].copy_(value)
    return left_out, [name for name in mine if name not in fits]


def _pairs(mine: Mapping[str, Tensor], checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """(our name, the file's): by name in our own files, by position in others, part by part."""
    state = checkpoint.state
    if checkpoint.layout == OWN:
        yield from ((name, name) for name in mine if name in state)
        return
    aux = [name for name in state if is_auxiliary(name)]
    main = [name for name in state if not is_auxiliary(name)]
    ends = len(main) - 2 if len(main) > 1 and state[main[-2]].dim() == 2 else len(main)
    body = [name for name in mine if _is_body(name)]
    hidden = [name for name in mine if name.startswith("head.hidden.")]
    yield from zip(body, main[:ends])
    if len(body) + len(hidden) == ends:
        yield from zip(hidden, main[len(body) : ends])
    yield from zip((name for name in mine if name.startswith("head.classifier.")), main[ends:])
    yield from zip((name for name in mine if is_auxiliary(name)), aux)


def _is_body(name: str) -> bool:
    return not name.startswith(("head.", "aux."))


def _is_head(names: Sequence[str], checkpoint: Checkpoint) -> bool:
    """Whether these tensors of the file are what a network without classifier or auxiliary heads lacks."""
    if checkpoint.layout == OWN:
        return not any(_is_body(name) for name in names)
    main = [name for name in names if not is_auxiliary(name)]
    # at most the classifier and two layers before it, which have no batch norms
    return len(main) <= 6 and not any(name.endswith("running_var") for name in main)


def _fits(value: Tensor, place: Tensor) -> bool:
    """The same shape, but for a 1×1 or whole-map convolution written as a linear layer, or the reverse."""
    if value.shape == place.shape:
        return True
    flat = 2 in (value.dim(), place.dim())
    return flat and value.shape[:1] == place.shape[:1] and value.numel() == place.numel()


def _channels(value: Tensor, place: Tensor) -> Tensor:
    """The first kernel for another number of input channels, so that a grey image gives what it gave."""
    if value.dim() != 4 or value.shape[:1] + value.shape[2:] != place.shape[:1] + place.shape[2:]:
        return value
    given, wanted = value.shape[1], place.shape[1]
    if wanted == 1:
        return value.sum(1, keepdim=True)
    return value.repeat(1, -(-wanted // given), 1, 1)[:, :wanted] * (given / wanted)


def _foreign(net: Backbone, checkpoint: Checkpoint, lacking: list[str], unused: list[str]) -> InputError:
    name = net._convlite["create"]["name"] if hasattr(net, "_convlite") else "the network"
    what = (
        f"it has nothing that fits {_listed(lacking)}" if lacking else f"{name} has no place for {_listed(unused)}"
    )
    return InputError(
        f"{checkpoint.source} does not belong to {name}: {what}; the nearest network is {_nearest(checkpoint)!r}."
    )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _nearest(checkpoint: Checkpoint) -> str:
    """The network that shares most shapes with the file."""
    given = _shapes(checkpoint.state)
    alike = {name: (given & known).total() / (given | known).total() for name, known in _families().items()}
    return max(alike, key=lambda name: alike[name])


@functools.cache
def _families() -> dict[str, Counter[tuple[int, ...]]]:
    from .. import FAMILIES, create  # the families come with the package that imports this file

    with torch.device("meta"):
        return {name: _shapes(by_position(create(name))) for name in FAMILIES}


def _shapes(state: Mapping[str, Tensor]) -> Counter[tuple[int, ...]]:
    return Counter(tuple(value.squeeze().shape) for value in state.values())
