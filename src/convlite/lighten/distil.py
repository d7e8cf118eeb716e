"""A short training of the light network towards the original's outputs; no labels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import RunError
from .answers import BATCH, Answers, float_outputs

RATE = 2e-3
Augment = Callable[[Tensor, torch.Generator], Tensor]
"""Changes a batch (N, C, H, W) at random, with the generator's numbers."""


def distil_(
    light: nn.Module,
    original: nn.Module,
    known: Answers,
    *,
    epochs: int,
    seed: int = 0,
    augment: Augment | None = None,
    say: Callable[[str], object] = lambda text: None,
) -> None:
    """Train `light` in place to answer as `original` does (Hinton et al., arXiv 1503.02531, on raw outputs).

    The loss is the squared distance between the outputs relative to their variance, so that it means the same
    for logits, maps and features. AdamW, a tenth of the steps to warm up, then cosine to zero.

    Arguments:
        known: the images, and the original's answers.
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
    optimiser = torch.optim.AdamW(trained, lr=RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, RATE, total_steps=max(steps, 2), pct_start=0.1, cycle_momentum=False
    )
    light.train()
    for module in light.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()  # the original answers without noise, so must its pupil
    for epoch in range(epochs):
        order = torch.randperm(count, generator=generator).to(images.device)
        for i, part in enumerate(order.chunk(steps_each)):
            batch = images[part]
            if augment is None:
                wanted = [out[part] for out in known.outputs]
            else:
                batch = augment(batch, generator)
                with torch.no_grad():
                    wanted = float_outputs(original(batch))
            given = float_outputs(light(batch))
            loss = torch.stack([((a - b) ** 2).mean() / s for a, b, s in zip(given, wanted, scales)]).sum()
            if not bool(loss.isfinite()):
                raise RunError("The distillation diverged: its loss is no longer finite; distil for fewer epochs.")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            say(f"distilling, step {epoch * steps_each + i + 1} of {steps}, loss {float(loss.detach()):.4f}")
    light.eval()
