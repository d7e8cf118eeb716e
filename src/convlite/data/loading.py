"""`load`: from a name, a folder or an archive to a `Data`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..errors import InputError, need
from ..preprocess import Preprocess, statistics
from .archives import Listing
from .digits import digits
from .encoded import File
from .files import Files
from .folders import listing, split
from .images import Images
from .masks import Masks
from .pictures import in_threads, size_of
from .progress import track
from .segments import IGNORE, check, has_masks, named, pairs
from .stream import Stream
from .tables import indexed, is_table, joined, parted, tables
from .values import Data, Source, in_random_order

SMALL = 96  # pictures that are all alike and no larger are kept as they are
LARGE = 224  # the size that others are brought to, as usual since AlexNet
SHARE = 0.5  # of the free memory: what takes more stays in its files
BATCH = 256  # pictures decoded at once when loading
SAMPLE = 1024  # pictures that the mean and deviation of files are taken from


def load(
    data: str | Path = "digits",
    *,
    size: int | tuple[int, int] | None = None,
    channels: int = 3,
    preprocess: Preprocess | None = None,
    skip_corrupt: bool = False,
    progress: bool = True,
    in_memory: bool | None = None,
    classes: Sequence[str] | int | None = None,
    ignore: int = IGNORE,
    streaming: bool = False,
) -> Data:
    """Labelled images, checked and split: small pictures in memory as uint8, others decoded when they are needed.

    Arguments:
        data: `digits`, the embedded handwritten digits (1,347 to learn from, 450 held out); or a folder,
            or a tar or zip archive of one, that holds a folder of images for each class, or such folders
            in `train` and `test` (or `val`; with both, `test` is measured on). Without a split of its
            own, about one file in five is held out by a hash of its name, so that files may be added
            without moving the others. With `images` and `masks` in the place of class folders, the labels are
            masks: the number of a class for every pixel, in files named as their images. Parquet files and
            WebDataset shards, one of them or a folder, and names on the Hugging Face hub are read with `datasets`.
        size: height and width, or one number for both. Other pictures are cut to the largest centred
            part of that aspect and scaled. By default their own size if all are alike and at most 96 (with
            masks: of any size), else 224.
        channels: 3 for colour, 1 for grey.
        preprocess: what a network takes, in the place of size and channels.
        skip_corrupt: leave unreadable pictures out and name them in `skipped`.
        progress: show a bar on stderr when it takes over two seconds.
        in_memory: decode everything now, or nothing; by default what is no larger than 96 each way and takes no
            more than half of the free memory. Mean and deviation of files are those of 1,024 of them.
        classes: of masks, their names or how many there are; by default those in classes.txt beside the folders, a
            name a line, or as many as the masks hold.
        ignore: of masks, the value of pixels that are no class.
        streaming: of what `datasets` reads: neither download nor unpack it, but take its rows as they come,
            shuffled in a buffer of 1,000 pictures. It needs a test part.

    Raises:
        InputError: no such data, no or empty class folders, one class only, a picture that can't be
            read, more pixels than memory, or masks that don't fit their images or the classes.
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
        train, test, names = digits(how.size, how.channels)
        return Data(train, test, names, preprocess or _with_statistics(how, train), source="digits")
    asked = _Asked(how, channels, skip_corrupt, progress, in_memory, classes, ignore)
    if streaming:
        parts = _streamed(str(data), asked)
    elif is_table(str(data)):
        parts = _with_rows(str(data), asked)
    elif Path(data).exists():
        parts = _load_files(Path(data), asked)
    else:
        raise InputError(
            f"There is no data {str(data)!r}: give 'digits', a folder of class folders, an archive of one, or "
            "OWNER/NAME on the Hugging Face hub."
        )
    return parts if preprocess else replace(parts, preprocess=_with_statistics(parts.preprocess, parts.train))


def _plain(size: tuple[int, int], channels: int) -> Preprocess:
    """All of the picture; its numbers are not known yet."""
    return Preprocess(size, (0.0,) * channels, (1.0,) * channels)


def _with_statistics(how: Preprocess, images: Source) -> Preprocess:
    if not isinstance(images, Images):
        images, order = in_random_order(images, 0)
        images = next(images.parts([order[:SAMPLE].sort().values]))
        if not len(images):
            raise InputError("None of the pictures looked at can be read: check what they are.")
    mean, std = statistics(images.pixels)
    return replace(how, mean=mean, std=std)


@dataclass(frozen=True)
class _Asked:
    """What the caller of `load` wants, once it is known to be sound."""

    how: Preprocess | None
    channels: int
    skip: bool
    progress: bool
    in_memory: bool | None
    classes: Sequence[str] | int | None
    ignore: int


def _load_files(source: Path, asked: _Asked) -> Data:
    found = listing(source)
    if any(name.endswith(".cls") for name in found.files):
        return _with_rows(str(source), asked)  # a shard of a WebDataset
    return _with_masks(found, source, asked) if has_masks(found) else _with_classes(found, source, asked)


def _with_classes(found: Listing, source: Path, asked: _Asked) -> Data:
    parts = split(found, str(source))
    names = [name for name, _ in parts.train + parts.test]
    files = [found.files[name] for name in names]
    how = asked.how or _plain(_common_size(files) or (LARGE, LARGE), asked.channels)
    index = {name: label for label, name in enumerate(parts.classes)}
    labels = torch.tensor([index[c] for _, c in parts.train + parts.test])
    every = Files(files, names, labels, how, asked.skip, source=str(source))
    small = max(how.size) <= SMALL and _bytes(len(names), how) <= SHARE * _free()
    sides = _sides(every, len(parts.train), asked, small)
    if isinstance(sides[0], Images):
        lost = [name for name, label in index.items() if not (sides[0].labels == label).any()]
        if lost or not len(sides[1]):
            which = f"class {lost[0]}" if lost else "held-out part"
            raise InputError(
                f"Nothing of the {which} of {source} can be read: replace the {len(every.broken)} broken files."
            )
    return Data(sides[0], sides[1], parts.classes, how, str(source), every.broken)


