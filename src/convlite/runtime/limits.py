"""What a service takes at most, so that no sender can fill its memory or hold it up."""

from __future__ import annotations

from dataclasses import dataclass, fields
from io import BytesIO

from ..data.encoded import File, content_of
from ..data.pictures import guarded
from ..errors import InputError, need

STARTS = {"image/jpeg": b"\xff\xd8", "image/png": b"\x89PNG\r\n\x1a\n", "image/webp": b"RIFF"}


@dataclass(frozen=True)
class Limits:
    """All above zero.

    Arguments:
        body: bytes of an encoded picture.
        pixels: of a picture, by its header: a few bytes may decode to gigabytes.
        seconds: to receive a request.
        waiting: pictures that are decoded or wait for the engine.
        held: bytes of all pictures that are being received or decoded.
        connections: at once.
    """

    body: int = 10_000_000
    pixels: int = 25_000_000
    seconds: float = 10.0
    waiting: int = 256
    held: int = 256_000_000
    connections: int = 1024

    def __post_init__(self) -> None:
        for each in fields(self):
            if not getattr(self, each.name) > 0:
                raise InputError(f"The limit {each.name} is above zero, not {getattr(self, each.name)}.")


def refused(content: bytes, limits: Limits) -> tuple[int, str] | None:
    """Why a picture is not decoded, as an HTTP status and a sentence; by its first bytes and its header alone."""
    if not content.startswith(tuple(STARTS.values())):  # Pillow's decoders of other formats are for trusted files
        return 400, "The body is no JPEG, PNG or WebP picture."
    size = guarded(content, _size)
    if isinstance(size, str):
        return 400, f"The picture can't be read: {size}."
    if size[0] * size[1] > limits.pixels:
        return 413, f"The picture has {size[0]}x{size[1]} pixels: send {limits.pixels:,} at most."
    return None


def _size(file: File) -> tuple[int, int]:
    with need("PIL.Image", "serve").open(BytesIO(content_of(file))) as image:  # nothing is decoded
        width, height = image.size
        return width, height
