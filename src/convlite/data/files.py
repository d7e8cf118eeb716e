"""Labelled pictures that stay encoded until they are asked for, and are then decoded ahead, in threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError
from ..preprocess import Preprocess
from .encoded import File
from .images import Images
from .masks import Masks
from .pictures import Window, read

AHEAD = 2  # batches decoded before they are asked for: enough to never wait, where decoding is fast enough


@dataclass(frozen=True, eq=False)
class Files:
    """Labelled pictures in files; used in the same way as `Images`.

    Arguments:
        files: where each picture is.
        names: what each is called, within the source.
        targets: int64, (N,), indices into the data's classes; or the pictures' masks.
        how: what decoded pictures are brought to.
        skip: leave out what can't be read, instead of stopping.
        broken: why, by name, what was found to be unreadable so far.
        near: an unreadable image is replaced from its own part of `parts`, not from all.
        source: what the names are relative to, for messages.
        rows: which of the files these are, in order; all by default.
    """

    files: Sequence[File]
    names: Sequence[str]
    targets: Tensor | Masks
    how: Preprocess
    skip: bool = False
    broken: dict[str, str] = field(default_factory=dict)
    source: str = ""
    near: bool = False
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.files) if self.rows is None else len(self.rows)

    def __getitem__(self, index: Tensor | slice) -> Files:
        rows = torch.arange(len(self.files)) if self.rows is None else self.rows
        return replace(self, rows=rows[index])

    @property
    def labels(self) -> Tensor:
        """The classes, int64 (N,).

        Raises:
            InputError: these are masks, which only come with their images.
        """
        if not isinstance(self.targets, Tensor):
            raise InputError("These images have a mask each and no class: take the labels of their parts.")
        return self.targets if self.rows is None else self.targets[self.rows]

    def with_whole_masks(self) -> Files:
        """The same images, with masks that are not scaled, if all have one size: what answers are scored on."""
        if not isinstance(self.targets, Masks):
            return self
        return replace(self, targets=self.targets.unscaled(self.how))

    def read(self, index: int, window: Window | None = None) -> tuple[Tensor, Tensor]:
        """One image, uint8 (C, H, W), and its label: decoded, and its middle or the window's part scaled.

        Raises:
            InputError: it can't be read.
        """
        found = self._try(index, window)
        if isinstance(found, str):
            raise InputError(f"{Path(self.source, self.name(index))} can't be read ({found}): replace it.")
        return found

    def parts(
        self,
        indices: Iterable[Tensor],
        *,
        windows: Callable[[int], Window] | None = None,
        replaced: bool = False,
        workers: int | None = None,
    ) -> Iterator[Images]:
        """The images of each index (n,) in turn, the next ones being decoded meanwhile.

        Arguments:
            windows: for an image's index, the part of it to take; by default its middle.
            replaced: with `skip`, the next readable image takes an unreadable one's place, so that batches
                keep their size. Otherwise they lack it.
            workers: threads that decode; by default one a processor. 0 decodes when asked, in this thread. The
                images are the same with any number.

        Raises:
            InputError: an image can't be read, and `skip` is off; or none can.
        """
        count = processors() if workers is None else workers
        if count < 0:
            raise InputError(f"The number of workers is 0 or more, not {count}.")

        if count == 0:
            for index in indices:
                yield self._gathered([self._row(others, windows) for others in self._others(index, replaced)])
            return
        pool = ThreadPoolExecutor(count, thread_name_prefix="decode")  # decoders let go of the interpreter lock
        waiting: deque[list[Future[tuple[Tensor, Tensor] | None]]] = deque()
        try:
            for index in indices:
                rows = self._others(index, replaced)
                waiting.append([pool.submit(self._row, others, windows) for others in rows])
                if len(waiting) > AHEAD:
                    yield self._gathered([each.result() for each in waiting.popleft()])
            while waiting:
                yield self._gathered([each.result() for each in waiting.popleft()])
        finally:
            pool.shutdown(cancel_futures=True)

    def _others(self, index: Tensor, replaced: bool) -> Iterator[Sequence[int]]:
        """For each image of a part, itself and those that may take its place, in order."""
        part, count = index.tolist(), len(self)
        for place, i in enumerate(part):
            if not replaced:
                yield [i]
            elif self.near:
                yield part[place:] + part[:place]
            else:
                yield range(i, i + count)

    def _row(self, others: Sequence[int], windows: Callable[[int], Window] | None) -> tuple[Tensor, Tensor] | None:
        """The first of these images that can be read, and its label; or None."""
        for i in others:
            at = i % len(self)
            name = self.name(at)
            if name in self.broken:
                continue
            found = self._try(at, windows and windows(at))
            if not isinstance(found, str):
                return found
            if not self.skip:
                where = Path(self.source, name)
                raise InputError(
                    f"{where} can't be read ({found}): replace it, or leave such files out with skip_corrupt."
                )
            self.broken[name] = found
        if len(others) > 1:
            raise InputError(f"None of {len(others)} images can be read, as {self.name(others[0])}: replace them.")
        return None

    def _try(self, index: int, window: Window | None) -> tuple[Tensor, Tensor] | str:
        at = self._at(index)
        pixels = read(self.files[at], self.how, window)
        if isinstance(pixels, str):
            return pixels
        if isinstance(self.targets, Tensor):
            return pixels, self.targets[at]
        mask = self.targets.read(at, self.how, window)
        return mask if isinstance(mask, str) else (pixels, mask)

    def _gathered(self, rows: Sequence[tuple[Tensor, Tensor] | None]) -> Images:
        there = [row for row in rows if row is not None]
        channels, height, width = self.how.shape
        pixels = torch.empty((len(there), height, width, channels), dtype=torch.uint8).permute(0, 3, 1, 2)
        for place, (image, _) in zip(pixels, there, strict=True):
            place.copy_(image)
        labels = [label for _, label in there]
        return Images(pixels, torch.stack(labels) if labels else torch.empty(0, dtype=torch.int64))

    def _at(self, index: int) -> int:
        return index if self.rows is None else int(self.rows[index])

    def name(self, index: int) -> str:
        """What an image is called in messages and in `broken`."""
        return self.names[self._at(index)]


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
