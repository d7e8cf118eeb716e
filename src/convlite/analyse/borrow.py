"""Borrow a model: swap its tensors for ones without data, and give it back exactly as it was."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from ..errors import InputError


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside what `torch.compile`, `DataParallel` and `DistributedDataParallel` return.

    Raises:
        InputError: not a model, or one whose inside can't be seen.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"A model to analyse is a torch.nn.Module, given {type(model).__name__}.")
    while True:
        inner = getattr(model, "_orig_mod", None)
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


@dataclass(frozen=True, slots=True)
class Borrowed:
    """A model whose tensors have no data.

    Arguments:
        model: the model itself.
        modules: each module once, by its first name.
        names: all names of each module, by its `id`.
        stand_ins: what stands for each parameter and buffer, by the `id` of the original.
    """

    model: nn.Module
    modules: dict[str, nn.Module]
    names: dict[int, list[str]]
    stand_ins: dict[int, Tensor]


@contextlib.contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Whatever happens within, every module's attributes are afterwards what they were.

    Attributes are remembered with the content of lists, dictionaries, sets and plain objects among them: what a
    forward sets, registers or appends is gone. Data that is written into a tensor is not undone.
    """
    kept = [(vars(module), vars(module).copy()) for module in model.modules()]
    containers = list(_containers([attributes for _, attributes in kept]))
    try:
        yield
    finally:
        for now, before in kept:
            now.clear()
            now.update(before)
        for container, content in containers:
            _refill(container, content)


@contextlib.contextmanager
def borrowed(model: nn.Module, *, training: bool = False) -> Iterator[Borrowed]:
    """The model with tensors that have no data, in eval or training mode, and afterwards exactly as it was.

    Raises:
        InputError: a lazy layer that has no sizes yet, or a scripted module.
    """
    modules: dict[str, nn.Module] = {}
    names: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        if id(module) not in names:
            modules[path] = module
        names.setdefault(id(module), []).append(path)
    _check(modules)
    stand_ins: dict[int, Tensor] = {}
    with untouched(model):
        for module in modules.values():
            attributes = vars(module)
            attributes["training"] = training
            attributes.pop("_compiled_call_impl", None)  # what `module.compile()` set
            for tensors in (attributes["_parameters"], attributes["_buffers"]):
                for name, tensor in tensors.items():
                    if tensor is not None:
                        if id(tensor) not in stand_ins:
                            stand_ins[id(tensor)] = _without_data(tensor)
                        tensors[name] = stand_ins[id(tensor)]
        yield Borrowed(model, modules, names, stand_ins)


def _check(modules: dict[str, nn.Module]) -> None:
    for path, module in modules.items():
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(
                f"{path or 'The model'} is a scripted module, whose inside can't be seen: "
                "give the nn.Module it was made from."
            )
        if any(
            isinstance(tensor, (UninitializedParameter, UninitializedBuffer))
            for tensor in (*module._parameters.values(), *module._buffers.values())
        ):
            raise InputError(
                f"{type(module).__name__} {path!r} is lazy and has no sizes yet: "
                "run the model once on an input before analysing it."
            )


def _without_data(tensor: Tensor) -> Tensor:
    made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
    if isinstance(tensor, nn.Parameter):
        made = nn.Parameter(made, tensor.requires_grad)
    vars(made).update(vars(tensor))  # what people attach to tensors, a scale for example
    return made


def _containers(found: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Every list, dict, set and deque within, however deep, with a copy of its content.

    So are the attributes of other objects among them; but not those of objects that these hold: a module that knows
    its trainer would lead to everything there is.
    """
    seen: set[int] = set()
    held: list[Any] = []  # attributes of objects, in which no further objects are looked for
    while found or held:
        objects = bool(found)
        values = (found or held).pop()
        for value in values.values() if isinstance(values, dict) else values:
            content = value if isinstance(value, (dict, list, set, deque, tuple)) else _attributes(value, objects)
            if content is None or id(content) in seen:
                continue
            seen.add(id(content))
            if not isinstance(content, tuple):
                yield content, content.copy()
            if content:
                (found if content is value and objects else held).append(content)


def _attributes(value: Any, wanted: bool) -> dict[str, Any] | None:
    """Of an object that is no module, tensor or class."""
    if not wanted or isinstance(value, (nn.Module, Tensor, type, ModuleType)):
        return None
    attributes = getattr(value, "__dict__", None)
    return attributes if isinstance(attributes, dict) else None


def _refill(container: Any, content: Any) -> None:
    if _same(container, content):
        return  # others may be reading it
    container.clear()
    if isinstance(container, (dict, set)):
        container.update(content)
    else:
        container.extend(content)


def _same(container: Any, content: Any) -> bool:
    """Whether it holds the same objects in the same order."""
    if len(container) != len(content):
        return False
    if isinstance(container, dict) and not _same(list(container.values()), list(content.values())):
        return False
    return all(a is b for a, b in zip(container, content))
