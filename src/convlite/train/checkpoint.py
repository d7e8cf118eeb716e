"""Checkpoints: a run's whole state in one safetensors file, so that it is there whole or not at all.

RUN/checkpoints/00000300.safetensors      after 300 steps; the numbers are JSON in the file's own header
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..data import Data, Files, Source
from ..errors import InputError
from ..files import write_whole
from ..models.saved import misfit
from ..models.surgery import spec
from .recipe import Recipe
from .state import State

FORMAT = 1
FOLDER, HEADER = "checkpoints", "convlite"

Say = Callable[[str], object]


@dataclass(frozen=True)
class Checkpoint:
    """One that could be read.

    Arguments:
        path: its file.
        run: what the run is, as `identity` gave it.
        where: what does not bind the run: device, threads, processes.
        tensors, numbers: those of the state.
    """

    path: Path
    run: Mapping[str, Any]
    where: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, Any]


def write(
    run: Path, state: State, steps: int, identity: Mapping[str, Any], where: Mapping[str, Any], keep: int
) -> Path:
    """Write a checkpoint, then remove all but the last `keep`.

    Arguments:
        steps: done in all, by which the file is named.

    Raises:
        InputError: it can't be written; those before it are all there.
    """
    header = {"format": FORMAT, "run": identity, "where": where, "state": state.numbers()}
    path = run / FOLDER / f"{steps:08d}.safetensors"
    tensors, metadata = state.tensors(), {HEADER: json.dumps(header)}
    write_whole(path, lambda file: safetensors.torch.save_file(tensors, file, metadata))
    for old in files(run)[keep:]:
        old.unlink(missing_ok=True)
    return path


def newest(run: Path, say: Say = lambda text: None) -> Checkpoint | None:
    """The last checkpoint of a run that can be read; None where there is none.

    Arguments:
        say: told of each that can't be read.

    Raises:
        InputError: there are some, and none can be read.
    """
    there = files(run)
    for path in there:
        try:
            return _read(path)
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            say(f"{path} can't be read ({error}), so the checkpoint before it is taken.")
    if there:
        raise InputError(f"None of the checkpoints in {run / FOLDER} can be read: start anew with another --out.")
    return None


def tidy(run: Path, anew: bool) -> None:
    """Remove what a killed process left half written, and all checkpoints if a run begins `anew`."""
    for path in (*(files(run) if anew else ()), *(run / FOLDER).glob(".*.safetensors.*")):
        path.unlink(missing_ok=True)


def files(run: Path) -> list[Path]:
    """A run's checkpoints, newest first."""
    return sorted((run / FOLDER).glob("[0-9]*.safetensors"), reverse=True)


def identity(net: nn.Module, data: Data, recipe: Recipe, seed: int, precision: str) -> dict[str, Any]:
    """What makes a run that run and no other, in plain JSON types."""
    labels = hashlib.sha256(_told_apart_by(data.train)).hexdigest()[:16]
    return {
        "network": spec(net),
        "trained tensors": sum(tensor.requires_grad for tensor in net.parameters()),
        "data": {"classes": list(data.classes), "images": len(data.train), "labels": labels},
        "preprocess": data.preprocess.to_dict(),
        "recipe": recipe.to_dict(),
        "seed": seed,
        "precision": precision,
    }


def _told_apart_by(images: Source) -> bytes:
    """Labels in their order; masks stay in their files, whose names stand for them."""
    if isinstance(images, Files) and not isinstance(images.targets, Tensor):
        return "\n".join(map(images.name, range(len(images)))).encode()
    return images.labels.cpu().numpy().tobytes()


def place(device: torch.device, processes: int) -> dict[str, Any]:
    """On what a run computes: another place changes its last bits, and no more."""
    return {"device": device.type, "threads": torch.get_num_threads(), "processes": processes}


def check_same(found: Checkpoint, given: Mapping[str, Any], net: nn.Module) -> None:
    """Whether a checkpoint is of the run that was asked for.

    Raises:
        InputError: it is not; the first differences are named.
    """
    fault = None
    different = list(_differences(found.run, json.loads(json.dumps(given))))
    if different:
        told = "; ".join(f"{name} was {was}, now {now}" for name, was, now in different[:3])
        fault = f"{told}{'; ...' if len(different) > 3 else ''}"
    else:
        own = {name.removeprefix("net."): t for name, t in found.tensors.items() if name.startswith("net.")}
        fault = misfit(net, own)
    if fault:
        raise InputError(
            f"The run in {found.path.parent.parent} is another ({fault}): resume with what it was begun with, "
            "or give another --out."
        )


def _read(path: Path) -> Checkpoint:
    with safe_open(path, framework="pt") as file:
        header = json.loads((file.metadata() or {})[HEADER])
        if header["format"] != FORMAT:
            raise ValueError(f"it is of format {header['format']}, not {FORMAT}")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    return Checkpoint(path, header["run"], header["where"], tensors, header["state"])


def _differences(was: Any, now: Any, name: str = "") -> Iterator[tuple[str, str, str]]:
    """("recipe.epochs", "5", "8") for each value that is not the same."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in {**was, **now}:
            yield from _differences(was.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif was != now:
        yield name, _short(was), _short(now)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
