"""Keras's Xception in its three files, as the tensors of our network in our order.

Each file numbers its layers in its own way. Ours is the order of `_SLOTS`: in a block the branch comes first,
then the shortcut. Every table below says where the n-th convolution, separable convolution and batch norm
of that order stand, for shapes alone can't tell: two batch norms of the last block are equally wide.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError, need

# The network as C(onvolution), S(eparable), B(atch norm), D(ense): the stem, three blocks with a shortcut,
# eight without, one with, the two convolutions of the exit, the classifier.
_SLOTS = "CBCB" + "SBSBCB" * 3 + "SBSBSB" * 8 + "SBSBCB" + "SBSB" + "D"
_SEPARABLE = [(2, 1), (2, 2), (3, 1), (3, 2), (4, 1), (4, 2)]  # block, position in it
_SEPARABLE += [(block, i) for block in range(5, 13) for i in (1, 2, 3)]
_SEPARABLE += [(13, 1), (13, 2), (14, 1), (14, 2)]
_AFTER_SHORTCUT = (4, 7, 10, 37)  # our batch norms, from 0, that stand in a shortcut

# Arrays: kernel; depthwise, pointwise; gamma, beta, mean, variance; kernel, bias, or none where the file was
# written without the classifier.
Layer = list[Any]


def read(path: Path) -> tuple[str, dict[str, Tensor]]:
    """The layout of the file, and {name: tensor} in our order.

    Raises:
        InputError: h5py is missing, the file is cut short, or it is no Xception.
    """
    h5py = need("h5py", "keras")
    try:
        with h5py.File(path, "r") as file:
            layout, get = _layout(file)
            found: dict[str, Tensor] = {}
            count = dict.fromkeys("CSBD", 0)
            for slot in _SLOTS:
                name, arrays = get(slot, count[slot])
                count[slot] += 1
                found |= {f"{name}.{part}": value for part, value in _torch(slot, arrays)}
            return layout, found
    except OSError as error:
        raise InputError(f"{path} is no whole HDF5 file ({error}): download or copy it again.") from error
    except (KeyError, IndexError, ValueError) as error:
        detail = error.args[0] if error.args else error
        raise InputError(
            f"{path} is no Keras Xception ({detail}): of Keras files, only that network's are read."
        ) from error


def _layout(file: Any) -> tuple[str, Callable[[str, int], tuple[str, Layer]]]:
    if "layers" in file:
        return "keras weights.h5", lambda slot, i: _by_topology(file["layers"], slot, i)
    group = file.get("model_weights", file)
    names = [name.decode() if isinstance(name, bytes) else name for name in group.attrs.get("layer_names", group)]
    if "block1_conv1" in names:
        return "keras h5", lambda slot, i: _by_name(group, names, slot, i)
    return "keras 1 h5", lambda slot, i: _by_creation(group, names, slot, i)


def _by_topology(layers: Any, slot: str, i: int) -> tuple[str, Layer]:
    """Keras 3 weights: numbered from 0, a shortcut's batch norm after its block's, as ours."""
    word = {"C": "conv2d", "S": "separable_conv2d", "B": "batch_normalization", "D": "dense"}[slot]
    name = f"{word}_{i}" if i else word
    if slot == "D" and name not in layers:
        return "", []
    values = layers[name]["vars"]
    return name, [values[str(n)][()] for n in range(len(values))]


def _by_name(group: Any, names: list[str], slot: str, i: int) -> tuple[str, Layer]:
    """A whole model: layers have names, but shortcuts only numbers that depend on the session."""
    if slot == "D" and "predictions" not in names:
        return "", []
    if slot == "D":
        name = "predictions"
    elif slot == "S":
        name = "block{}_sepconv{}".format(*_SEPARABLE[i])
    elif slot == "C":
        name = ("block1_conv1", "block1_conv2", *_numbered(names, "conv2d"))[i]
    elif i in _AFTER_SHORTCUT:
        name = _numbered(names, "batch_normalization")[_AFTER_SHORTCUT.index(i)]
    elif i < 2:
        name = f"block1_conv{i + 1}_bn"
    else:
        name = "block{}_sepconv{}_bn".format(*_SEPARABLE[i - 2 - sum(i > shortcut for shortcut in _AFTER_SHORTCUT)])
    return name, _arrays(group[name], slot)


def _by_creation(group: Any, names: list[str], slot: str, i: int) -> tuple[str, Layer]:
    """The published Keras 1 file: numbered from 1, a shortcut's batch norm before its block's two."""
    if slot == "D":
        dense = [*_numbered(names, "dense"), *(name for name in names if name == "predictions")]
        if not dense:
            return "", []
        name = dense[-1]
    else:
        word = {"C": "convolution2d", "S": "separableconvolution2d", "B": "batchnormalization"}[slot]
        if slot == "B":
            for shortcut in _AFTER_SHORTCUT:
                if shortcut - 2 <= i <= shortcut:
                    i = shortcut - 2 if i == shortcut else i + 1
                    break
        name = f"{word}_{i + 1}"
    return name, _arrays(group[name], slot)


def _numbered(names: list[str], word: str) -> list[str]:
    found = [(int(m[1] or 0), name) for name in names if (m := re.fullmatch(rf"{word}(?:_(\d+))?", name))]
    return [name for _, name in sorted(found)]


# What a layer's arrays are called, in Keras 1 and later.
_PARTS = {
    "C": ("kernel|W",),
    "S": ("depthwise_kernel", "pointwise_kernel"),
    "B": ("gamma", "beta", "moving_mean|running_mean", "moving_variance|running_std"),
    "D": ("kernel|W", "bias|b"),
}


def _arrays(group: Any, slot: str) -> Layer:
    datasets: dict[str, Any] = {}
    group.visititems(lambda name, item: datasets.update({name: item}) if hasattr(item, "shape") else None)
    arrays = []
    for part in _PARTS[slot]:
        fits = [item for name, item in datasets.items() if re.search(rf"(?:^|[/_])(?:{part})(?::0)?$", name)]
        if len(fits) != 1:
            raise ValueError(f"{group.name} has no {part.split('|')[0]}")
        arrays.append(fits[0][()])
    return arrays


def _torch(slot: str, arrays: Layer) -> list[tuple[str, Tensor]]:
    """Arrays as torch has them: (kh, kw, in, out) and (kh, kw, C, 1) become (out, in, kh, kw), (C, 1, kh, kw)."""
    values = [torch.from_numpy(array) for array in arrays]
    if slot == "B":
        return list(zip(("weight", "bias", "running_mean", "running_var"), values, strict=True))
    if slot == "D":
        if not values:
            return []
        kernel, bias = values
        return [("weight", kernel.T), ("bias", bias)]
    if slot == "C":
        (kernel,) = values
        return [("weight", kernel.permute(3, 2, 0, 1))]
    depthwise, pointwise = values
    return [
        ("depthwise.weight", depthwise.permute(2, 3, 0, 1)),
        ("pointwise.weight", pointwise.permute(3, 2, 0, 1)),
    ]
