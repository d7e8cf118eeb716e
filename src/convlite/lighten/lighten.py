"""Any trained network in, a lighter one out: study, plan, build."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from rich.console import Console
from torch import Tensor, nn

from .build import build
from .distil import Augment
from .latency import check_engine
from .plan import Budget
from .probe import check_probes, probed
from .record import Light
from .study import Study, study


def lighten(
    net: nn.Module | Study,
    images: Tensor | Iterable[Any] | None,
    budget: Budget,
    *,
    probes: int = 0,
    distil: int = 0,
    augment: Augment | None = None,
    labelled: bool = False,
    seed: int = 0,
    watch: Callable[[nn.Module], float] | None = None,
    progress: bool = False,
) -> Light:
    """A lighter network with the original's answers, from its trained weights and images that need no labels.

    Each dense convolution may become a separable sum, an asymmetric pair, a low-rank pair (of all input channels
    or of slices of them) or a bottleneck, its K×K dense or depthwise; each group of a grouped one likewise, but for
    the sum; and each linear layer a low-rank pair. Every such form is fitted to what the layer really reads and
    writes, where the outputs feel it most; the choice with the least error meets the budget; each new layer is then
    refitted on the light network's own activations; and a short distillation, where asked for, trains the whole.

    Arguments:
        net: any module with `nn.Conv2d` or `nn.Linear` in it; left exactly as it is. Or a `study` of it, which
            serves many budgets.
        images: float (N, C, H, W) as `net` takes them, or an iterable of such batches (of an (images, labels)
            pair the images are taken); a few hundred suffice without distillation. None with a study, which has
            its own.
        budget: what the light network may cost.
        probes: how many plans near the best are built, too, and measured, of which the best is taken; 5 at most,
            and not where the budget is one of time.
        distil: epochs over the images; 0 for none.
        augment: (batch, generator) → batch, changed at random, for distilling. The original answers to what the
            light network sees, so that mirroring is right where outputs are places, too. `train.augmentation` makes
            it of a recipe; where labels are learnt, best of its `harder()`.
        labelled: in distilling, learn the labels that pairs bring, int64 (N,), beside the original's answers. A
            study knows by itself.
        seed: of all random choices; same seed, same result.
        watch: called with the light network after each stage; what it returns is recorded. The plan that probes
            chose is built again for it.
        progress: say on stderr what is being done.

    Returns:
        The light network, its plan and a record.

    Raises:
        InputError: images of a wrong shape or not finite, a budget that no plan meets, or probes that can't be.
        RunError: the network's outputs are not finite, or the distillation diverged.
    """
    check_engine(budget)  # before the long part
    check_probes(budget, probes)
    with Console(stderr=True).status("lighten", spinner="line") if progress else nullcontext() as shown:

        def say(text: str) -> None:
            if shown is not None:
                shown.update(f"lighten: {text}")

        known = (
            net
            if isinstance(net, Study)
            else study(net, () if images is None else images, labelled=labelled, seed=seed, say=say)
        )
        if budget.latency_ms is None:
            plan, probe = probed(known, budget, probes, say)
        else:
            plan, probe = known.plan_within(budget, say), None
        begun = None if watch else probe  # built anew to be watched, stage by stage
        light = build(known, plan, distil=distil, augment=augment, seed=seed, watch=watch, say=say, begun=begun)
        return replace(light, record=replace(light.record, probed=probe.record.probed)) if probe else light
