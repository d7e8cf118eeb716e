"""One look at the original network at work: what each convolution, or linear layer, reads and writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..kinds import Conv
from .answers import Answers, answers, batch_of
from .around import Around, around, hooked
from .patches import Sums, as_maps, read_outputs, read_patches, sample_positions, sized


@dataclass
class Observed:
    """What was seen at one convolution.

    Arguments:
        conv: its value, with its input's size the first time it runs.
        positions: (N, P), the output positions looked at, for each image, at that size.
        wanted: (N, P, M), its outputs there, bias included, and the shortcut that is added to them.
        sums: second moments over all calls.
        around: what stands around it.
    """

    conv: Conv
    positions: Tensor
    wanted: Tensor
    sums: Sums
    around: Around

    @property
    def free(self) -> bool:
        """Whether a mean that the output is off by can be made up for: by a bias, or the norm that follows."""
        return self.conv.bias or bool(self.around.norm)

    @property
    def means(self) -> Tensor:
        """Of the patches that each group reads (G, D)."""
        return self.sums.x / self.sums.rows

    def shortcut(self, x: Tensor, here: slice) -> Tensor:
        """What a shortcut (N, M, H', W') adds for these images: (N, P, M), as if before the norm."""
        scale = self.around.scale
        assert scale is not None
        return read_outputs(x, self.positions[here]) * scale.to(x)


def observe(
    net: nn.Module,
    convs: Mapping[str, Conv],
    images: Tensor,
    labels: Tensor | None = None,
    *,
    first: int | None = None,
    seed: int = 0,
) -> tuple[dict[str, Observed], Answers]:
    """Run `net` (in eval mode) over the images, and see what it answers and what each convolution does.

    Arguments:
        convs: path → value with the size of its input.
        images, labels: (N, C, H, W) and (N,), as for `answers`.
        first: so many of the images, from the first on, are those on which convolutions are looked at; all unless
            given.

    Raises: what `answers` does.
    """
    looked = images[:first]
    modules, step = dict(net.named_modules()), batch_of(images)
    beside = around(net, [path for path in convs if isinstance(modules[path], nn.Conv2d)], images[:2])
    generator = torch.Generator().manual_seed(seed)
    seen: dict[str, Observed] = {}
    for path, value in convs.items():
        positions = sample_positions(value, len(looked), generator).to(images.device)
        seen[path] = Observed(
            value,
            positions,
            images.new_empty(len(looked), positions.shape[1], value.m),
            Sums.empty(value, images.device),
            beside.get(path, Around()),
        )
    shortcuts = Shortcuts(modules, seen)
    here = slice(-step, 0)  # the images that run

    def begin(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        nonlocal here
        here = slice(here.start + step, here.stop + step)

    def look(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> None:
            at = seen[path]
            shortcut = shortcuts.take(path) if at.around.shortcut else None
            count = len(looked[here])
            if not count:
                return
            x, y = (as_maps(each, module, at.conv)[:count] for each in (args[0], y))
            layer, positions = sized(at.conv, x), at.positions[here]
            if layer != at.conv:  # it runs on maps of several sizes
                positions = sample_positions(layer, len(looked), generator)[: len(x)].to(x.device)
            given = read_outputs(y, positions)
            at.sums.add(read_patches(x, layer, positions), given.flatten(0, 1))
            if layer != at.conv:
                return
            at.wanted[here] = given
            if shortcut is not None:
                at.wanted[here] += at.shortcut(shortcut[:count], here)

        return hook

    with (
        shortcuts.held(),
        hooked({net: begin}, before=True),
        hooked({modules[path]: look(path) for path in convs}),
    ):
        return seen, answers(net, images, labels)


class Shortcuts:
    """While a network runs, what each convolution's output will be added to, by the convolution's path.

    Arguments:
        modules: of the network, by path.
        seen: the convolutions.
    """

    def __init__(self, modules: Mapping[str, nn.Module], seen: Mapping[str, Observed]) -> None:
        self._from = {path: at.around.shortcut for path, at in seen.items() if at.around.shortcut}
        self._modules, self._inputs = modules, dict[str, Tensor]()
        self._waiting = Counter[str]()

    def take(self, path: str) -> Tensor:
        """Once for each time that the network runs: when all convolutions have had theirs, it is let go."""
        source = self._from[path]
        self._waiting[source] -= 1
        return self._inputs[source] if self._waiting[source] else self._inputs.pop(source)

    @contextmanager
    def held(self) -> Iterator[None]:
        """The inputs of modules are kept, each until it is taken, or its module runs again."""
        takers = Counter(self._from.values())

        def keep(path: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
                self._inputs[path], self._waiting[path] = args[0], takers[path]

            return hook

        try:
            with hooked({self._modules[path]: keep(path) for path in set(self._from.values())}, before=True):
                yield
        finally:
            self._inputs.clear()
