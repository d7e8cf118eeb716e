"""The recipes that have a name."""

from __future__ import annotations

from ..errors import InputError, nearest
from .recipe import Recipe

RECIPES: dict[str, Recipe] = {
    "digits": Recipe(),
    # Shift, flip and batch of He et al. 2016, section 4.2; one cosine fall in place of its three steps, and
    # smaller images at first.
    "cifar": Recipe(
        epochs=40, batch_size=128, rate=0.25, label_smoothing=0.0, warmup=0.1, first_size=0.6, shift=4, flip=True
    ),
    # Chollet 2017, section 4.3 (ImageNet). It tells neither the epochs nor the batch: those of the next one.
    "xception-paper": Recipe(
        epochs=100, batch_size=1600, optimiser="sgd", rate=0.045, momentum=0.9, warmup=0.0, schedule="exponential",
        fall=0.94, fall_epochs=2, weight_decay=1e-5, label_smoothing=0.0, dropout=0.5, average=0.9999, shift=0,
        flip=True,
    ),
    # Szegedy et al. 2016, section 8: 50 replicas of 32 images; momentum and average as in its authors' own code.
    "inception-paper": Recipe(
        epochs=100, batch_size=1600, optimiser="rmsprop", rate=0.045, momentum=0.9, epsilon=1.0, warmup=0.0,
        schedule="exponential", fall=0.94, fall_epochs=2, weight_decay=4e-5, label_smoothing=0.1, clip=2.0,
        average=0.9999, aux=0.4, shift=0, flip=True,
    ),
    # From trained weights: short, at a small rate, and smaller the further from the new classifier.
    "finetune": Recipe(
        epochs=10, rate=0.02, weight_decay=1e-4, warmup=0.1, layer_decay=0.85, average=0.99, clip=5.0, shift=0
    ),
    # From nothing, when no other is known to be better.
    "modern": Recipe(
        epochs=100, batch_size=256, optimiser="adamw", rate=2e-3, weight_decay=0.05, warmup=0.05, clip=1.0,
        average=0.999, shift=4, flip=True,
    ),
    # Labelling pixels, from nothing, with some hundred images: parts of them at many scales, and Dice for rare
    # classes.
    "segment": Recipe(
        epochs=60, batch_size=8, optimiser="adamw", rate=2e-3, weight_decay=0.05, label_smoothing=0.0, warmup=0.1,
        clip=1.0, average=0.99, dice=0.5, first_size=0.5, shift=0, flip=True, crop=0.15, colour=0.3,
    ),
}  # fmt: skip


def recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        InputError: there is none.
    """
    if name not in RECIPES:
        raise InputError(f"There is no recipe {name!r}: {nearest(name, RECIPES)}")
    return RECIPES[name]
