"""One look at the original network at work: what each convolution reads and writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..kinds import Conv
from .answers import BATCH
from .patches import Sums, read_outputs, read_patches, sample_positions


@dataclass
class Observed:
    """What was seen at one convolution.

    Arguments:
        conv: its value, with its input's size.
        positions: (N, P), the output positions looked at, for each image.
        wanted: (N, P, M), its outputs there, bias included.
        sums: second moments over all calls.
        norm: the batch norm that alone reads its output and nothing else; "" for none.
    """

    conv: Conv
    positions: Tensor
    wanted: Tensor
    sums: Sums
    norm: str = ""

    @property
    def free(self) -> bool:
        """Whether a mean that the output is off by can be made up for: by a bias, or the norm that follows."""
        return self.conv.bias or bool(self.norm)

    @property
    def means(self) -> Tensor:
        """Of the patches (D,)."""
        return self.sums.x / self.sums.rows


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


def observe(
    net: nn.Module,
    convs: Mapping[str, Conv],
    images: Tensor,
    *,
    seed: int = 0,
) -> dict[str, Observed]:
    """Run `net` (in eval mode) over the images and see what each convolution does.

    Arguments:
        convs: path → value with the size of its input.
        images: (N, C, H, W).
    """
    modules = dict(net.named_modules())
    generator = torch.Generator().manual_seed(seed)
    seen: dict[str, Observed] = {}
    for path, value in convs.items():
        columns = value.c * value.k[0] * value.k[1]
        positions = sample_positions(value, len(images), generator).to(images.device)
        seen[path] = Observed(
            value,
            positions,
            images.new_empty(len(images), positions.shape[1], value.m),
            Sums.empty(columns, value.m, images.device),
        )
    for path, norm in _norms(net, {path: modules[path] for path in convs}, images[:2]).items():
        seen[path].norm = norm
    start = 0

    def look(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> None:
            at = seen[path]
            here = slice(start, start + len(y))
            at.wanted[here] = read_outputs(y, at.positions[here])
            at.sums.add(read_patches(args[0], at.conv, at.positions[here]), at.wanted[here].flatten(0, 1))

        return hook

    with torch.no_grad(), hooked({modules[path]: look(path) for path in convs}):
        for start in range(0, len(images), BATCH):
            net(images[start : start + BATCH])
    return seen


def _norms(net: nn.Module, convs: Mapping[str, nn.Module], images: Tensor) -> dict[str, str]:
    """The batch norm right after each convolution: path → path. Each of the two runs once."""
    norms = {
        path: module
        for path, module in net.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None
    }
    outputs: list[tuple[str, Tensor]] = []  # kept, so that no other tensor gets the place of one of them
    inputs: list[tuple[str, Tensor]] = []

    def gave(path: str) -> Callable[..., None]:
        return lambda module, args, y: outputs.append((path, y))

    def took(path: str) -> Callable[..., None]:
        return lambda module, args, y: inputs.append((path, args[0]))

    hooks = {module: gave(path) for path, module in convs.items()}
    with torch.no_grad(), hooked(hooks | {module: took(path) for path, module in norms.items()}):
        net(images)
    once = {path for path, count in Counter(path for path, _ in (*outputs, *inputs)).items() if count == 1}
    reads = {id(x): norm for norm, x in inputs if norm in once}
    return {path: reads[id(y)] for path, y in outputs if path in once and id(y) in reads}
