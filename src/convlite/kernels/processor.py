"""What this machine's processor can do."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch


@functools.cache
def has(feature: str) -> bool:
    """Whether it has one, by its name in `torch.cpu.get_capabilities`: "avx512_bf16", "amx_bf16".

    Not, where torch can't tell. Torch imitates products in bf16 on processors without, slowly.
    """
    asked: Callable[[], dict[str, Any]] = getattr(torch.cpu, "get_capabilities", dict)
    return bool(asked().get(feature, False))
