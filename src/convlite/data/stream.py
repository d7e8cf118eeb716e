"""Labelled pictures that come one after the other, of which only some are ever held."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..preprocess import Preprocess
from .encoded import content_of
from .files import Files
from .images import Images
from .pictures import Window
from .tables import Table, encoded

BUFFER = 1000  # encoded pictures held at once, to draw the next one from; whole shards change places too


@dataclass(frozen=True, eq=False)
class Stream:
    """Labelled pictures of a table that is streamed; used as `Files` are, but only in the order in which they come.

    Arguments:
        table: its rows.
        index: the number of each class, by how it stands in the table.
        labels: int64, (N,): the classes of all rows, in the table's order.
        how: what decoded pictures are brought to.
        skip: leave out what can't be read, instead of stopping.
        broken: why, by name, what was found to be unreadable so far.
        source: what this is a part of, for messages.
        seed: what the order comes from; the table's own order where None.
    """

    table: Table
    index: Mapping[str, int]
    labels: Tensor
    how: Preprocess
    skip: bool
    broken: dict[str, str]
    source: str
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: Tensor | slice) -> Stream:
        raise InputError(
            f"{self.source} is streamed, which leaves no rows to choose from: load it without streaming."
        )

    def shuffled(self, seed: int) -> Stream:
        """The same in another order, that of the seed."""
        return replace(self, seed=seed)

    def parts(
        self,
        indices: Iterable[Tensor],
        *,
        windows: Callable[[int], Window] | None = None,
        replaced: bool = False,
        workers: int | None = None,
    ) -> Iterator[Images]:
        """The images of each index (n,) in turn, as `Files.parts`; indices are places in this order, rising.

        What can't be read is replaced by the next readable image of the same part.
        """
        held, names = _Held(len(self)), _Held(len(self))
        labels = torch.zeros(len(self), dtype=torch.int64)
        files = Files(held, names, labels, self.how, self.skip, self.broken, self.source, near=True)
        waiting: deque[Tensor] = deque()

        def feed() -> Iterator[Tensor]:
            rows = enumerate(self._rows())
            for index in indices:
                wanted, last = set(index.tolist()), int(index.max())
                for place, row in rows:
                    if place in wanted:
                        held.content[place] = encoded(row[self.table.picture])
                        names.content[place] = _name(row, self.table.picture)
                        labels[place] = self.index[str(row[self.table.label])]
                    if place == last:
                        break
                waiting.append(index)
                yield index

        for part in files.parts(feed(), windows=windows, replaced=replaced, workers=workers):
            for place in waiting.popleft().tolist():
                del held.content[place], names.content[place]
            yield part

    def _rows(self) -> Iterable[Any]:
        if self.seed is None:
            return self.table.rows
        return self.table.rows.shuffle(seed=self.seed, buffer_size=BUFFER)


class _Held(Sequence[Any]):
    """What was read and is still needed, by its place."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.content: dict[int, Any] = {}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, place: Any) -> Any:
        return self.content[place]


def _name(row: Mapping[str, Any], picture: str) -> str:
    """What a picture is called, wherever it comes in the order: its key, its file's name, or what it holds."""
    cell = row[picture]
    named = row.get("__key__") or (isinstance(cell, dict) and cell.get("path"))
    if named:
        return str(named)
    return f"the picture of sha256 {hashlib.sha256(content_of(encoded(cell))).hexdigest()[:16]}"
