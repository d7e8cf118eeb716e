"""Kinds as text: JSON for files, and the Python spelling for the command line."""

from __future__ import annotations

import ast
import dataclasses
from typing import Any

from ..errors import InputError, nearest
from ..nn.chain import make_between
from .kind import Kind
from .vocabulary import KINDS


def from_dict(values: dict[str, Any]) -> Kind:
    """The kind that `Kind.to_dict` wrote.

    Raises:
        InputError: no such kind, or values it does not take.
    """
    if not isinstance(values, dict) or "kind" not in values:
        raise InputError(f"A kind is written as {{'kind': name, ...}}, given {values!r}.")
    return _make(str(values["kind"]), [], {k: v for k, v in values.items() if k != "kind"})


def parse(text: str) -> Kind:
    """A kind from its Python spelling, in any case: "separable", "grouped(4)", "Separable(multiplier=2)".

    Raises:
        InputError: no such kind, or arguments it does not take.
    """
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            arguments = [ast.literal_eval(value) for value in node.args]
            named = {str(pair.arg): ast.literal_eval(pair.value) for pair in node.keywords}
            return _make(node.func.id, arguments, named)
        if isinstance(node, ast.Name):
            return _make(node.id, [], {})
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
    raise InputError(f"A kind is spelled like separable or grouped(4), given {text!r}.")


def _make(name: str, arguments: list[Any], named: dict[str, Any]) -> Kind:
    kind = KINDS.get(name.lower())
    if kind is None:
        raise InputError(f"There is no kind of convolution {name!r}; {nearest(name.lower(), KINDS)}")
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    names = list(defaults)
    required = {name for name in names if defaults[name] is dataclasses.MISSING}
    positional = names[: len(arguments)]
    given = [*positional, *named]
    if len(arguments) > len(names) or len(set(given)) < len(given) or not required <= set(given) <= set(names):
        wanted = ", ".join(names) or "nothing"
        raise InputError(f"{kind.__name__} takes {wanted}, given {[*arguments, *named]}.")
    values = dict(zip(positional, arguments)) | named
    for field, value in values.items():
        wants = str if field in ("order", "between") else int
        default = value is None and defaults[field] is None
        if isinstance(value, bool) or not (default or isinstance(value, wants)):
            raise InputError(f"{kind.__name__} can't have {field}={value!r}.")
        if field == "between" and value is not None:
            make_between(value)  # here, not when the first module is built
    return kind(**values)
