"""Where an encoded picture is, and how to get at its bytes."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Part:
    """A stretch of a file, such as an archive's member; any thread or process can read it by itself.

    Arguments:
        path: the archive.
        offset: where the member's bytes begin.
        size: how many they are.
        deflated: they are compressed, as in most zip archives.
    """

    path: Path
    offset: int
    size: int
    deflated: bool = False

    def read(self) -> bytes:
        """The member's content.

        Raises:
            OSError: the archive is gone or was cut short.
            zlib.error: the compressed bytes make no sense.
        """
        with self.path.open("rb") as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) < self.size:
            raise OSError(f"{self.path} was cut short")
        return zlib.decompress(content, -zlib.MAX_WBITS) if self.deflated else content


File = Path | bytes | Part  # a file, its content, or a stretch of another


def content_of(file: File) -> bytes:
    """The encoded bytes.

    Raises:
        OSError: they can't be read.
    """
    if isinstance(file, bytes):
        return file
    return file.read() if isinstance(file, Part) else Path(file).read_bytes()
