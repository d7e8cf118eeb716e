"""What turns the last map into logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError


class Head(nn.Module):
    """Pool, optional hidden layers, dropout, classifier.

    Arguments:
        channels: of the last map.
        num_classes: 0 for none: the head then gives what the classifier would read.
        pool: global average pooling unless given.
        hidden: layers between the pooled map, flattened, and the dropout.
        features: how many numbers `hidden` gives; `channels` where there is none.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        pool: nn.Module | None = None,
        hidden: Sequence[nn.Module] = (),
        features: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.features = channels if features is None else features
        self.pool = nn.AdaptiveAvgPool2d(1) if pool is None else pool
        self.hidden = nn.Sequential(*hidden)
        self.dropout = nn.Dropout(dropout)
        self.classifier = classifier(self.features, num_classes)

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, classes)
        x = self.pool(x).flatten(1)  # (N, C) with global pooling
        return self.classifier(self.dropout(self.hidden(x)))

    def reset_(self, num_classes: int) -> None:
        """A fresh classifier; none for 0 classes."""
        like = next(self.parameters(), torch.empty(0))
        self.classifier = classifier(self.features, num_classes, like.device, like.dtype).train(self.training)


def fully_connected(features: int, sizes: Sequence[int], dropout: float = 0.0) -> list[nn.Module]:
    """Hidden layers for a head: linear and ReLU for each size, with dropout between.

    Raises:
        InputError: a size below 1.
    """
    if any(size < 1 for size in sizes):
        raise InputError(f"A fully connected layer needs a size of at least 1, given {tuple(sizes)}.")
    layers: list[nn.Module] = []
    for before, size in zip((features, *sizes), sizes):
        layers += [nn.Dropout(dropout)] if dropout and layers else []
        layers += [nn.Linear(before, size), nn.ReLU()]
    return layers


def classifier(features: int, classes: int, device: Any = None, dtype: Any = None) -> nn.Module:
    """A fresh linear classifier, or nothing for 0 classes."""
    if classes == 0:
        return nn.Identity()
    made = nn.Linear(features, classes, device=device, dtype=dtype)
    nn.init.normal_(made.weight, std=0.01)
    nn.init.zeros_(made.bias)
    return made
