"""How the network's outputs feel a change of a layer's kernel: to first order, from images alone.

With f the outputs and v random signs, ∂(v·f)/∂W is taken image by image. The mean of its squared products with a
change ΔW of the kernel is the squared change of the outputs: the Gauss-Newton curvature of their distance, which
needs no labels. Samples of it know what errors at different places and in different channels have to do with each
other; the squared gradients of a layer's outputs do not, and promise several times less error than there will be.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from .answers import ROUNDINGS, batch_of, float_outputs
from .around import hooked
from .observe import Observed
from .patches import CHUNK, as_maps, columns_of, read_patches, sized
from .target import lower

IMAGES, LEAST = 256, 16  # samples of a layer, at most and at least
NUMBERS = 2**23  # of a layer's samples, beyond which there are fewer of them; or what they are made of is kept
KEPT = torch.bfloat16  # their precision: far from exact each by itself, since so few are to tell of all
HELD = 2**26, 2**24  # numbers of changes, and of samples, that are compared at once
PARTS = 2  # of a batch as others run it: gradients of all layers are in memory at once
WORK = 2**34  # multiply-accumulates for a layer's root, beyond which fewer samples go into it
EVEN = 0.1  # of the mean feeling, added for every channel: samples are few


class Curvature(ABC):
    """Samples (S, M, D) for a layer with kernel (M, D), scaled for outputs of variance 1.

    Arguments:
        at: what was observed there.
    """

    at: Observed

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """S; how many columns of gradients, of all groups, times patches in rows make a sample; and D."""

    @abstractmethod
    def add(self, start: int, x: Tensor, gradient: Tensor) -> None:
        """Take in what the layer read (N, C, H, W) of images from one on, and the gradient of what it wrote."""

    @abstractmethod
    def scale_(self, factor: float) -> None:
        """Multiply all samples."""

    @abstractmethod
    def some(self, here: slice) -> Tensor:
        """Some of the samples (n, M, D), in single precision."""

    @abstractmethod
    def felt(self, here: slice, half: Tensor) -> Tensor:
        """Σ a·S⁻¹·aᵀ (G, m, m) of some of the samples a, with lower factors (G, D, D) of the patches' moments S."""

    def effects(self, changes: Iterable[Tensor]) -> list[float]:
        """Squared change of the outputs, relative to their variance, by each change of the kernel (M, D)."""
        (count, rows, d), m = self.shape, self.at.conv.m
        together, step = max(1, HELD[0] // (m * d)), max(1, HELD[1] // (d * (m + rows)))
        single, found = (each.flatten().float() for each in changes), list[float]()
        while some := list(islice(single, together)):
            flat = torch.stack(some)
            some.clear()
            sums = torch.zeros(len(flat), dtype=torch.float64, device=flat.device)
            for start in range(0, count, step):
                sums += (self.some(slice(start, start + step)).flatten(1) @ flat.T).double().square().sum(0)
            found += (sums / count).tolist()
        return found

    def root(self, second: Tensor) -> Tensor:
        """How the outputs feel errors of each group's output channels: symmetric roots (G, m, m), of mean 1.

        The samples factor nearly into channels and patches (Martens and Grosse, arXiv 1503.05671); whitened by the
        moments of patches (G, D, D) only the channels are left.
        """
        samples, rows, d = self.shape
        count, step = max(LEAST // 2, WORK // (rows * d * d)), max(1, CHUNK // (rows * d))
        half, felt = lower(second).float(), second.new_zeros(len(second), *(2 * [self.at.conv.m // len(second)]))
        for first in range(0, min(count, samples), step):
            felt += self.felt(slice(first, min(first + step, count)), half)
        mean = felt.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]  # (G, 1, 1)
        one = torch.eye(felt.shape[1], dtype=torch.float64, device=felt.device)
        values, vectors = torch.linalg.eigh(torch.where(mean > 0, felt / mean + EVEN * one, one))
        return vectors @ (values.clamp_min(0).sqrt()[:, :, None] * vectors.mT)


@dataclass(frozen=True)
class Products(Curvature):
    """The samples as they are (S, M, D)."""

    at: Observed
    samples: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        s, m, d = self.samples.shape
        return s, m, d

    def add(self, start: int, x: Tensor, gradient: Tensor) -> None:
        room = self.samples[start : start + len(x)]
        places = self.at.conv.groups * gradient[0, 0].numel()
        step = max(1, CHUNK // (places * self.shape[2]))
        for first in range(0, len(room), step):
            part = room[first : first + step]
            here = slice(first, first + len(part))
            felt, patches = _factors(self.at, x[here], gradient[here])
            part += (felt @ patches).flatten(1, 2)

    def scale_(self, factor: float) -> None:
        self.samples.mul_(factor)

    def some(self, here: slice) -> Tensor:
        return self.samples[here].float()

    def felt(self, here: slice, half: Tensor) -> Tensor:
        some = self.some(here).unflatten(1, (len(half), -1))  # (n, G, m, D)
        return torch.einsum("gdsm,gdsn->gmn", *(2 * [_whitened(half, some)]))


@dataclass(frozen=True)
class Maps(Curvature):
    """What the samples are products of: much less, where a layer is wide and its maps are small.

    Arguments:
        x: what the layer read (S, C, H, W).
        gradient: that of what it wrote (S, M, H', W').
    """

    at: Observed
    x: Tensor
    gradient: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        conv = self.at.conv
        return len(self.x), conv.groups * self.gradient[0, 0].numel(), columns_of(conv)

    def add(self, start: int, x: Tensor, gradient: Tensor) -> None:
        for room, given in (self.x, x), (self.gradient, gradient):
            part = room[start : start + len(given)]
            part += given[: len(part)]

    def scale_(self, factor: float) -> None:
        self.gradient.mul_(factor)

    def some(self, here: slice) -> Tensor:
        felt, patches = _factors(self.at, self.x[here], self.gradient[here])
        return (felt @ patches).flatten(1, 2).float()

    def felt(self, here: slice, half: Tensor) -> Tensor:
        felt, patches = (each.float() for each in _factors(self.at, self.x[here], self.gradient[here]))
        white = _whitened(half, patches).permute(2, 0, 1, 3)  # (n, G, D, P)
        return torch.einsum("sgmp,sgnp->gmn", felt @ (white.mT @ white), felt)


def curvatures(
    net: nn.Module, seen: Mapping[str, Observed], images: Tensor, *, seed: int = 0
) -> dict[str, Curvature]:
    """Of every layer that was observed, from the first of the images (N, C, H, W); `net` in eval mode."""
    if not seen:
        return {}
    images, modules = images[:IMAGES], dict(net.named_modules())
    generator = torch.Generator().manual_seed(seed)
    samples: dict[str, Curvature] = {}
    calls: list[tuple[str, Tensor, Tensor]] = []

    def keep(path: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> Tensor:
            calls.append((path, args[0].detach(), y))
            return y.clone()  # what follows may work in place

        return hook

    power, sums, step = 0.0, dict[int, Tensor](), -(-batch_of(images) // PARTS)
    with torch.enable_grad(), hooked({modules[path]: keep(path) for path in seen}):
        for start in range(0, len(images), step):
            calls.clear()
            batch = images[start : start + step]
            outputs = float_outputs(net(batch.clone().requires_grad_()))
            loss = batch.new_zeros(())
            for i, out in enumerate(outputs):
                signs = torch.randint(0, 2, out.shape, generator=generator).to(out) * 2 - 1
                loss = loss + (out * signs).sum()
                exact = out.detach().double()
                sums[i] = sums.get(i, 0.0) + exact.sum(0)
                power += float(exact.square().sum())
            # an output that answers to no input at all, or not to this layer, has no gradient
            found = torch.autograd.grad(loss, [y for _, _, y in calls], allow_unused=True)
            once = Counter(path for path, _, _ in calls)
            for (path, x, y), gradient in zip(calls, found):
                at = seen[path]
                x, y = (as_maps(each, modules[path], at.conv) for each in (x, y if gradient is None else gradient))
                if path not in samples:
                    samples[path] = _none_yet(at, len(images), x, y, once[path] == 1)
                if gradient is not None:
                    samples[path].add(start, x, y)
    energy = power - sum(float(each.square().sum()) for each in sums.values()) / len(images)
    scale = (len(images) / ((energy if energy > ROUNDINGS * power else power) or 1.0)) ** 0.5
    for each in samples.values():
        each.scale_(scale)
    return samples


def _none_yet(at: Observed, count: int, x: Tensor, y: Tensor, once: bool) -> Curvature:
    """Room for samples of so many images, or fewer where they are large, in the smaller form.

    Arguments:
        x, y: what the layer reads and writes, of some of the images; `once` for each of them.
    """
    m, d = at.conv.m, columns_of(at.conv)
    numbers = 2 * x[0].numel() + y[0].numel()  # x is kept as it is: its mean may be large
    maps = once and NUMBERS // (m * d) < count and numbers < m * d
    count = min(count, max(LEAST, NUMBERS // (numbers if maps else m * d)))
    if maps:
        return Maps(at, x.new_zeros(count, *x.shape[1:]), y.new_zeros(count, *y.shape[1:], dtype=KEPT))
    return Products(at, y.new_zeros(count, m, d, dtype=KEPT))


def _factors(at: Observed, x: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Whose product is the kernel's gradient of each image and group: (N, G, m, P) and patches (N, G, P, D).

    A bias makes up for what a change of the kernel does to the mean: patches are then taken relative to theirs.
    """
    groups = at.conv.groups
    felt = gradient.to(x).flatten(2).unflatten(1, (groups, -1))  # (N, G, m, P)
    places = torch.arange(felt.shape[3], device=x.device).expand(len(x), -1)
    patches = (
        read_patches(x, sized(at.conv, x), places).view(len(x), -1, groups, columns_of(at.conv)).transpose(1, 2)
    )
    return felt, patches - at.means.to(patches.dtype)[:, None] if at.free else patches


def _whitened(half: Tensor, rows: Tensor) -> Tensor:
    """Rows (n, G, r, D) divided by lower factors (G, D, D), which are solved with once for all: (G, D, n, r)."""
    columns = rows.permute(1, 3, 0, 2)  # (G, D, n, r)
    return torch.linalg.solve_triangular(half, columns.flatten(2), upper=False).view(columns.shape)
