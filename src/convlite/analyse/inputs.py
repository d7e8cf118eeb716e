"""What a model is given for analysis, and what is said when its forward does not take it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, nearest
from .trace import DataDependent

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def on_meta(given: Any, dtype: torch.dtype) -> Inputs:
    """Positional and named arguments without data, from a shape, a tensor, or several of them.

    Arguments:
        given: a shape without the batch, `(3, 224, 224)`; or a tensor, batch included; or a tuple of them for
            several positional inputs; or a dictionary for named ones. Anything else among several is passed
            on.
        dtype: of the inputs that are given as shapes; they have a batch of 1.

    Raises:
        InputError: not one of these.
    """
    if isinstance(given, dict):
        return (), {name: _one(value, dtype) for name, value in given.items()}
    if isinstance(given, (tuple, list)) and not is_shape(given):
        return tuple(_one(value, dtype) for value in given), {}
    if not isinstance(given, (tuple, list, Tensor)):
        raise InputError(
            "An input is a shape without the batch, like (3, 224, 224), a tensor, or a tuple or dictionary "
            f"of them; given {type(given).__name__}."
        )
    return (_one(given, dtype),), {}


@dataclass(frozen=True, slots=True)
class Spec:
    """One input as people write it.

    Arguments:
        name: of the argument; "" for a positional one; batch.image for an entry of a dictionary.
        shape: without the batch.
        dtype: None for the model's own.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype | None


def read_spec(text: str) -> Spec:
    """An input from "3x224x224", "128:int64" or "image=3x224x224".

    Raises:
        InputError: it is not written so.
    """
    match = re.fullmatch(
        r"(?:([A-Za-z_]\w*(?:\.\w+)*)=)?(\d+(?:x\d+)*)(?::(\w+))?", text.replace("×", "x"), re.ASCII
    )
    sizes = tuple(map(int, match[2].split("x"))) if match else ()
    if match is None or min(sizes) < 1:
        raise InputError(
            "An input is written as its sizes without the batch, like 3x224x224, with a type as in 128:int64 and a "
            f"name as in image=3x224x224, given {text!r}."
        )
    return Spec(match[1] or "", sizes, None if match[3] is None else dtype_of(match[3]))


def dtype_of(name: str) -> torch.dtype:
    """The number type of that name.

    Raises:
        InputError: torch has none.
    """
    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype):
        known = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "uint8", "bool")
        raise InputError(f"{name!r} is no number type; {nearest(name, known)}")
    return found


def filled(specs: Sequence[Spec], batch: int, dtype: torch.dtype) -> Any:
    """Tensors for a forward: random numbers, and zeros where they are whole, which are an index everywhere.

    Arguments:
        batch: images at once.
        dtype: of those that name none.

    Raises:
        InputError: some of several have a name and some don't.
    """
    tensors: list[Tensor] = []
    for spec in specs:
        kind = spec.dtype or dtype
        make = torch.rand if kind.is_floating_point else torch.zeros
        tensors.append(make(batch, *spec.shape, dtype=kind))
    names = [spec.name for spec in specs]
    if not any(names):
        return tuple(tensors)
    if not all(names) or len(set(names)) < len(names):
        said = ", ".join(name or "one without" for name in names)
        raise InputError(f"Either every input has a name of its own or none has, given {said}.")
    found: dict[str, Any] = {}
    for name, tensor in zip(names, tensors):
        *outer, last = name.split(".")
        inner = found
        for part in outer:
            inner = inner.setdefault(part, {})
        inner[last] = tensor
    return found


def described(inputs: Inputs) -> tuple[dict[str, Any], ...]:
    """The tensors among the inputs as plain values: name, shape, dtype."""
    args, kwargs = inputs
    return tuple(
        {"name": name, "shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
        for name, value in (*_named(dict(enumerate(args))), *_named(kwargs))
    )


def _named(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor, those in dictionaries by dotted names."""
    for name, value in values.items():
        if isinstance(value, Tensor):
            yield f"{prefix}{name}", value
        elif isinstance(value, (Mapping, list, tuple)):
            inner = value if isinstance(value, Mapping) else dict(enumerate(value))
            yield from _named(inner, f"{prefix}{name}.")


def float_type(model: nn.Module) -> torch.dtype:
    """The type of the model's own numbers."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.get_default_dtype()


def failure(
    step: str, modules: Mapping[str, nn.Module], where: str | None, inputs: Inputs, error: Exception
) -> InputError:
    """One sentence about a model that raised: where, what was given, and what was expected.

    Arguments:
        step: "forward" or "backward".
        modules: the model's, by path, as they were before they ran.
        where: the path of the module that raised; None where no module was running.
    """
    given = ", ".join("×".join(map(str, one["shape"])) for one in described(inputs)) or "nothing"
    module = modules[where or ""]
    place = f"{type(module).__name__} {where!r}" if where else f"{type(module).__name__} itself"
    if isinstance(error, DataDependent) or "meta tensor" in str(error).lower():
        what = error if isinstance(error, DataDependent) else "it"
        return InputError(
            f"What {place} does depends on the data: {what} needs values that no shape gives, so the model "
            "can't be counted; analyse the parts that don't look at values."
        )
    reason = str(error).strip().splitlines()
    said = f"{type(error).__name__}: {reason[0].rstrip('.')}" if reason else type(error).__name__
    first = next((m for m in modules.values() if any(True for _ in m.parameters(recurse=False))), modules[""])
    wants = _takes(module) or _takes(first)
    who = "It" if _takes(module) else "The model's first layer"
    expected = f" {who} takes {wants}." if wants else ""
    if isinstance(error, TypeError) and "argument" in said and not where:
        expected = " Give it each of its inputs, in order or by name (convlite cost takes several --input)."
    return InputError(f"The {step} of {place} failed on an input of {given} ({said}).{expected}")


def is_shape(given: Any) -> bool:
    """Whether it is a sequence of whole numbers."""
    return (
        isinstance(given, (tuple, list))
        and len(given) > 0
        and all(isinstance(n, Integral) and not isinstance(n, bool) for n in given)
    )


def _one(given: Any, dtype: torch.dtype) -> Any:
    if isinstance(given, Tensor):
        return torch.empty_strided(given.shape, given.stride(), dtype=given.dtype, device="meta")
    if is_shape(given):
        if min(given) < 1:
            raise InputError(f"The sizes of an input are at least 1, given {tuple(given)}.")
        return torch.empty((1, *map(int, given)), dtype=dtype, device="meta")
    if isinstance(given, (tuple, list)):
        return type(given)(_one(value, dtype) for value in given)
    if isinstance(given, dict):
        return {name: _one(value, dtype) for name, value in given.items()}
    return given


def _takes(module: nn.Module) -> str | None:
    """The shape of input that a layer with fixed channels or features takes."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        sizes = ("length",), ("height", "width"), ("depth", "height", "width")
        rest = ", ".join(sizes[len(module.kernel_size) - 1])
        return f"(batch, {module.in_channels}, {rest})"
    if isinstance(module, nn.Linear):
        return f"(batch, ..., {module.in_features})"
    if isinstance(module, nn.Embedding):
        return "whole numbers, of a type like int64"
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return f"(batch, {module.num_features}, ...)"
    return None
