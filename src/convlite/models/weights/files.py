"""The tensors of a file, whatever its format; no code in a file is ever run."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ...errors import InputError
from . import keras

TORCH, SAFETENSORS, HDF5 = (".pth", ".pt", ".bin"), (".safetensors",), (".h5", ".hdf5")
# What torch raises for a file cut short, depending on where.
_BROKEN = (
    pickle.UnpicklingError, struct.error, RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError,
)  # fmt: skip
_INSIDE = ("state_dict", "model", "model_state_dict", "state_dict_ema")


def read(path: Path) -> tuple[str, dict[str, Tensor]]:
    """The layout, where the format tells it ("" otherwise), and the named tensors.

    Raises:
        InputError: no such file, another type, cut short, or without tensors.
    """
    suffix = path.suffix.lower()
    if suffix not in (*TORCH, *SAFETENSORS, *HDF5):
        known = ", ".join((*SAFETENSORS, *TORCH, *HDF5))
        raise InputError(f"{path} can't hold weights: give a file that ends in one of {known}.")
    if not path.is_file():
        raise InputError(f"There is no file {path}: give the path of a file with weights.")
    if suffix in HDF5:
        return keras.read(path)
    state = _safetensors(path) if suffix in SAFETENSORS else _torch(path)
    return "", {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is no whole safetensors file ({error}): download or copy it again.") from error


def _torch(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except _BROKEN as error:
        raise InputError(
            f"{path} is no whole file of plain PyTorch tensors: it is cut short or holds code, which is never run; "
            "download it again or save its state_dict()."
        ) from error
    state = _state_dict(found)
    if not state:
        raise InputError(f"{path} holds no state dict, names with tensors: save the network's state_dict().")
    return state


def _state_dict(found: Any) -> dict[str, Tensor]:
    """Names and tensors; inside a training checkpoint, and without the prefix of a parallel wrapper."""
    if not isinstance(found, Mapping):
        return {}
    for key in _INSIDE:
        if isinstance(found.get(key), Mapping):
            return _state_dict(found[key])
    if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()):
        return {}
    return {name.removeprefix("module."): value for name, value in found.items()}
