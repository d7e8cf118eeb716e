"""A network as the graph of its operations, for exporters and engines."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError


def traced(
    light: nn.Module, example: Tensor, any_size: bool = True, any_batch: bool = True
) -> torch.export.ExportedProgram:
    """Traced for any batch and size; a network that fixes one of them has it fixed.

    Arguments:
        example: of two images or more, for any batch: a batch of one would be taken for the only one.

    Raises:
        InputError: the network can't be traced.
    """
    dynamic: dict[int, Any] = {0: torch.export.Dim.DYNAMIC} if any_batch else {}
    if any_size:
        dynamic |= {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    try:
        with quiet():
            return torch.export.export(light, (example,), dynamic_shapes=(dynamic,))
    except (RuntimeError, ValueError, TypeError, torch._dynamo.exc.TorchDynamoException) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"torch.export can't trace {type(light).__name__}: {reason}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What torch's exporters, and what they import, say to their own developers is not heard."""
    exporters = "torch.onnx", "onnxscript", "torch.export", "torch.fx.experimental.symbolic_shapes"
    names = *exporters, "torchao", "torch.utils._pytree"
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