def _with_rows(source: str, asked: _Asked) -> Data:
    train, test = tables(source)
    labels, others, classes = indexed(train.labels(), test.labels() if test else [], train.feature, source)
    files, rows = joined(train, test), torch.arange(len(labels) + len(others))
    count = len(labels)
    if test is None:
        side, rest = parted(count)
        rows, count = torch.cat([side, rest]), len(side)
    labels = torch.cat([labels, others])
    if not 0 < count < len(rows) or len(labels[rows[:count]].unique()) < len(labels.unique()):
        raise InputError(
            f"{source} has {len(rows)} rows, too few to learn all classes and measure: add rows or a test part."
        )
    how = asked.how or _plain(_common_size(files) or (LARGE, LARGE), asked.channels)
    lengths = {"train": len(labels) - len(others), "test": len(others)}
    names = [f"row {i} of {side}" for side, length in lengths.items() for i in range(length)]
    every = Files(files, names, labels, how, asked.skip, source=source)[rows]
    small = max(how.size) <= SMALL and _bytes(len(rows), how) <= SHARE * _free()
    sides = _sides(every, count, asked, small)
    return Data(sides[0], sides[1], classes, how, source, every.broken)


def _streamed(source: str, asked: _Asked) -> Data:
    if not is_table(source):
        raise InputError(f"{source} can't be streamed: give parquet files, WebDataset shards or a name on the hub.")
    train, test = tables(source, streaming=True)
    if test is None:
        raise InputError(
            f"{source} has no test part, and streamed rows can't be held out: load it without streaming."
        )
    labels, others, classes = indexed(train.labels(), test.labels(), train.feature, source)
    index = {str(i): i for i in range(len(classes))} if hasattr(train.feature, "names") else None
    index = index or {name: i for i, name in enumerate(classes)}
    how, broken = asked.how or _plain((LARGE, LARGE), asked.channels), dict[str, str]()
    sides = [
        Stream(table, index, known, how, asked.skip, broken, source)
        for table, known in ((train, labels), (test, others))
    ]
    return Data(sides[0], sides[1], classes, how, source, broken)


def _with_masks(found: Listing, source: Path, asked: _Asked) -> Data:
    train, test = pairs(found, str(source))
    highest, broken = check(found, train + test, str(source), asked.ignore, asked.progress)
    if broken and not asked.skip:
        name, why = next(iter(broken.items()))
        raise InputError(
            f"{source / name} or its mask can't be read ({why}): replace it, or leave such out with skip_corrupt."
        )
    classes = named(found, asked.classes, highest, str(source))
    names = [name for name, _ in train + test]
    files = [found.files[name] for name in names]
    masks = Masks([found.files[name] for _, name in train + test], len(classes), asked.ignore)
    how = asked.how or _plain(_common_size(files, most=None) or (LARGE, LARGE), asked.channels)
    every = Files(files, names, masks, how, asked.skip, broken, str(source))
    sides = _sides(every, len(train), asked, False)
    return Data(sides[0], sides[1], classes, how, str(source), broken, asked.ignore)


def _sides(every: Files, train: int, asked: _Asked, small: bool) -> tuple[Images, Images] | tuple[Files, Files]:
    """The first `train` pictures and the others: in memory if they are small, unless the caller wants otherwise."""
    in_memory = small if asked.in_memory is None else asked.in_memory
    _check_memory(len(every) if in_memory else min(len(every), BATCH), every.how, every.source)
    return _decoded(every, train, asked.progress) if in_memory else (every[:train], every[train:])


def _decoded(every: Files, train: int, progress: bool) -> tuple[Images, Images]:
    """All of it in memory: the first `train` images, and the others."""
    pixels = torch.empty((len(every), *every.how.shape), dtype=torch.uint8)
    labels = torch.empty(0)
    cuts = torch.arange(len(every)).split(BATCH)
    count = 0
    for part in track(every.parts(cuts), len(cuts), "reading images", progress):
        if not count:
            labels = part.labels.new_empty((len(every), *part.labels.shape[1:]))
        pixels[count : count + len(part)], labels[count : count + len(part)] = part.pixels, part.labels
        count += len(part)
    broken = set(every.broken)
    kept = sum(every.name(i) not in broken for i in range(train))
    return Images(pixels[:kept], labels[:kept]), Images(pixels[kept:count], labels[kept:count])


def _common_size(files: Sequence[File], most: int | None = SMALL) -> tuple[int, int] | None:
    """The size of all pictures, if it is one and no larger than `most`; no further is looked than it takes."""
    own: tuple[int, int] | None = None
    for size in in_threads(size_of, files):
        if isinstance(size, str):
            continue  # what can't be read is dealt with when decoding
        own = own or size
        if size != own or (most is not None and max(size) > most):
            return None
    return own


def _bytes(count: int, how: Preprocess) -> int:
    channels, height, width = how.shape
    return count * channels * height * width


def _free() -> int:
    return int(need("psutil", "train").virtual_memory().available)


def _check_memory(count: int, how: Preprocess, source: str) -> None:
    needed, free = _bytes(count, how), _free()
    if needed > 0.8 * free:
        raise InputError(
            f"{source} takes {needed / 1e9:.1f} GB as {count} images of {how.size[0]}x{how.size[1]}, more than the "
            f"{free / 1e9:.1f} GB of free memory allow: give a smaller size."
        )
