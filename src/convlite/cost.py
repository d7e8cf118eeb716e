"""What a convolution, a layer or a network costs, as one value."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Cost:
    """The exact cost of one image through a layer or a network.

    Arguments:
        params: trainable parameters, biases included.
        macs: multiply-accumulates of convolutions and matrix products; nothing else is mixed in.
        weight_bytes: bytes of the parameters.
        input_bytes: bytes of the activations read.
        output_bytes: bytes of the activations written.

    Costs add (`a + b`: both run), scale (`3 * a`: three such layers) and compare:
    `a <= b` means that `a` is at most `b` in every field, so two costs can be incomparable.
    """

    params: int = 0
    macs: int = 0
    weight_bytes: int = 0
    input_bytes: int = 0
    output_bytes: int = 0

    @property
    def bytes(self) -> int:
        """All bytes that must be moved when nothing stays in a cache."""
        return self.weight_bytes + self.input_bytes + self.output_bytes

    @property
    def intensity(self) -> float:
        """Arithmetic intensity: multiply-accumulates per byte moved (the roofline's x axis)."""
        return self.macs / self.bytes if self.bytes else 0.0

    def _values(self) -> tuple[int, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))

    def __add__(self, other: Cost) -> Cost:
        if not isinstance(other, Cost):
            return NotImplemented
        return Cost(*(a + b for a, b in zip(self._values(), other._values())))

    def __radd__(self, other: object) -> Cost:
        return self if other == 0 else NotImplemented  # so that sum() works

    def __mul__(self, times: int) -> Cost:
        if not isinstance(times, int):
            return NotImplemented
        return Cost(*(times * a for a in self._values()))

    __rmul__ = __mul__

    def __le__(self, other: Cost) -> bool:
        if not isinstance(other, Cost):
            return NotImplemented
        return all(a <= b for a, b in zip(self._values(), other._values()))

    def __ge__(self, other: Cost) -> bool:
        if not isinstance(other, Cost):
            return NotImplemented
        return other <= self

    def __lt__(self, other: Cost) -> bool:
        if not isinstance(other, Cost):
            return NotImplemented
        return self <= other and self != other

    def __gt__(self, other: Cost) -> bool:
        if not isinstance(other, Cost):
            return NotImplemented
        return other < self

    def batch(self, images: int) -> Cost:
        """The cost of `images` at once: weights are read once, everything else scales."""
        return Cost(
            self.params,
            images * self.macs,
            self.weight_bytes,
            images * self.input_bytes,
            images * self.output_bytes,
        )

    def to_dict(self) -> dict[str, int]:
        """Plain JSON types, field by field."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
