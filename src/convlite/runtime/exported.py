"""What stands beside an exported network: how its file is to be used, and how its numbers were kept."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import read_json
from ..preprocess import Preprocess

FORMAT = 1
INPUT, OUTPUT = "images", "scores"


@dataclass(frozen=True)
class Quantised:
    """What eight bits made of a network, on images that they were not fitted to.

    Arguments:
        kept: the layers left in fp32, since the bound on the drop asked for it.
        images: how many it was measured on.
        agreement: share of the answers (a class an image, or one a pixel) that are the fp32 network's.
        accuracy: of the fp32 network and of this one, where labels were given.
    """

    kept: tuple[str, ...]
    images: int
    agreement: float
    accuracy: tuple[float, float] | None = None

    @property
    def drop(self) -> float:
        """What was lost: accuracy, where labels were given, else agreement."""
        return 1 - self.agreement if self.accuracy is None else self.accuracy[0] - self.accuracy[1]


@dataclass(frozen=True)
class Exported:
    """An exported network: its file, and what the JSON beside it says.

    Arguments:
        path: of the file that engines read.
        shape: of the images, (N, C, H, W); None where any number goes.
        precision: of the weights: "fp32", "fp16", "bf16" or "int8".
        preprocess: how it takes pictures, where known; classes likewise.
        quantised: for "int8", what that cost.
    """

    path: Path
    shape: tuple[int | None, ...]
    precision: str = "fp32"
    preprocess: Preprocess | None = None
    classes: tuple[str, ...] = ()
    quantised: Quantised | None = None

    @property
    def files(self) -> list[Path]:
        """All that holds the network: OpenVINO keeps the weights apart."""
        return [self.path, *([self.path.with_suffix(".bin")] if self.path.suffix == ".xml" else [])]

    @property
    def about(self) -> Path:
        """The JSON file beside it."""
        return self.path.with_name(self.path.name + ".json")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the file is named without its folder, so that both can move."""
        return {
            "format": FORMAT,
            "file": self.path.name,
            "input": {"name": INPUT, "shape": list(self.shape), "type": "float32"},
            "output": {"name": OUTPUT},
            "precision": self.precision,
            "quantised": None if self.quantised is None else asdict(self.quantised),
            "sha256": {path.name: _digest(path) for path in self.files},
            "preprocess": None if self.preprocess is None else self.preprocess.to_dict(),
            "classes": list(self.classes),
        }


def read_exported(path: str | Path) -> Exported:
    """What stands beside an exported file.

    Raises:
        InputError: no such file, no JSON of ours beside it, or not what was written.
    """
    bare = Exported(Path(path), ())
    if not bare.path.is_file():
        raise InputError(f"There is no exported network {path}: make one with convlite export.")
    said = read_json(bare.about)
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        raise InputError(f"{bare.about} does not describe an exported network: export it again.")
    known = list(said["sha256"].values())
    if [_digest(file) for file in bare.files] != known:
        raise InputError(f"{path} is not the file that was exported, it was cut short or changed: copy it again.")
    how, cost = said["preprocess"], said.get("quantised")
    return Exported(
        bare.path,
        tuple(said["input"]["shape"]),
        said["precision"],
        None if how is None else Preprocess.from_dict(how),
        tuple(said["classes"]),
        None if cost is None else _quantised(cost),
    )


def _quantised(said: dict[str, Any]) -> Quantised:
    accuracy = said["accuracy"]
    return Quantised(
        tuple(said["kept"]), said["images"], said["agreement"], None if accuracy is None else tuple(accuracy)
    )


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"Can't read {file}: {error.strerror or error}.") from error
