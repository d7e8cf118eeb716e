"""What a network says of image files, treated exactly as the images that it was evaluated on."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.pictures import SUFFIXES, in_threads, read
from ..errors import InputError
from ..preprocess import Preprocess
from ..train.metrics import as_evaluated, check_fit, device_of


@dataclass(frozen=True)
class Prediction:
    """The answer for one file.

    Arguments:
        file: its path.
        classes: the likeliest with their probability, best first; empty where the file can't be read.
        why_not: why it can't, in one phrase.
    """

    file: str
    classes: tuple[tuple[str, float], ...] = ()
    why_not: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, field by field."""
        return asdict(self)


def predict(
    model: nn.Module,
    paths: Iterable[str | Path],
    preprocess: Preprocess,
    classes: Sequence[str] | None = None,
    *,
    top: int = 5,
    batch_size: int = 32,
) -> Iterator[Prediction]:
    """Name what image files show; the network is left as it was.

    Arguments:
        paths: files, folders (every image in them) and patterns such as `photos/*.jpg`.
        preprocess: how the network takes its pictures: `Data.preprocess`, or that of published weights.
        classes: the names, in the order of the network's scores; "class 0" and so on where left out.
        top: how many to name.

    Returns:
        One prediction a file, in the order of `paths`, as they come.

    Raises:
        InputError: no such file, no image in a folder, or a network that doesn't fit. A file that is
            there but can't be read ends nothing: its prediction says why.
    """
    files = find_files(paths)
    if top < 1:
        raise InputError(f"The number of classes to name is 1 or more, not {top}.")
    count = check_fit(model, preprocess.shape, None if classes is None else len(classes))
    names = classes or [f"class {i}" for i in range(count)]
    look = partial(read, how=preprocess)

    def answers() -> Iterator[Prediction]:
        for start in range(0, len(files), batch_size):
            part = files[start : start + batch_size]
            pictures = list(in_threads(look, part))
            good = [picture for picture in pictures if isinstance(picture, Tensor)]
            scores = iter(_probabilities(model, torch.stack(good), preprocess) if good else ())
            for file, picture in zip(part, pictures, strict=True):
                if isinstance(picture, str):
                    yield Prediction(str(file), why_not=picture)
                else:
                    best = next(scores).topk(min(top, count))
                    named = zip(best.indices.tolist(), best.values.tolist(), strict=True)
                    yield Prediction(str(file), tuple((names[i], p) for i, p in named))

    return answers()


def find_files(paths: Iterable[str | Path]) -> list[Path]:
    """The files that paths, folders and patterns stand for.

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


def _probabilities(model: nn.Module, pixels: Tensor, preprocess: Preprocess) -> Tensor:
    with as_evaluated(model), torch.no_grad():
        inputs = preprocess.normalise(pixels.to(device_of(model)))
        return model(inputs).float().softmax(1).cpu()  # (N, classes)
