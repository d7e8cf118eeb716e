"""How many images fit into memory at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..data import Data
from ..errors import RunError, need
from .compute import Compute, Machine
from .metrics import as_evaluated
from .recipe import Recipe
from .task import Task, task_of

SHARE = 0.6  # of the free memory, for what a step keeps; the rest is for what comes and goes within it
LARGEST = 4096
TRUSTED = ("cpu",)  # where a step that does not fit ends the process, so that none is tried


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch failed for want of memory; on the CPU its words are all there is to go by."""
    words = ("can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


def too_large(recipe: Recipe) -> str:
    """What to do about a step that did not fit."""
    if recipe.batch_size == 1:
        return "Not even one image fits into memory: give smaller images, a narrower network or recompute."
    half = _power_below(recipe.batch_size // recipe.accumulate // 2)
    parts = -(-recipe.batch_size // half)
    return (
        f"A step of {recipe.batch_size} images does not fit into memory: try a batch "
        f"of {half}, or accumulate={parts} for the same batch in {parts} parts."
    )


def find_batch_size(
    model: nn.Module, data: Data, recipe: Recipe, compute: Compute = Compute(), task: Task | None = None
) -> int:
    """The largest power of two of images whose training step fits into memory; the network is left as it was.

    What one image leaves behind for the backward pass is counted, which says what fits into the free memory;
    on a GPU that is then tried, and halved until it does.

    Raises:
        InputError: the network doesn't fit the data.
        RunError: not even one image fits.
    """
    (task or task_of(data)).check(model, data)
    machine = Machine(compute)
    machine.prepare(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        with as_evaluated(model), machine.recomputing(model):
            model.train()
            most = int(_free(machine.device) * SHARE / _bytes_an_image(model, data, machine))
            size = min(_power_below(most), _power_below(len(data.train)), LARGEST)
            while machine.device.type not in TRUSTED and size > 1 and not _fits(model, data, machine, size):
                size //= 2
    finally:
        model.load_state_dict(before)
        model.zero_grad()
    if most < 1:
        raise RunError(too_large(recipe.with_batch(1)))
    return size


def _power_below(number: int) -> int:
    """The largest power of two that is not above it; at least 1."""
    return 1 << max(0, number.bit_length() - 1)


def _forward(model: nn.Module, data: Data, machine: Machine, count: int) -> Tensor:
    """A loss of so many black images."""
    pixels = torch.zeros(count, *data.shape, dtype=torch.uint8, device=machine.device)
    with machine.autocast():
        answer = model(data.normalise(pixels))  # (count, classes, ...)
    logits: Tensor = answer[0] if isinstance(answer, tuple) else answer
    return logits.float().sum()


def _bytes_an_image(model: nn.Module, data: Data, machine: Machine) -> float:
    """What autograd keeps of an image until the backward pass; weights are no part of it."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    sizes: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no address stands for two tensors

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _forward(model, data, machine, 2)  # of one image alone, some batch norms can't tell the deviation
    return max(1.0, sum(sizes.values()) / 2)


def _free(device: torch.device) -> int:
    """Bytes of memory that are free."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available: int = need("psutil", "train").virtual_memory().available
    return available


def _fits(model: nn.Module, data: Data, machine: Machine, size: int) -> bool:
    try:
        _forward(model, data, machine, size).backward()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True
