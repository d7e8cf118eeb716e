"""Memory that is used again: pages fresh from the system are cleared first, which takes longer than many layers."""

from __future__ import annotations

import math
import weakref
from collections import defaultdict

import numpy as np
import torch
from torch import Tensor


class Pool:
    """Tensors whose memory comes back when the last of them that share it is gone.

    It keeps what it ever gave, by the next power of two, for as long as it lives; threads may share it.
    """

    def __init__(self) -> None:
        self._free: dict[int, list[np.ndarray]] = defaultdict(list)

    def empty(self, shape: tuple[int, int, int, int]) -> Tensor:  # float32 (N, C, H, W), channels last
        n, c, h, w = shape
        size = 1 << max(math.prod(shape) - 1, 1).bit_length()
        free = self._free[size]
        try:
            block = free.pop()
        except IndexError:
            block = np.empty(size, np.float32)
        own = block[: math.prod(shape)].reshape(n, h, w, c)  # lives as long as any tensor that has this memory
        weakref.finalize(own, free.append, block).atexit = False
        return torch.from_numpy(own).permute(0, 3, 1, 2)
