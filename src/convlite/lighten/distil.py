"""A short training of the light network towards the original's outputs, block by block; no labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import RunError
from ..kernels import Recorded, Work, convolutions
from ..train.recipe import Recipe
from .answers import BATCH, Answers, float_outputs
from .around import hooked

RATES = 1e-4, 2e-3  # the least and the largest; between them PACE times the root of the error to begin with:
PACE = 3e-3  # what is nearly right is soon spoilt by larger steps
LOOK = 256  # images that this error is measured on
SCHEDULE = Recipe(rate=1.0, warmup=0.1, schedule="cosine")
MIXED = 0.5  # of the images, blended with another: the original answers for them too, and few images last longer
FEATURES = 1.0  # how much the blocks count beside the outputs
LABELS = 0.1  # and the labels, where there are any: more would drown what the original says
TOGETHER = 4  # replaced layers that make one block, at most: those of a bottleneck and its shortcut
# Dropout: the original answers without noise, so must its pupil. Batch norms: their statistics fit since the refit,
# and few steps would be too few to average new ones.
STILL = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
Augment = Callable[[Tensor, torch.Generator], Tensor]
"""Changes a batch (N, C, H, W) at random, with the generator's numbers."""


def distil_(
    light: nn.Module,
    original: nn.Module,
    known: Answers,
    *,
    epochs: int,
    blocks: Sequence[str] = (),
    seed: int = 0,
    augment: Augment | None = None,
    say: Callable[[str], object] = lambda text: None,
) -> None:
    """Train `light` in place to answer as `original` does (Hinton et al., arXiv 1503.02531, on raw outputs).

    The loss is the squared distance between the outputs relative to their variance, so that it means the same
    for logits, maps and features; and the mean of that between what blocks give (Romero et al., arXiv 1412.6550):
    with few images it says much more than the outputs do; and the cross entropy of labels, where there are any.
    Half of the images are blended (Zhang et al., arXiv 1710.09412; Beyer et al., arXiv 2106.05237). AdamW, a tenth
    of the steps to warm up, then cosine to zero.

    Arguments:
        known: the images, and the original's answers: the scale of its outputs.
        blocks: modules of both networks whose outputs are compared too; see `blocks_of`.
        augment: changes a batch at random; the original then answers for the changed images.
        say: told after each step how far it is.

    Raises:
        RunError: the loss is no longer finite.
    """
    images, count = known.images, len(known.images)
    generator = torch.Generator().manual_seed(seed)
    scales = [max(variance / out[0].numel(), 1e-12) for variance, out in zip(known.variances, known.outputs)]
    steps_each = max(1, count // BATCH)
    steps = epochs * steps_each
    trained = [parameter for parameter in light.parameters() if parameter.requires_grad]
    real = all(parameter.is_floating_point() for parameter in trained)  # what one fused step is written for
    rate = rate_for(known.first(LOOK).error(light))
    optimiser = torch.optim.AdamW(trained, lr=rate, weight_decay=1e-4, fused=True if real else None)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: SCHEDULE.rate_at((step + 0.5) / steps))
    light.train()
    for module in light.modules():
        if isinstance(module, STILL):
            module.eval()
    theirs, ours = Watched(original, blocks), Watched(light, blocks)
    with hooked(theirs.hooks), hooked(ours.hooks), convolutions(light, say):
        with torch.no_grad():
            original(images[:BATCH])
        spreads = [_spread(out) for out in theirs.taken()]

        def learn(batch: Tensor, share: Tensor, *labels: Tensor) -> tuple[Tensor, ...]:
            with torch.no_grad():
                wanted = float_outputs(original(batch))
            given = float_outputs(light(batch))
            loss = torch.stack([F.mse_loss(a, b) / s for a, b, s in zip(given, wanted, scales)]).sum()
            apart = [F.mse_loss(a, b) / s for a, b, s in zip(ours.taken(), theirs.taken(), spreads)]
            if apart:
                loss = loss + FEATURES * torch.stack(apart).mean()
            if labels:
                own, others = (F.cross_entropy(given[0], each, reduction="none") for each in labels)
                loss = loss + LABELS * torch.lerp(own, others, share).mean()
            loss.backward()
            return (loss.detach(),)

        taught: Work = learn
        if images.device.type == "cuda":
            some = torch.arange(-(-count // steps_each), device=images.device)
            labels = () if known.labels is None else (known.labels[some],) * 2
            try:
                taught = Recorded(light, learn)
                taught(images[some], images.new_zeros(len(some)), *labels)
            except RunError as error:  # slower, and as good
                say(f"distilling layer by layer: {error}")
                taught = learn
                theirs.taken(), ours.taken()
        for epoch in range(epochs):
            order = torch.randperm(count, generator=generator).to(images.device)
            for i, part in enumerate(order.chunk(steps_each)):
                batch = images[part]
                if augment is not None:
                    batch = augment(batch, generator)
                batch, share, other = _mixed(batch, generator)
                own = () if known.labels is None else (known.labels[part], known.labels[part[other]])
                optimiser.zero_grad()
                (loss,) = taught(batch, share, *own)
                if not bool(loss.isfinite()):
                    raise RunError(
                        "The distillation diverged: its loss is no longer finite; distil for fewer epochs."
                    )
                optimiser.step()
                schedule.step()
                say(f"distilling, step {epoch * steps_each + i + 1} of {steps}, loss {float(loss):.4f}")
    light.eval()


def rate_for(error: float) -> float:
    """The highest learning rate for a network whose outputs are off by `error`, relative to their variance."""
    least, most = RATES
    return min(most, max(least, PACE * error**0.5))


def _mixed(batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Some of the images (N, C, H, W) blended each with another: the original answers for those too.

    Returns:
        The images, of each the share (N,) of the other, and which (N,) that is.
    """
    n = len(batch)
    share = (torch.rand(n, generator=generator) * (torch.rand(n, generator=generator) < MIXED)).to(batch)
    other = torch.randperm(n, generator=generator).to(batch.device)
    return torch.lerp(batch, batch[other], share.view(-1, 1, 1, 1)), share, other


def blocks_of(replaced: Sequence[str]) -> list[str]:
    """The largest modules around replaced layers that hold no more of them than a residual block does."""
    around = {path: _ancestors(path) for path in replaced}
    inside = Counter(path for paths in around.values() for path in paths)
    found = []
    for path, paths in around.items():
        small = [one for one in paths if inside[one] <= TOGETHER]
        found.append(small[-1] if small else path)
    return list(dict.fromkeys(found))


def _ancestors(path: str) -> list[str]:
    """a.b, then a, of a.b.c."""
    parts = path.split(".")
    return [".".join(parts[:i]) for i in range(len(parts) - 1, 0, -1)]


class Watched:
    """What some modules of a network gave since it was last asked; those that give no one tensor are left out."""

    def __init__(self, net: nn.Module, paths: Sequence[str]) -> None:
        self._outputs: list[Tensor] = []
        modules = dict(net.named_modules())
        self.hooks: dict[nn.Module, Callable[..., Any]] = {modules[path]: self._keep for path in paths}

    def _keep(self, module: nn.Module, args: tuple[Any, ...], out: Any) -> None:
        if isinstance(out, Tensor):
            self._outputs.append(out)

    def taken(self) -> list[Tensor]:
        """In the order in which they ran."""
        found, self._outputs = self._outputs, []
        return found


def _spread(out: Tensor) -> Tensor:
    """The variance over images, a mean over places: of (N, C, H, W), a scalar."""
    return (out - out.mean(0)).square().mean().clamp_min(1e-12)
