"""Networks that have shapes and no numbers: all that counting needs, and made in a fraction of the time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


@contextlib.contextmanager
def weightless() -> Iterator[None]:
    """What is made within lies on the meta device, and filling it is skipped.

    Torch works out the shape of every random filling in Python, for which it imports a compiler.
    """
    with _Unfilled(), torch.device("meta"):
        yield


class _Unfilled(TorchDispatchMode):
    """Operations that write to a tensor without data leave it as it is."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False, or else torch imports the compiler all the same."""
        return False

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function._schema.is_mutable and isinstance(args[0], torch.Tensor) and args[0].is_meta:
            return args[0]
        return function(*args, **(kwargs or {}))
