"""What stands around a convolution: the batch norm after it, and the shortcut that is added to both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .answers import outputs_of

SUMS = {torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.__radd__}
FAINT = 1e-3  # of the largest scale of a norm, below which a channel can't make up for anything


@dataclass(frozen=True)
class Around:
    """Of one convolution.

    Arguments:
        norm: the batch norm that reads its output, by path; "" for none.
        shortcut: the module whose input is added to the convolution's output, after the norm; "" for none.
        scale: (M,), what stands for one unit of the shortcut before the norm; 0 where that lets nothing through.
    """

    norm: str = ""
    shortcut: str = ""
    scale: Tensor | None = None


@contextmanager
def hooked(hooks: Mapping[nn.Module, Callable[..., Any]], *, before: bool = False) -> Iterator[None]:
    """Forward hooks (or pre-hooks) that are gone afterwards, whatever happens."""
    handles = [
        module.register_forward_pre_hook(hook) if before else module.register_forward_hook(hook)
        for module, hook in hooks.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def around(net: nn.Module, paths: Collection[str], images: Tensor) -> dict[str, Around]:
    """What stands around convolutions of `net` (in eval mode), seen in one run; only what runs once counts.

    Arguments:
        paths: of the convolutions.
        images: (N, C, H, W), a few.

    Raises:
        InputError: the network can't take them.
    """
    modules = dict(net.named_modules())
    norms = {
        path: module
        for path, module in modules.items()
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None
    }
    took: list[tuple[str, Tensor]] = []  # by which module; kept, so that no other tensor gets the place of one
    gave: list[tuple[str, Tensor]] = []

    def before(path: str) -> Callable[..., None]:
        return lambda module, args: took.extend((path, each) for each in args[:1] if isinstance(each, Tensor))

    def after(path: str) -> Callable[..., None]:
        return lambda module, args, y: gave.append((path, y))

    ends = {modules[path]: after(path) for path in (*paths, *norms)}
    starts = {module: before(path) for path, module in modules.items()}
    with torch.no_grad(), _Sums() as sums, hooked(starts, before=True), hooked(ends):
        outputs_of(net, images)
    once = {path for path, count in Counter(path for path, _ in took).items() if count == 1}
    read_by = {id(x): path for path, x in took if path in norms and path in once}
    given = {path: y for path, y in gave if path in once}
    found = {}
    for path in paths:
        if path not in given:
            continue
        norm = read_by.get(id(given[path]), "")
        last = given.get(norm, given[path])
        order = [each for each, _ in took]
        earlier = {id(x): each for each, x in took[: order.index(path) + 1] if each in once and each}
        shortcuts = [earlier[id(other)] for other in sums.beside(last) if id(other) in earlier]
        shortcut = shortcuts[0] if len(shortcuts) == 1 else ""
        found[path] = Around(norm, shortcut, _scale(norms.get(norm), last) if shortcut else None)
    return found


def _scale(norm: nn.BatchNorm2d | None, like: Tensor) -> Tensor:  # of maps (N, C, H, W): (C,)
    if norm is None or norm.running_var is None:
        return like.new_ones(like.shape[1])
    slope = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        slope = slope * norm.weight.detach()
    return torch.where(slope.abs() > FAINT * slope.abs().max(), 1 / slope, 0.0)


class _Sums(TorchFunctionMode):
    """Which tensors of one shape were added to which."""

    def __init__(self) -> None:
        super().__init__()
        self._added: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        a, b = args[:2] if func in SUMS and len(args) > 1 else (None, None)
        if isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape:
            self._added.append((a, b))
        return func(*args, **(kwargs or {}))

    def beside(self, one: Tensor) -> list[Tensor]:
        """What was added to this tensor."""
        return [b if a is one else a for a, b in self._added if a is one or b is one]
