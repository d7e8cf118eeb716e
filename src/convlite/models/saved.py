"""Saved networks: `model.safetensors` for the weights, `config.json` for the structure. Never pickle."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from .. import kinds
from .. import nn as cnn
from ..errors import InputError
from ..files import read_json, write_json, write_whole
from .surgery import replace_, spec

FORMAT = 2  # 1: the terms of a separable sum, pointwise first, interleaved (channel m·r + t for t·M + m)
WEIGHTS, CONFIG = "model.safetensors", "config.json"


def save(model: nn.Module, folder: str | Path, about: Mapping[str, Any] | None = None) -> Path:
    """Write a network into a folder, each file whole or not at all.

    Arguments:
        model: a network made by `create`, lightened or not; or any other module, which `load` then
            must be given again.
        about: plain JSON values to keep beside it: classes, preprocessing, results.

    Returns:
        The folder.

    Raises:
        InputError: the folder can't be written to.
    """
    folder = Path(folder)
    config = {"format": FORMAT, **spec(model), "about": dict(about or {})}
    write_whole(folder / WEIGHTS, lambda path: safetensors.torch.save_model(model, str(path)))
    write_json(folder / CONFIG, config)
    return folder


def read_config(folder: str | Path) -> dict[str, Any]:
    """What `save` wrote beside the weights: format, create, replaced, about.

    Raises:
        InputError: no saved network there, or one of another format.
    """
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise InputError(f"{folder} is no saved network: it has no {name}.")
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or config.get("format") not in (1, FORMAT):
        raise InputError(f"{folder / CONFIG} is no convlite configuration of format 1 or {FORMAT}.")
    missing = {"create", "replaced", "about"} - set(config)
    if missing:
        raise InputError(f"{folder / CONFIG} lacks {', '.join(sorted(missing))}.")
    return config


def load(folder: str | Path, model: nn.Module | None = None) -> nn.Module:
    """The network saved in a folder, in eval mode.

    Arguments:
        model: the network as it was before lightening, with any weights, where it is not one of convlite's
            families: structure that is code is never read from a file. It is left as it is.

    Raises:
        InputError: no saved network there, weights cut short or of another shape, or `model` missing.
    """
    from . import recreate  # the families come with this package, which imports this file

    folder = Path(folder)
    config = read_config(folder)
    if model is None and not config["create"]:
        raise InputError(
            f"{folder} was saved from a network that is not one of convlite's families: "
            "give the original too, as load(folder, model=...)."
        )
    with torch.device("meta") if model is None else nullcontext():  # no weights are drawn that the file replaces
        net: nn.Module = recreate(config["create"]) if model is None else copy.deepcopy(model)
        for path, kind in config["replaced"].items():  # one after the other: a new layer may itself be lightened
            net = replace_(net, {path: kinds.from_dict(kind)})
    if model is None:
        net.to_empty(device="cpu")
    try:
        weights = safetensors.torch.load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise InputError(
            f"{folder / WEIGHTS} is no whole safetensors file ({error}): copy or save it again."
        ) from error
    fault = misfit(net, weights)
    if fault:
        raise InputError(f"The weights in {folder} don't fit the network they name: {fault}.")
    if config["format"] == 1:
        weights = _in_blocks(net, weights)
    net.load_state_dict(weights, strict=False)  # a tensor with two names is saved under one
    return net.eval()


def _in_blocks(net: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of format 1 with whole blocks of channels, one a term, between the layers of separable sums."""
    found = dict(weights)
    for path, each in net.named_modules():
        depthwise = each.depthwise if isinstance(each, cnn.SeparableConv2d) else None
        if isinstance(depthwise, cnn.DepthwiseConv2d) and depthwise.groups == depthwise.out_channels:
            name = f"{path}.pointwise.weight".removeprefix(".")
            terms = found[name].unflatten(0, (depthwise.out_channels, -1))  # (M, r, C, 1, 1)
            found[name] = terms.transpose(0, 1).flatten(0, 1)  # (r·M, C, 1, 1)
    return found


def misfit(net: nn.Module, weights: Mapping[str, Tensor]) -> str | None:
    """What stands between a network and the weights meant for it, or None."""
    expected = net.state_dict()
    filled = {expected[name].data_ptr() for name in weights if name in expected}
    faults = {
        "lacking": [n for n, t in expected.items() if n not in weights and t.data_ptr() not in filled],
        "unknown": [n for n in weights if n not in expected],
        "of another shape": [n for n, t in weights.items() if n in expected and t.shape != expected[n].shape],
    }
    told = [
        f"{len(names)} tensors are {what} ({', '.join(names[:2])}{', ...' if len(names) > 2 else ''})"
        for what, names in faults.items()
        if names
    ]
    return "; ".join(told) or None
