"""Folders of class folders, and archives of them: what they hold, and which part is held out."""

from __future__ import annotations

import hashlib
import lzma
import os
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ..errors import InputError
from .archives import Listing, junk, tar, zipped
from .encoded import File

TRAIN = "train"
TEST = ("test", "val", "valid", "validation")  # the first of these that is there is measured on
HELD_OUT = 5  # of class folders without a split, one file in five


@dataclass(frozen=True)
class Split:
    """Names of files with their class, for learning and for measuring."""

    train: tuple[tuple[str, str], ...]  # (file, class)
    test: tuple[tuple[str, str], ...]
    classes: tuple[str, ...]


def listing(source: Path) -> Listing:
    """Everything in a folder or in a tar or zip archive.

    Raises:
        InputError: nothing there, or it can't be read.
    """
    try:
        if source.is_dir():
            found = _folder(source)
        elif tarfile.is_tarfile(source):
            found = tar(source)
        elif zipfile.is_zipfile(source):
            found = zipped(source)
        else:
            raise InputError(f"{source} is neither a folder nor a tar or zip archive: give one of those.")
    except OSError as error:
        raise InputError(f"Can't read {error.filename or source}: {error.strerror or error}.") from error
    # What Python's archive readers raise on broken and on encrypted ones, besides OSError.
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        RuntimeError,
    ) as error:
        raise InputError(f"The archive {source} can't be read ({error}): fetch or pack it again.") from error
    return found


def split(found: Listing, source: str) -> Split:
    """Which files are learnt from and which are held out.

    ROOT/train beside ROOT/test (or ROOT/val) is used as given. Otherwise ROOT holds the class folders,
    and a file is held out if a hash of its name relative to ROOT says so: about one in five, and the
    same ones when files are added, on every machine.

    Raises:
        InputError: no class folders, one without images, only one class, or sides with different classes.
    """
    tops = {name.split("/")[0] for name in found.folders}
    tests = [name for name in TEST if name in tops]
    if TRAIN in tops and tests and tops <= {TRAIN, *TEST}:
        train, test = (_classes(found, part, f"{source}/{part}") for part in (TRAIN, tests[0]))
        if set(train) != set(test):
            odd = ", ".join(sorted(set(train) ^ set(test)))
            raise InputError(
                f"{source} has other classes in {TRAIN} than in {tests[0]} ({odd}): both need the same."
            )
        pairs = [tuple((f, c) for c in sorted(side) for f in side[c]) for side in (train, test)]
        return Split(pairs[0], pairs[1], tuple(sorted(train)))

    classes = _classes(found, "", source)
    pairs = [
        tuple((f, c) for c in sorted(classes) for f in classes[c] if held_out(f) is side) for side in (False, True)
    ]
    untrained = set(classes) - {c for _, c in pairs[0]}
    if untrained or not pairs[1]:
        which = f"the class {min(untrained)} only held-out images" if untrained else "no image held out"
        raise InputError(
            f"{source} has too few images to hold one in five out, which leaves {which}: "
            f"add images, or split them yourself into {source}/train and {source}/test."
        )
    return Split(pairs[0], pairs[1], tuple(sorted(classes)))


def held_out(name: str) -> bool:
    """Whether the file of this relative name is held out; it depends on nothing else."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT == 0


def _classes(found: Listing, part: str, source: str) -> dict[str, list[str]]:
    """The files of each class below `part` of the source, sorted."""
    prefix = f"{part}/" if part else ""
    depth = prefix.count("/") + 1
    names = {f.split("/")[depth - 1] for f in found.folders if f.startswith(prefix) and f.count("/") >= depth - 1}
    classes: dict[str, list[str]] = {name: [] for name in names}
    for file in sorted(found.files):
        if file.startswith(prefix) and file.count("/") >= depth:
            classes[file.split("/")[depth - 1]].append(file)
    if not classes:
        held = "only loose files" if found.files else "nothing"
        raise InputError(f"{source} holds {held}: it needs one folder of images for each class.")
    empty = sorted(name for name, files in classes.items() if not files)
    if empty:
        raise InputError(f"The class folder {source}/{empty[0]} has no images: fill it or remove it.")
    if len(classes) == 1:
        only = next(iter(classes))
        expected = f"{source}/test beside it" if only == TRAIN else "at least two class folders"
        raise InputError(f"{source} has only one class, {only}: expected was {expected}.")
    return classes


def _folder(root: Path) -> Listing:
    def fail(error: OSError) -> NoReturn:
        raise error

    files: dict[str, File] = {}
    folders = set()
    for parent, inner, names in os.walk(root, onerror=fail, followlinks=True):
        inner[:] = [name for name in inner if not junk(name)]
        here = Path(parent)
        folders |= {(here / name).relative_to(root).as_posix() for name in inner}
        files |= {(here / n).relative_to(root).as_posix(): here / n for n in names if not junk(n)}
    return Listing(files, frozenset(folders))
