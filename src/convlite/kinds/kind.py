"""What every kind of convolution answers."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from ..cost import Cost
from ..errors import InputError
from .conv import Conv, conv


@dataclass(frozen=True)
class Kind(ABC):
    """A kind of convolution: a value that says how a dense convolution's place can be filled.

    Every question takes the dense convolution as a `Conv`, or as the keywords of `conv(...)`:
    `Separable().cost(c=728, m=728, k=3, h=19, w=19)`.
    """

    by_group: ClassVar[bool] = False  # whether it can stand for a grouped convolution, group by group

    def layers(self, dense: Conv | None = None, **sizes: Any) -> tuple[Conv, ...]:
        """The primitive convolutions that this kind is made of, in the order they run.

        Raises:
            InputError: the kind can't stand there; the message says why.
        """
        dense = _given(dense, sizes)
        reason = self.why_not(dense)
        if reason:
            raise InputError(f"{self} can't stand here: {reason}.")
        return tuple(_sized(self._chain(dense)))

    def cost(self, dense: Conv | None = None, *, itemsize: int = 4, **sizes: Any) -> Cost:
        """Exact cost for one image: the sum over `layers`. Activations between and shuffles are not in it.

        Raises:
            InputError: the kind can't stand there, or the input's size is missing.
        """
        return sum((layer.cost(itemsize) for layer in self.layers(dense, **sizes)), start=Cost())

    def build(
        self,
        dense: Conv | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **sizes: Any,
    ) -> nn.Module:
        """A new module of this kind, with torch's own initial weights.

        Raises:
            InputError: the kind can't stand there.
        """
        dense = _given(dense, sizes)
        self.layers(dense)
        return self._module(dense, device, dtype)

    def why_not(self, dense: Conv | None = None, **sizes: Any) -> str | None:
        """Why this kind can't take the place of that convolution, or None where it can."""
        dense = _given(dense, sizes)
        if dense.groups != 1 and not self.by_group:
            return f"the convolution is grouped by {dense.groups} already, and {self.name} replaces a dense one"
        return self._why_not(dense)

    @property
    @abstractmethod
    def formula(self) -> str:
        """Parameters in the study notes' letters; times H·W they are the multiply-accumulates.

        C channels in, M out, K the kernel's size, output the size of the input, no bias.
        """

    @property
    def linear(self) -> bool:
        """Whether nothing nonlinear stands inside, so that a dense kernel can be decomposed into it."""
        return getattr(self, "between", None) is None

    @property
    def name(self) -> str:
        """The lower-case name by which the command line and saved files know the kind."""
        return type(self).__name__.lower()

    def __str__(self) -> str:
        """As the command line spells it, without what is as by default; `kinds.parse` is the way back."""
        given: list[str] = []
        named = False  # after a value that is left out, the others need their names
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                named = True
            else:
                given.append(f"{field.name}={value!r}" if named else repr(value))
        return f"{self.name}({', '.join(given)})" if given else self.name

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `kinds.from_dict` is the way back.

        Raises:
            InputError: what stands between was given as code, which JSON can't hold.
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        between = values.get("between")
        if between is not None and not isinstance(between, str):
            raise InputError(
                f"{self} can't be written as JSON: give `between` as the name of an activation of torch.nn."
            )
        return {"kind": self.name, **values}

    @abstractmethod
    def _chain(self, dense: Conv) -> list[Conv]:
        """The primitive convolutions; the input size of all but the first is filled in by `layers`."""

    @abstractmethod
    def _module(self, dense: Conv, device: torch.device | str | None, dtype: torch.dtype | None) -> nn.Module: ...

    def _why_not(self, dense: Conv) -> str | None:
        return None


def _given(dense: Conv | None, sizes: dict[str, Any]) -> Conv:
    if dense is None:
        return conv(**sizes)
    return dataclasses.replace(dense, **sizes) if sizes else dense


def _sized(chain: list[Conv]) -> list[Conv]:
    """Each convolution with its input's size: the output's of the one before."""
    sized = chain[:1]
    for layer in chain[1:]:
        before = sized[-1]
        h, w = before.out_size if before.h and before.w else (0, 0)
        sized.append(dataclasses.replace(layer, h=h, w=w))
    return sized
