"""A short training of the light network towards the original's outputs, block by block, and labels if any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import RunError
from ..kernels import Recorded, Work, convolutions, has
from ..train.allocator import freed_memory_kept
from .answers import BATCH, Answers, float_outputs
from .around import hooked
from .descent import Descent

RATES = 1e-4, 1e-3  # the least and the largest; between them PACE times the root of the error to begin with:
PACE = 3e-3  # what is nearly right is soon spoilt by larger steps;
SHORT = 400  # steps, beyond which there is time to make good: the rate then grows with the root of their number
LOOK = 256  # images that this error is measured on
FEATURES = 1.0  # how much the blocks count beside the outputs
LABELS = 0.3  # and the labels, where there are any, of so many images; of fewer, which are soon known by heart,
MANY = 40_000  # as much less
NEAR = 1e-3  # what half precision may change of the original's answers, relative to their variance
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
    with few images it says much more than the outputs do; and the cross entropy of labels, where there are any,
    the less the fewer. For how the weights move see `Descent`.

    Where images are changed at random, the original answers to what `light` sees (Beyer et al., arXiv 2106.05237);
    its mean answer to several views was tried, and taught worse. It answers in bf16 where the processor has it and
    the answers stay the same. On Linux, memory that is freed stays with the process until this ends.

    Arguments:
        known: the images, and the original's answers: the scale of its outputs.
        blocks: modules of both networks whose outputs are compared too; see `blocks_of`.
        augment: changes a batch at random.
        say: told after each step how far it is.

    Raises:
        RunError: the loss is no longer finite.
    """
    images, count = known.images, len(known.images)
    own = () if known.labels is None else (known.labels,)
    weight = LABELS * min(1.0, count / MANY)
    generator = torch.Generator().manual_seed(seed)
    scales = [max(variance / out[0].numel(), 1e-12) for variance, out in zip(known.variances, known.outputs)]
    steps_each = max(1, count // BATCH)
    steps = epochs * steps_each
    descent = Descent(light, rate_for(known.first(LOOK).error(light), steps), steps)
    precision = _precision(original, known)
    light.train()
    for module in light.modules():
        if isinstance(module, STILL):
            module.eval()
    theirs, ours = Watched(original, blocks), Watched(light, blocks)
    with (
        freed_memory_kept(),
        hooked(theirs.hooks),
        hooked(ours.hooks),
        convolutions(original, compiled=False),
        convolutions(light, say),
    ):
        with torch.no_grad():
            original(images[:BATCH])
        spreads = [_spread(out) for out in theirs.taken()]

        def learn(seen: Tensor, *labels: Tensor) -> tuple[Tensor, ...]:
            with torch.no_grad(), precision():
                wanted = float_outputs(original(seen))
            given = float_outputs(light(seen))
            loss = torch.stack([distance(a, b) / s for a, b, s in zip(given, wanted, scales)]).sum()
            apart = [distance(a, b) / s for a, b, s in zip(ours.taken(), theirs.taken(), spreads)]
            if apart:
                loss = loss + FEATURES * torch.stack(apart).mean()
            for each in labels:
                loss = loss + weight * F.cross_entropy(given[0], each)
            loss.backward()
            return (loss.detach(),)

        taught: Work = learn
        if images.device.type == "cuda":
            some = torch.arange(-(-count // steps_each), device=images.device)
            try:
                taught = Recorded(light, learn)
                taught(images[some], *(each[some] for each in own))
            except RunError as error:  # slower, and as good
                say(f"distilling layer by layer: {error}")
                taught = learn
                theirs.taken(), ours.taken()
        for epoch in range(epochs):
            order = torch.randperm(count, generator=generator).to(images.device)
            for i, part in enumerate(order.chunk(steps_each)):
                seen = images[part] if augment is None else augment(images[part], generator)
                descent.forget()
                (loss,) = taught(seen, *(each[part] for each in own))
                if not bool(loss.isfinite()):
                    raise RunError(
                        "The distillation diverged: its loss is no longer finite; distil for fewer epochs."
                    )
                descent.step()
                say(f"distilling, step {epoch * steps_each + i + 1} of {steps}, loss {float(loss):.4f}")
    light.eval()


def distance(a: Tensor, b: Tensor) -> Tensor:
    """The mean squared difference; unlike that of `F.mse_loss`, its gradient has channels where `a` has them.

    On a CPU all that follows in the backward pass is then quicker. Squared is the root of the mean, for in half
    precision a sum of squares may be too large.
    """
    return (torch.linalg.vector_norm(a - b.to(a.dtype)) / a.numel() ** 0.5).square()


def rate_for(error: float, steps: int) -> float:
    """The highest learning rate for a network whose outputs are off by `error`, relative to their variance."""
    least, most = RATES
    return min(most, max(least, PACE * (error * max(1.0, steps / SHORT)) ** 0.5))


def _precision(original: nn.Module, known: Answers) -> Callable[[], AbstractContextManager[Any]]:
    """What the original answers in: bf16 where that is fast and its answers stay the same, else as it is."""
    some = known.first(BATCH)
    if some.images.device.type != "cpu" or some.images.dtype != torch.float32 or not has("avx512_bf16"):
        return nullcontext
    half = partial(torch.autocast, "cpu", torch.bfloat16)
    try:
        with half():
            return half if some.error(original) < NEAR else nullcontext
    except (AssertionError, RuntimeError, TypeError, ValueError):  # of a network that does types by itself
        return nullcontext


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
