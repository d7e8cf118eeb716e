"""Tables of pictures, through the package `datasets`: parquet, WebDataset shards, names on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from torch import Tensor

from ..errors import InputError, need
from .encoded import File
from .folders import TEST, TRAIN, held_out

LABELS = ("label", "labels", "cls", "class", "fine_label", "target")  # what columns of classes are called
PICTURES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture")
SHARDS = (".parquet", ".tar")
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Table:
    """The rows of one side, pictures still encoded.

    Arguments:
        rows: a `datasets.Dataset`, which lies on the disk, or an `IterableDataset`, which is streamed.
        picture: the column of pictures; `label`: that of classes.
    """

    rows: Any
    picture: str
    label: str

    @property
    def feature(self) -> Any:
        """What the table says of its classes."""
        return self.rows.features[self.label]

    def labels(self) -> list[Any]:
        """The classes, as they stand in the table; of a stream they are read once through."""
        if hasattr(self.rows, "__len__"):
            return list(self.rows[self.label])
        return [row[self.label] for row in self.rows.select_columns([self.label])]


@dataclass(frozen=True)
class Column(Sequence[File]):
    """A column of encoded pictures."""

    rows: Any
    name: str

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return encoded(self.rows[index][self.name])


def encoded(cell: Any) -> File:
    """A picture from a cell of a table: its bytes, or the file that the cell names; empty where there is none."""
    if isinstance(cell, dict) and cell.get("bytes") is None and cell.get("path"):
        return Path(cell["path"])
    return (cell.get("bytes") if isinstance(cell, dict) else cell) or b""


def is_table(data: str) -> bool:
    """Whether this is for `datasets`: a parquet file, a folder of shards, or a name on the hub."""
    path = Path(data)
    if not path.exists():
        return HUB_NAME.fullmatch(data) is not None
    if path.is_dir():
        inside = [each for each in path.rglob("*") if each.is_file() and not each.name.startswith(".")]
        shards = [each for each in inside if each.suffix in SHARDS]
        return bool(shards) and all(each.suffix in (*SHARDS, ".md", ".json", ".yaml", ".txt") for each in inside)
    return path.suffix == ".parquet"


def tables(source: str, streaming: bool = False) -> tuple[Table, Table | None]:
    """What is learnt from, and what is measured on, or None.

    Raises:
        InputError: it can't be read or reached, or has no columns of pictures and classes.
    """
    library, path = need("datasets", "train"), Path(source)
    kind, files = source, None
    if path.is_file():
        kind, files = ("parquet" if path.suffix == ".parquet" else "webdataset"), source
    try:
        if not path.exists():
            _reach_hub()
        with _quiet(library):
            found = library.load_dataset(kind, data_files=files, streaming=streaming)
    except (OSError, ValueError, library.exceptions.DatasetsError) as error:
        raise _refused(source, error) from error
    if TRAIN not in found:
        raise InputError(f"{source} has the parts {', '.join(found)}: expected was {TRAIN}.")
    test = next((name for name in TEST if name in found), None)
    train = _table(found[TRAIN], source)
    return train, None if test is None else _table(found[test], source)


def joined(train: Table, test: Table | None) -> Sequence[File]:
    """The encoded pictures of both, one after the other, read from the disk when they are asked for."""
    sides = [each.rows.select_columns([each.picture]) for each in (train, test) if each is not None]
    return Column(need("datasets", "train").concatenate_datasets(sides), train.picture)


def indexed(train: list[Any], test: list[Any], feature: Any, source: str) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Classes as numbers, int64 (N,), and their names: the table's own, or else the values in order.

    Raises:
        InputError: a row without a class, or fewer than two classes.
    """
    if any(label is None or label == -1 for label in (*train, *test)):  # -1: kept secret
        raise InputError(f"{source} has rows without a class: expected was one for each picture.")
    names = list(getattr(feature, "names", None) or [])
    if not names:
        values = sorted({str(label) for label in train}, key=lambda text: (not text.isdigit(), text.zfill(20)))
        names, index = values, {value: i for i, value in enumerate(values)}
        unknown = sorted({str(label) for label in test} - set(index))
        if unknown:
            raise InputError(f"{source} has a class in test that train lacks ({unknown[0]}): both need the same.")
        train, test = [index[str(label)] for label in train], [index[str(label)] for label in test]
    if len(names) < 2:
        raise InputError(f"{source} has only {len(names)} class: expected were at least two.")
    return torch.tensor(train), torch.tensor(test, dtype=torch.int64), tuple(names)


def parted(count: int) -> tuple[Tensor, Tensor]:
    """Rows of a table without a split: to learn from, and one in five to measure on, by their number alone."""
    held = torch.tensor([held_out(f"row {i}") for i in range(count)], dtype=torch.bool)
    return (~held).nonzero()[:, 0], held.nonzero()[:, 0]


def _table(rows: Any, source: str) -> Table:
    library = need("datasets", "train")
    pictures = _columns(rows, library.Image, PICTURES)
    labels = _columns(rows, library.ClassLabel, LABELS)
    for found, what, names in ((pictures, "pictures", PICTURES), (labels, "classes", LABELS)):
        if not found:
            raise InputError(
                f"{source} has the columns {', '.join(rows.features)} and none of {what}: name it {names[0]!r}."
            )
    picture = pictures[0]
    if isinstance(rows.features[picture], library.Image):
        rows = rows.cast_column(picture, library.Image(decode=False))
    return Table(rows, picture, labels[0])


def _columns(rows: Any, kind: type, names: Sequence[str]) -> list[str]:
    """Columns of that kind, or else of those names."""
    found = [name for name, feature in rows.features.items() if isinstance(feature, kind)]
    return found + [name for name in names if name in rows.features]


def _reach_hub() -> None:
    """Fail at once where the hub can't be reached: `datasets` would try again for half a minute.

    Raises:
        OSError: no connection.
    """
    constants = need("huggingface_hub.constants", "train")
    if not constants.HF_HUB_OFFLINE:  # or it takes what was downloaded before
        with suppress(HTTPError):  # whatever the answer, there is one
            urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=10).close()


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    """Without the package's own bars and complaints: what matters is raised."""
    bars, level = library.is_progress_bar_enabled(), library.logging.get_verbosity()
    library.disable_progress_bars()
    library.logging.set_verbosity(library.logging.CRITICAL)
    try:
        yield
    finally:
        library.logging.set_verbosity(level)
        if bars:
            library.enable_progress_bars()


def _refused(source: str, error: Exception) -> InputError:
    reason = str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
    if Path(source).exists():
        return InputError(f"{source} can't be read ({reason}): fetch it again.")
    return InputError(
        f"There is no file {source!r}, and the Hugging Face hub doesn't give data of that name ({reason}): check "
        "the name and the connection, or set HF_HUB_OFFLINE=1 for what was downloaded before."
    )
