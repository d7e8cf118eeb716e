"""A short training of the light network towards the original's outputs; no labels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..errors import RunError
from .observe import BATCH, float_outputs

RATE = 2e-3
Augment = Callable[[Tensor, torch.Generator], Tensor]
"""Changes a batch (N, C, H, W) at random, with the generator's numbers."""


def distil_(
    light: nn.Module,
    original: nn.Module,
    images: Tensor,
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
        images: (N, C, H, W), N of at least 2.
        augment: changes a batch at random; the original then answers for the changed images.
        say: told after each step how far it is.

    Raises:
        RunError: the loss is no longer finite.
    """
    generator = torch.Generator().manual_seed(seed)
    original.eval()
    with torch.no_grad():
        answers = [float_outputs(original(batch)) for batch in images.split(BATCH)]
    wanted = [torch.cat(parts) for parts in zip(*answers)]
    scales = [((out - out.mean(0)) ** 2).mean().clamp_min(1e-12) for out in wanted]
    steps_each = max(1, len(images) // BATCH)
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
    step = 0
    for _ in range(epochs):
        order = torch.randperm(len(images), generator=generator).to(images.device)
        for part in order.chunk(steps_each):
            batch = images[part]
            if augment is None:
                targets = [out[part] for out in wanted]
            else:
                batch = augment(batch, generator)
                with torch.no_grad():
                    targets = float_outputs(original(batch))
            given = float_outputs(light(batch))
            loss = sum(
                (((a - b) ** 2).mean() / scale for a, b, scale in zip(given, targets, scales)),
                start=batch.new_zeros(()),
            )
            if not bool(loss.isfinite()):
                raise RunError("The distillation diverged: its loss is no longer finite; distil for fewer epochs.")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            step += 1
            say(f"distilling, step {step} of {steps}, loss {float(loss):.4f}")
    light.eval()
