"""One look at the original network at work: what each convolution reads, writes and matters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..kinds import Conv
from .answers import BATCH, ROUNDINGS, float_outputs
from .patches import Sums, read_outputs, read_patches, sample_positions

PROBES = 256  # images from which sensitivities are taken


@dataclass
class Observed:
    """What was seen at one convolution.

    Arguments:
        conv: its value, with its input's size.
        positions: (N, P), the output positions looked at, for each image.
        wanted: (N, P, M), its outputs there, bias included.
        sums: second moments over all calls.
        gain: (M,), the squared change of the network's outputs, relative to their own variance, that one unit of
            mean squared error in each output channel of this layer brings about, to first order.
    """

    conv: Conv
    positions: Tensor
    wanted: Tensor
    sums: Sums
    gain: Tensor


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
            torch.zeros(value.m, dtype=torch.float64, device=images.device),
        )
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
    for path, gain in _gains(net, {path: modules[path] for path in convs}, images[:PROBES], seed).items():
        seen[path].gain = gain.expand(seen[path].conv.m)
    return seen


def _gains(net: nn.Module, convs: Mapping[str, nn.Module], images: Tensor, seed: int) -> dict[str, Tensor]:
    """How strongly the outputs answer to each channel of each convolution (M,).

    With v random signs, E[(∂(v·f)/∂y)²] is the squared column norm of the Jacobian ∂f/∂y: the Gauss-Newton
    curvature of the squared distance between outputs, which needs no labels.
    """
    generator = torch.Generator().manual_seed(seed)
    calls: list[tuple[str, Tensor]] = []

    def keep(path: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> Tensor:
            calls.append((path, y))
            return y.clone()  # what follows may work in place

        return hook

    gains = {path: torch.zeros((), dtype=torch.float64) for path in convs}
    energy = power = 0.0
    if not convs:
        return {}
    with torch.enable_grad(), hooked({module: keep(path) for path, module in convs.items()}):
        for batch in images.split(BATCH):
            calls.clear()
            outputs = float_outputs(net(batch.clone().requires_grad_()))
            loss = batch.new_zeros(())
            for out in outputs:
                signs = torch.randint(0, 2, out.shape, generator=generator).to(out) * 2 - 1
                loss = loss + (out * signs).sum()
                exact = out.detach().double()
                energy += float((exact - exact.mean(0)).square().sum())
                power += float(exact.square().sum())
            # an output that answers to no input at all, or not to this layer, has no gradient
            found = torch.autograd.grad(loss, [y for _, y in calls], allow_unused=True)
            for (path, _), gradient in zip(calls, found):
                if gradient is not None:
                    gains[path] = gains[path] + gradient.detach().double().square().sum((0, 2, 3)).cpu()
    energy = (energy if energy > ROUNDINGS * power else power) or 1.0
    return {path: (gain / energy).to(images.device) for path, gain in gains.items()}
