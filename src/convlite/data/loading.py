"""`load`: from a name, a folder or an archive to a `Data`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import InputError, need
from ..preprocess import Preprocess, statistics
from . import pictures
from .digits import digits
from .folders import Listing, listing, split
from .pictures import in_threads
from .progress import track
from .values import Data, Images

SMALL = 96  # pictures that are all alike and no larger are kept as they are
LARGE = 224  # the size that others are brought to, as usual since AlexNet


def load(
    data: str | Path = "digits",
    *,
    size: int | tuple[int, int] | None = None,
    channels: int = 3,
    preprocess: Preprocess | None = None,
    skip_corrupt: bool = False,
    progress: bool = True,
) -> Data:
    """Labelled images, checked, decoded and split, in memory as uint8.

    Arguments:
        data: `digits`, the embedded handwritten digits (1,347 to learn from, 450 held out); or a folder,
            or a tar or zip archive of one, that holds a folder of images for each class, or such folders
            in `train` and `test` (or `val`; with both, `test` is measured on). Without a split of its
            own, about one file in five is held out by a hash of its name, so that files may be added
            without moving the others.
        size: height and width, or one number for both. Other pictures are cut to the largest centred
            part of that aspect and scaled. By default their own size if all are alike and at most 96,
            else 224.
        channels: 3 for colour, 1 for grey.
        preprocess: what a network takes, in the place of size and channels.
        skip_corrupt: leave unreadable pictures out and name them in `skipped`.
        progress: show a bar on stderr when it takes over two seconds.

    Raises:
        InputError: no such data, no or empty class folders, one class only, a picture that can't be
            read, or more pixels than memory.
    """
    if channels not in (1, 3):
        raise InputError(f"Pictures have 1 channel (grey) or 3 (colour), not {channels}.")
    if preprocess is not None and (size is not None or channels != 3):
        raise InputError("Give either the size and channels of the pictures, or the whole preprocess.")
    wanted = (size, size) if isinstance(size, int) else size
    how = preprocess
    if how is None and wanted is not None:
        how = _plain(wanted, channels)
    if str(data) == "digits":
        how = how or _plain((32, 32), channels)
        train, test, classes = digits(how.size, how.channels)
        return Data(train, test, classes, preprocess or _with_statistics(how, train), source="digits")
    if not Path(data).exists():
        raise InputError(
            f"There is no data {str(data)!r}: give 'digits', a folder of class folders, or an archive of one."
        )
    parts = _load_files(Path(data), how, channels, skip_corrupt, progress)
    return parts if preprocess else replace(parts, preprocess=_with_statistics(parts.preprocess, parts.train))


def _plain(size: tuple[int, int], channels: int) -> Preprocess:
    """All of the picture; its numbers are not known yet."""
    return Preprocess(size, (0.0,) * channels, (1.0,) * channels)


def _with_statistics(how: Preprocess, images: Images) -> Preprocess:
    mean, std = statistics(images.pixels)
    return replace(how, mean=mean, std=std)


def _load_files(source: Path, how: Preprocess | None, channels: int, skip_corrupt: bool, progress: bool) -> Data:
    found = listing(source)
    parts = split(found, str(source))
    names = [name for name, _ in parts.train + parts.test]
    how = how or _plain(_common_size([found.files[name] for name in names], progress), channels)
    _check_memory(len(names), how.shape, str(source))

    pixels = torch.empty((len(names), *how.shape), dtype=torch.uint8)
    failures = {
        name: why
        for name, why in zip(names, _decode(found, names, pixels, how, stop=not skip_corrupt, progress=progress))
        if why
    }
    if failures and not skip_corrupt:
        name, why = next(iter(failures.items()))
        raise InputError(
            f"{source / name} can't be read ({why}): replace it, or leave such files out with skip_corrupt."
        )
    good = [row for row, name in enumerate(names) if name not in failures]
    for row, kept in enumerate(good):  # closing the gaps in place: a copy could take more than the memory has
        if row != kept:
            pixels[row] = pixels[kept]

    index = {name: label for label, name in enumerate(parts.classes)}
    labels = torch.tensor([index[c] for _, c in parts.train + parts.test])[good]
    count = sum(name not in failures for name, _ in parts.train)
    train = Images(pixels[:count], labels[:count])
    test = Images(pixels[count : len(good)], labels[count:])
    lost = [name for name, label in index.items() if not (train.labels == label).any()]
    if lost or not len(test):
        which = f"class {lost[0]}" if lost else "held-out part"
        raise InputError(
            f"Nothing of the {which} of {source} can be read: replace the {len(failures)} broken files."
        )
    skipped = tuple(failures.items())
    return Data(train, test, parts.classes, how, source=str(source), skipped=skipped)


def _decode(
    found: Listing, names: Sequence[str], pixels: Tensor, how: Preprocess, stop: bool, progress: bool
) -> list[str | None]:
    """Fill the rows of `pixels`; for each, why that failed, or None. `stop`: no further than a failure."""

    def decode(row: int) -> str | None:
        picture = pictures.read(found.files[names[row]], how)
        if isinstance(picture, str):
            return picture
        pixels[row] = picture
        return None

    failures = []
    for why in track(in_threads(decode, range(len(names))), len(names), "reading images", progress):
        failures.append(why)
        if why and stop:
            break
    return failures


def _common_size(files: Sequence[pictures.File], progress: bool) -> tuple[int, int]:
    sizes = track(in_threads(pictures.size_of, files), len(files), "looking at images", progress)
    alike = {size for size in sizes if not isinstance(size, str)}  # what can't be read is dealt with when decoding
    own = alike.pop() if len(alike) == 1 else (LARGE, LARGE)
    return own if max(own) <= SMALL else (LARGE, LARGE)


def _check_memory(count: int, shape: tuple[int, int, int], source: str) -> None:
    needed = count * shape[0] * shape[1] * shape[2]
    free = need("psutil", "train").virtual_memory().available
    if needed > 0.8 * free:
        raise InputError(
            f"{source} takes {needed / 1e9:.1f} GB as {count} images of {shape[1]}x{shape[2]}, more than the "
            f"{free / 1e9:.1f} GB of free memory allow: give a smaller size."
        )
