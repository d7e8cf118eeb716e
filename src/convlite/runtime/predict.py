"""What a network says of image files, treated exactly as the images that it was evaluated on."""

from __future__ import annotations

import glob
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..data.files import AHEAD, processors
from ..data.jpeg import Pixels
from ..data.pictures import SUFFIXES, read
from ..errors import InputError
from .predictor import Named, Predictor
from .segment import label, look

A = TypeVar("A")


@dataclass(frozen=True)
class Labels:
    """A class for every pixel.

    Arguments:
        picture: uint8 (H, W, C), upright.
        mask: the classes' numbers, uint8 (H, W).
    """

    picture: Pixels
    mask: Pixels

    def shares(self, classes: int) -> list[float]:
        """Of each class, the share of the pixels."""
        found: list[float] = (np.bincount(self.mask.ravel(), minlength=classes) / self.mask.size).tolist()
        return found


@dataclass(frozen=True)
class Prediction:
    """The answer for one file.

    Arguments:
        file: its path.
        classes: the likeliest with their probability, or those of most pixels with their share, best first; empty
            where the file can't be read.
        why_not: why it can't, in one phrase.
        of_pixels: the numbers are shares of the picture, from a network that labels pixels.
        labels: of such a network.
    """

    file: str
    classes: Named = ()
    why_not: str | None = None
    of_pixels: bool = False
    labels: Labels | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; the labels are left out."""
        key = "share" if self.of_pixels else "probability"
        classes = [{"name": name, key: value} for name, value in self.classes]
        return {"file": self.file, "classes": classes, "why_not": self.why_not}


def predict(
    found: Predictor, files: Sequence[str | Path], *, top: int = 5, batch_size: int = 16
) -> Iterator[Prediction]:
    """Name what image files show. The next ones are decoded meanwhile, in threads.

    Arguments:
        files: see `find_files`.
        top: how many classes to name.

    Returns:
        One prediction a file, in order, as they come. A file that can't be read ends nothing: its prediction says
        why.

    Raises:
        InputError: no class or no picture at a time is asked for.
    """
    if top < 1 or batch_size < 1:
        raise InputError(
            f"The number of classes to name and of images at once is 1 or more, not {top}, {batch_size}."
        )
    return _labelled(found, files, top) if found.labels_pixels else _classified(found, files, top, batch_size)


def find_files(paths: Iterable[str | Path]) -> list[Path]:
    """The files that paths, folders (every image in them) and patterns such as `photos/*.jpg` stand for.

    Raises:
        InputError: one stands for none.
    """
    files: list[Path] = []
    for given in paths:
        path = Path(given)
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
            if not found:
                raise InputError(f"The folder {path} has no images: give one that has, or files.")
        elif path.exists():
            found = [path]
        else:
            matches = sorted(glob.glob(str(given), recursive=True))  # noqa: PTH207 - also absolute patterns
            found = [p for p in map(Path, matches) if p.is_file()]
            if not found:
                raise InputError(f"There is no file {str(given)!r}: give image files, folders or a pattern.")
        files += found
    if not files:
        raise InputError("There are no files to predict: give image files, folders or a pattern.")
    return files


def _classified(found: Predictor, files: Sequence[str | Path], top: int, batch_size: int) -> Iterator[Prediction]:
    for part, pictures in _decoded(partial(read, how=found.how), files, batch_size):
        good = [picture for picture in pictures if isinstance(picture, Tensor)]
        scores = iter(found.scores(torch.stack(good)) if good else ())  # rows of (n, classes)
        for file, picture in zip(part, pictures, strict=True):
            if isinstance(picture, str):
                yield Prediction(str(file), why_not=picture)
            else:
                yield Prediction(str(file), found.best(next(scores), top))


def _labelled(found: Predictor, files: Sequence[str | Path], top: int) -> Iterator[Prediction]:
    for (file,), (seen,) in _decoded(partial(look, how=found.how), files, 1):
        if isinstance(seen, str):
            yield Prediction(str(file), why_not=seen)
        else:
            labels = Labels(seen.picture, label(seen, found.scores))
            each = labels.shares(len(found.classes))
            order = [int(i) for i in np.argsort(each)[::-1][:top] if each[i] > 0]
            named = tuple((found.classes[i], each[i]) for i in order)
            yield Prediction(str(file), named, of_pixels=True, labels=labels)


def _decoded(
    decode: Callable[[Path], A], files: Sequence[str | Path], size: int
) -> Iterator[tuple[Sequence[str | Path], list[A]]]:
    """The files, so many at a time, and what became of them; the next ones are decoded meanwhile."""
    waiting: deque[tuple[Sequence[str | Path], list[Future[A]]]] = deque()
    pool = ThreadPoolExecutor(processors(), thread_name_prefix="decode")  # decoders let go of the interpreter lock
    try:
        for start in range(0, len(files), size):
            part = files[start : start + size]
            waiting.append((part, [pool.submit(decode, Path(file)) for file in part]))
            if len(waiting) > AHEAD:
                yield _done(waiting.popleft())
        while waiting:
            yield _done(waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _done(part: tuple[Sequence[str | Path], list[Future[A]]]) -> tuple[Sequence[str | Path], list[A]]:
    return part[0], [each.result() for each in part[1]]
