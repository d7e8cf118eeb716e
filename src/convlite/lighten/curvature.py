"""How the network's outputs feel a change of a layer's kernel: to first order, from images alone.

With f the outputs and v random signs, ∂(v·f)/∂W is taken image by image. The mean of its squared products with a
change ΔW of the kernel is the squared change of the outputs: the Gauss-Newton curvature of their distance, which
needs no labels. Samples of it know what errors at different places and in different channels have to do with each
other; the squared gradients of a layer's outputs do not, and promise several times less error than there will be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .answers import ROUNDINGS, batch_of, float_outputs
from .around import hooked
from .observe import Observed
from .patches import CHUNK, as_maps, columns_of, read_patches, sized
from .target import lower

IMAGES, LEAST = 256, 16  # samples of a layer, at most and at least
NUMBERS = 2**23  # of a layer's samples, beyond which there are fewer of them
KEPT = torch.bfloat16  # their precision: far from exact each by itself, since so few are to tell of all
PARTS = 2  # of a batch as others run it: gradients of all layers are in memory at once
WORK = 2**34  # multiply-accumulates for a layer's root, beyond which fewer samples go into it
EVEN = 0.1  # of the mean feeling, added for every channel: samples are few


@dataclass(frozen=True)
class Curvature:
    """Samples (S, M, D) for a layer with kernel (M, D), scaled for outputs of variance 1."""

    samples: Tensor

    def effect(self, change: Tensor) -> float:
        """Squared change of the outputs, relative to their variance, by a change of the kernel (M, D)."""
        products = self.samples.flatten(1).float() @ change.flatten().float()  # (S,)
        return float(products.double().square().mean())

    def root(self, second: Tensor) -> Tensor:
        """How the outputs feel errors of each group's output channels: symmetric roots (G, m, m), of mean 1.

        The samples factor nearly into channels and patches (Martens and Grosse, arXiv 1503.05671); whitened by the
        moments of patches (G, D, D) only the channels are left.
        """
        _, m, d = self.samples.shape
        some = self.samples[: max(LEAST // 2, WORK // (m * d * d))].float()
        some = some.unflatten(1, (len(second), -1))  # (S, G, m, D)
        half = lower(second).to(some.dtype)
        white = torch.linalg.solve_triangular(half, some.mT, upper=False)  # (S, G, D, m)
        felt = torch.einsum("sgdm,sgdn->gmn", white, white).double()
        mean = felt.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]  # (G, 1, 1)
        one = torch.eye(felt.shape[1], dtype=torch.float64, device=felt.device)
        values, vectors = torch.linalg.eigh(torch.where(mean > 0, felt / mean + EVEN * one, one))
        return vectors @ (values.clamp_min(0).sqrt()[:, :, None] * vectors.mT)


def curvatures(
    net: nn.Module, seen: Mapping[str, Observed], images: Tensor, *, seed: int = 0
) -> dict[str, Curvature]:
    """Of every layer that was observed, from the first of the images (N, C, H, W); `net` in eval mode."""
    if not seen:
        return {}
    images, modules = images[:IMAGES], dict(net.named_modules())
    generator = torch.Generator().manual_seed(seed)
    sizes = {path: (at.conv.m, columns_of(at.conv)) for path, at in seen.items()}
    samples = {
        path: torch.zeros(min(len(images), max(LEAST, NUMBERS // (m * d))), m, d, dtype=KEPT, device=images.device)
        for path, (m, d) in sizes.items()
    }
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
            for (path, x, _), gradient in zip(calls, found):
                room = samples[path][start : start + step]
                if gradient is not None and len(room):
                    at, count = seen[path], len(room)
                    x, gradient = (as_maps(each, modules[path], at.conv)[:count] for each in (x, gradient))
                    room += _by_image(x, gradient, at)
    energy = power - sum(float(each.square().sum()) for each in sums.values()) / len(images)
    scale = (len(images) / ((energy if energy > ROUNDINGS * power else power) or 1.0)) ** 0.5
    return {path: Curvature(each.mul_(scale)) for path, each in samples.items()}


def _by_image(x: Tensor, gradient: Tensor, at: Observed) -> Tensor:
    """The kernel's gradient for each image (N, M, D), from inputs (N, C, H, W) and gradients (N, M, H', W').

    A bias makes up for what a change of the kernel does to the mean: patches are then taken relative to theirs.
    """
    layer, groups, columns = sized(at.conv, x), at.conv.groups, columns_of(at.conv)
    flat = gradient.flatten(2).unflatten(1, (groups, -1))  # (N, G, m, P)
    places = torch.arange(flat.shape[3], device=x.device)
    some = max(1, CHUNK // (groups * columns * len(places)))
    found = []
    for part, felt in zip(x.split(some), flat.split(some)):
        patches = read_patches(part, layer, places.expand(len(part), -1))
        found.append(felt @ patches.view(len(part), -1, groups, columns).transpose(1, 2))  # (n, G, m, D)
    product = torch.cat(found)
    if at.free:
        product -= flat.sum(3)[..., None] * at.means.to(flat.dtype)[:, None]
    return product.flatten(1, 2)
