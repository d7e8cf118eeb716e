"""Making up, on unlabelled images, for what the closed forms lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..kinds import Kind, Separable
from .answers import BATCH, batch_of
from .around import hooked
from .decompose import set_factors_
from .fit import Factors, fit
from .observe import Observed, Shortcuts
from .patches import Sums, read_patches
from .target import Target, solve

RIDGE = 1e-3  # pull towards the original kernel, relative to the mean power of the inputs


def refit_(
    light: nn.Module,
    original: nn.Module,
    kinds: Mapping[str, Kind | None],
    seen: Mapping[str, Observed],
    mixes: Mapping[str, Tensor],
    images: Tensor,
) -> None:
    """Fit each layer anew, from the inputs that the LIGHT network gives it to the ORIGINAL's outputs.

    So each layer makes up for the errors of those before it (Zhang et al., arXiv 1505.06798, section 2.3), and the
    last one of a residual branch for those of the shortcut (He et al., arXiv 1707.06168, section 3.3). The light
    network runs once over all images: each layer is fitted the moment its inputs arrive, before it runs.

    Arguments:
        light: changed in place; in eval mode.
        kinds: path → kind, or None for one that stayed dense, of the layers to fit; each runs once an image.
        seen: what `observe` saw on the same images.
        mixes: path → as from `Curvature.root`.
    """
    dense, modules = dict(original.named_modules()), dict(light.named_modules())
    shortcuts = Shortcuts(modules, {path: seen[path] for path in kinds})

    def fit_now(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            at, x = seen[path], args[0]
            sums = Sums.empty(at.sums.second.shape[0], at.conv.m, x.device)
            for start in range(0, len(x), BATCH):
                here = slice(start, start + BATCH)
                wanted = at.wanted[here]
                if at.around.shortcut:
                    wanted = wanted - at.shortcut(shortcuts[path][here], here)
                sums.add(read_patches(x[here], at.conv, at.positions[here]), wanted.flatten(0, 1))
            weight = dense[path].weight
            target = sums.target(weight, centred=at.free, ridge=RIDGE)
            best = solve(target.second, target.cross.T).T  # the dense kernel for these inputs
            kind = kinds[path]
            if kind is None:
                put_(modules, dense, path, at, Factors((best.view_as(weight),), best), bias_for(best, at, sums))
                return
            target = Target(best, target.second, target.cross, target.energy)
            put_(modules, dense, path, at, *fitted(kind, at, mixes[path], target, sums))

        return hook

    with torch.no_grad(), shortcuts.held(), hooked({modules[path]: fit_now(path) for path in kinds}, before=True):
        light(images)


def put_(
    light: Mapping[str, nn.Module],
    dense: Mapping[str, nn.Module],
    path: str,
    at: Observed,
    factors: Factors,
    bias: Tensor | None,
) -> None:
    """Write factors into a layer of the light network, and the bias into it or the norm that follows.

    Arguments:
        light, dense: the modules of both networks by path.
    """
    set_factors_(light[path], factors, bias)
    if (
        at.around.norm and not at.conv.bias and bias is not None
    ):  # what is added before a norm is as if its mean were less
        ours, theirs = (modules[at.around.norm].running_mean for modules in (light, dense))
        assert isinstance(ours, Tensor) and isinstance(theirs, Tensor)
        ours.copy_(theirs - bias)


def fitted(kind: Kind, at: Observed, mix: Tensor, target: Target, sums: Sums) -> tuple[Factors, Tensor | None]:
    """The factors that come nearest a target, where the network's outputs feel it most, and the bias for them.

    Arguments:
        mix: as from `Curvature.root`.
        sums: those that the target was made of.
    """
    mix = mix_for(kind, mix)
    factors = fit(kind, at.conv, target.mixed(mix))
    kernel, last = torch.linalg.solve(mix, factors.kernel), factors.weights[-1]
    unmixed = torch.linalg.solve(mix, last.flatten(1)).view_as(last)
    return Factors((*factors.weights[:-1], unmixed), kernel), bias_for(kernel, at, sums)


def bias_for(kernel: Tensor, at: Observed, sums: Sums) -> Tensor | None:
    """What brings the mean of a kernel's outputs to that of the wanted ones (M,), where something takes it up."""
    return (sums.y - kernel @ sums.x) / sums.rows if at.free else None


def mix_for(kind: Kind, mix: Tensor) -> Tensor:
    """What a kind's last layer can undo: all of a root of the curvature, or, if depthwise, its channels apart."""
    if isinstance(kind, Separable) and kind.order == "pointwise_first":
        return (mix @ mix).diagonal().sqrt().diag()
    return mix


def restate_norms_(light: nn.Module, images: Tensor) -> None:
    """Measure the statistics of every batch norm anew on the images, in place."""
    norms = [
        module
        for module in light.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    momenta = [norm.momentum for norm in norms]
    modes = [norm.training for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over all batches
            norm.train()
        with torch.no_grad():
            for batch in images.split(batch_of(images)):
                light(batch)
    finally:
        for norm, momentum, mode in zip(norms, momenta, modes):
            norm.momentum = momentum
            norm.train(mode)
