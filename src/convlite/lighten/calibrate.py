"""Making up, on unlabelled images, for what the closed forms lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from ..kinds import Kind, Permuted, Separable
from .answers import BATCH, batch_of
from .around import hooked
from .decompose import factors_in, set_factors_
from .fit import fit
from .form import Factors
from .observe import Observed, Shortcuts
from .patches import Sums, as_maps, read_patches
from .target import Target, solve

RIDGE = 1e-3  # pull towards the original kernel, relative to the mean power of the inputs
RIDGES = (1e-4, RIDGE, 1e-2, 1e-1)  # rising; of which a refit takes what images set aside show to be the best
FIRST = 2  # that is tried: where a layer is wide, and a try takes long, images are few for it, and much is best
ASIDE = 5  # every so many batches, one is set aside for that


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
            at = seen[path]
            x = as_maps(args[0], dense[path], at.conv)
            added = shortcuts.take(path) if at.around.shortcut else None
            own, aside = Sums.empty(at.conv, x.device), Sums.empty(at.conv, x.device)
            step = min(BATCH, -(-len(x) // ASIDE))
            for i, start in enumerate(range(0, len(x), step)):
                here = slice(start, start + step)
                wanted = at.wanted[here]
                if added is not None:
                    wanted = wanted - at.shortcut(added[here], here)
                some = own if i % ASIDE else aside
                some.add(read_patches(x[here], at.conv, at.positions[here]), wanted.flatten(0, 1))
            weight = dense[path].weight
            ridge = ridge_of(own, aside, weight, centred=at.free)
            sums = own + aside
            del own, aside  # they may be large
            target = sums.target(weight, centred=at.free, ridge=ridge)
            target = replace(target, weight=best_for(target))  # what the forms start from
            kind = kinds[path]
            if kind is None:
                best = target.weight
                put_(modules, dense, path, at, Factors((best,), torch.clone), bias_for(best, at, sums))
                return
            begun = [layer.weight for layer in factors_in(modules[path])]
            put_(modules, dense, path, at, *fitted(kind, at, mixes[path], target, sums, begun))

        return hook

    with torch.no_grad(), shortcuts.held(), hooked({modules[path]: fit_now(path) for path in kinds}, before=True):
        light(images)


def best_for(target: Target) -> Tensor:
    """The dense kernel (G, m, D) that comes nearest a target."""
    return solve(target.second, target.cross.mT).mT


def ridge_of(own: Sums, aside: Sums, weight: Tensor, *, centred: bool) -> float:
    """Which of RIDGES lets a dense kernel fitted to `own` come nearest what was set aside."""
    if not (own.rows and aside.rows):
        return RIDGE
    unseen = aside.target(weight, centred=centred)

    @cache
    def lost(i: int) -> float:
        fitted = best_for(own.target(weight, centred=centred, ridge=RIDGES[i]))
        return float(unseen.error(fitted).sum())

    best = FIRST
    for step in (1, -1):  # beyond one that is worse, none is likely to be better
        while 0 <= best + step < len(RIDGES) and lost(best + step) < lost(best):
            best += step
    return RIDGES[best]


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


def fitted(
    kind: Kind,
    at: Observed,
    mix: Tensor,
    target: Target,
    sums: Sums,
    begun: Sequence[Tensor] = (),
) -> tuple[Factors, Tensor | None]:
    """The factors that come nearest a target, where the network's outputs feel it most, and the bias for them.

    Arguments:
        mix: as from `Curvature.root`.
        sums: those that the target was made of.
        begun: as for `fit`.
    """
    mix = mix_for(kind, mix)
    factors = fit(kind, at.conv, target.mixed(mix), begun).mixed(torch.linalg.inv(mix))
    return factors, bias_for(factors.kernel, at, sums)


def bias_for(kernel: Tensor, at: Observed, sums: Sums) -> Tensor | None:
    """What brings the mean of outputs of (G, m, D) to that of the wanted ones (M,), where something takes it up."""
    if not at.free:
        return None
    given = kernel @ sums.x[..., None]  # (G, m, 1)
    return (sums.y - given[..., 0]).flatten() / sums.rows


def mix_for(kind: Kind, mix: Tensor) -> Tensor:
    """What a kind's last layer can undo: all of the roots (G, m, m), or, where it sees few channels, each apart."""
    return (mix @ mix).diagonal(dim1=1, dim2=2).sqrt().diag_embed() if sees_few(kind) else mix


def sees_few(kind: Kind) -> bool:
    """Whether each channel of a kind's last layer sees only some of those before it."""
    return isinstance(kind, Permuted) or (isinstance(kind, Separable) and kind.order == "pointwise_first")


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
