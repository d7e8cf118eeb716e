"""Several processes that train one network: who is who, and sums over all of them.

Every function also works in a process that is alone, and then costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def index() -> int:
    """The number of this one, from 0; the first writes the files and speaks."""
    return dist.get_rank() if count() > 1 else 0


def add_up(values: Sequence[float], device: torch.device) -> list[float]:
    """The sum of each value over all processes, exact in float64; every process must call it."""
    if count() == 1:
        return list(values)
    summed = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(summed)
    found: list[float] = summed.tolist()
    return found


def add_up_(tensor: torch.Tensor, device: torch.device | None = None) -> torch.Tensor:
    """The sum over all processes, by way of `device` if they meet there; the tensor itself may become it."""
    if count() == 1:
        return tensor
    met = tensor if device is None else tensor.to(device)
    dist.all_reduce(met)
    return met.to(tensor.device)
