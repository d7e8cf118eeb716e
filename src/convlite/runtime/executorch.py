"""ExecuTorch, torch's engine for phones and small devices: networks as .pte files, their layers in XNNPACK."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, need
from ..unsaid import ERRORS, unsaid
from .trace import quiet

EXTRA = "executorch"
_one_at_a_time = threading.Lock()  # the engine has one pool of threads in a process
_alive: weakref.WeakSet[Any] = weakref.WeakSet()  # what was loaded, which holds the pool


def lowered(program: torch.export.ExportedProgram) -> bytes:
    """What a .pte file of a network holds: XNNPACK's layers where it has them, else portable ones.

    Arguments:
        program: traced for one image. A file plans its memory for the most that it may be given, and some of
            ExecuTorch's passes fix the batch in any case.

    Raises:
        InputError: ExecuTorch is not installed, or has not all operations of the network.
    """
    with quiet():
        exir = need("executorch.exir", EXTRA)
        xnnpack = need("executorch.backends.xnnpack.partition.xnnpack_partitioner", EXTRA)
        try:
            program = program.run_decompositions({torch.ops.aten.avg_pool3d.default: _over_channels})
            edge = exir.to_edge_transform_and_lower(program, partitioner=[xnnpack.XnnpackPartitioner()])
            made = edge.to_executorch()
        except Exception as error:  # each of its passes raises its own
            raise InputError(f"ExecuTorch can't express this network: {_in_one_line(error)}") from error
        known = _runtime().operator_registry.operator_names
    if missing := sorted(_operations(made.exported_program()) - known):
        raise InputError(f"ExecuTorch can't express this network: its runtime has no {', '.join(missing)}.")
    return bytes(made.buffer)


def opened(path: Path, precision: str, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """A .pte file, ready to run; images go through it one after the other.

    Raises:
        InputError: another precision than fp32, another number of threads than files use that are still open, or
            the file can't be loaded.
    """
    if precision != "fp32":
        raise InputError(f"executorch computes in fp32 here, not in {precision}: ask for fp32.")
    with quiet(), _one_at_a_time, unsaid(ERRORS):  # where it writes of the processor whenever it starts
        pool: Any = need("executorch.extension.pybindings.portable_lib", EXTRA)
        if (used := pool._threadpool_get_thread_count()) != threads:
            if _alive:
                raise InputError(
                    f"executorch has one pool of threads in a process, of {used} now, and {threads} were asked "
                    f"for: give {used}, or start another process."
                )
            pool._unsafe_reset_threadpool(threads)
        try:
            method = _runtime().load_program(path).load_method("forward")
        except RuntimeError as error:
            raise InputError(f"executorch can't run {path.name}: {_in_one_line(error)}") from error
        size = list(method.metadata.input_tensor_meta(0).sizes())[1:]
        _alive.add(method)

    def run(images: np.ndarray) -> np.ndarray:
        if list(images.shape[1:]) != size:
            raise InputError(f"{path.name} was exported for images of {size}, given {images.shape}: export again.")
        parts = torch.from_numpy(np.ascontiguousarray(images)).split(1)
        try:
            with _one_at_a_time:
                return torch.cat([method.execute([part])[0] for part in parts]).numpy()
        except RuntimeError as error:
            reason = _in_one_line(error)
            raise InputError(f"executorch can't run {path.name} on images {images.shape}: {reason}") from error

    return run


def _over_channels(x: Tensor, kernel: Sequence[int], stride: Sequence[int] = (), *how: Any) -> Tensor:
    """The pool that torch makes local response norms of, (N, 1, C, H, W) -> (N, 1, C', H, W), in two dimensions."""
    if len(kernel) != 3 or [*kernel[1:], *(stride or kernel)] != [1] * 5 or (how and set(how[0]) != {0}) or how[2:]:
        return NotImplemented
    pooled = F.avg_pool2d(x.flatten(3), (kernel[0], 1), 1)
    return pooled.unflatten(3, x.shape[3:])


def _runtime() -> Any:
    return need("executorch.runtime", EXTRA).Runtime.get()


def _operations(program: torch.export.ExportedProgram) -> set[str]:
    """What the runtime must have by itself, as it names them: aten::add.out."""
    return {node.target.name() for node in program.graph.nodes if isinstance(node.target, torch._ops.OpOverload)}


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
