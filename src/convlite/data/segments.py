"""Pictures and their masks, in folders `images` and `masks`: which belong together, and whether they fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from ..errors import InputError
from .archives import Listing
from .encoded import File, content_of
from .folders import TEST, TRAIN, held_out
from .masks import values
from .pictures import guarded, in_threads, size_of
from .progress import track

IMAGES, MASKS = "images", "masks"
NAMES = "classes.txt"  # beside them or above: a class a line
IGNORE = 255  # what no class has in a mask, where nothing else is said
Pair = tuple[str, str]  # names of an image and of its mask


def has_masks(found: Listing) -> bool:
    """Whether these are images with masks, and not class folders."""
    return any({f"{part}{IMAGES}", f"{part}{MASKS}"} & found.folders for part in ("", f"{TRAIN}/"))


def pairs(found: Listing, source: str) -> tuple[list[Pair], list[Pair]]:
    """Images with their masks, of the same name but for its ending: to learn from, and to measure on.

    ROOT/train beside ROOT/test (or ROOT/val) is used as given. Otherwise about one in five is held out, by a hash
    of the image's name.

    Raises:
        InputError: an image without a mask or the reverse, or a side without any.
    """
    tops = {name.split("/")[0] for name in found.folders}
    if TRAIN in tops:
        test = next((name for name in TEST if name in tops), None)
        if test is None:
            raise InputError(
                f"{source} has only {TRAIN}, nothing to measure on: expected was {source}/test beside it."
            )
        sides = _pairs(found, f"{TRAIN}/", source), _pairs(found, f"{test}/", source)
    else:
        every = _pairs(found, "", source)
        sides = [p for p in every if not held_out(p[0])], [p for p in every if held_out(p[0])]
    if not all(sides):
        raise InputError(
            f"{source} has {len(sides[0])} images with masks to learn from and {len(sides[1])} to measure on: add "
            "images, so that there are both."
        )
    return sides


def check(
    found: Listing, every: Sequence[Pair], source: str, ignore: int, progress: bool
) -> tuple[tuple[int, str], dict[str, str]]:
    """Look at every mask.

    Returns:
        The highest value in them, but for `ignore`, and a mask that has it; and why some can't be read, by image.

    Raises:
        InputError: a mask of another size than its image.
    """
    highest, broken = (-1, ""), {}
    sizes = in_threads(size_of, [found.files[image] for image, _ in every])
    masks = track(in_threads(_look, [found.files[mask] for _, mask in every]), len(every), "masks", progress)
    for (image, mask), size, seen in zip(every, sizes, masks, strict=True):
        if isinstance(size, str) or isinstance(seen, str):
            broken[image] = size if isinstance(size, str) else str(seen)
            continue
        if seen[0] != size:
            theirs, own = ("x".join(map(str, each)) for each in (seen[0], size))
            raise InputError(
                f"The mask {source}/{mask} is of {theirs} and its image of {own}: both must have the same size."
            )
        highest = max(highest, *((value, mask) for value in seen[1] if value != ignore), (-1, ""))
    return highest, broken


def named(
    found: Listing, classes: Sequence[str] | int | None, highest: tuple[int, str], source: str
) -> tuple[str, ...]:
    """The classes' names: as given, from classes.txt, or the numbers that the masks hold.

    Arguments:
        highest: the highest value in the masks, and a mask that has it.

    Raises:
        InputError: the masks hold values beyond the classes, or fewer than two classes.
    """
    if classes is None and NAMES in found.files:
        lines = content_of(found.files[NAMES]).decode("utf-8", "replace").splitlines()
        classes = [line.strip() for line in lines if line.strip()]
    if classes is None:
        classes = highest[0] + 1
    names = tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(classes)
    if highest[0] >= len(names):
        raise InputError(
            f"The mask {source}/{highest[1]} holds {highest[0]}, beyond the {len(names)} classes from 0: give more "
            "classes, or that value as the one to ignore."
        )
    if len(names) < 2:
        raise InputError(f"The masks of {source} have {len(names)} classes: at least two are needed.")
    return names


def _look(file: File) -> tuple[tuple[int, int], tuple[int, ...]] | str:
    def see(file: File) -> tuple[tuple[int, int], tuple[int, ...]]:
        found = values(file)
        height, width = found.shape
        return (height, width), tuple(set(found.tobytes()))

    return guarded(file, see)


def _pairs(found: Listing, part: str, source: str) -> list[Pair]:
    sides = []
    for folder in (f"{part}{IMAGES}/", f"{part}{MASKS}/"):
        inside = [name for name in sorted(found.files) if name.startswith(folder)]
        if not inside:
            raise InputError(
                f"The folder {source}/{folder[:-1]} has no files: expected were images and their masks."
            )
        sides.append({str(PurePosixPath(name.removeprefix(folder)).with_suffix("")): name for name in inside})
    images, masks = sides
    lonely = sorted(set(images) ^ set(masks))
    if lonely:
        name = lonely[0]
        has, lacks = ("image", "mask") if name in images else ("mask", "image")
        raise InputError(
            f"The {has} {source}/{(images | masks)[name]} has no {lacks} of that name: add or remove it."
        )
    return [(images[name], masks[name]) for name in sorted(images)]
