"""Where randomness comes from: one seed, and for each use of it a stream of its own."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's own generators, on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def derive(seed: int, *parts: str | int) -> int:
    """A seed for one use, such as `derive(seed, "order", epoch)`: the same wherever it is asked for.

    That the order of epoch 7 depends on nothing that happened before it lets a run go on after a stop.
    """
    text = "/".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def generator(seed: int, *parts: str | int) -> torch.Generator:
    """A generator on the CPU, seeded with `derive`."""
    return torch.Generator().manual_seed(derive(seed, *parts))
