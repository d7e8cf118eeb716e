"""A network as a file that other engines run, with all that it takes to use it beside the numbers."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, RunError, need
from ..files import check_writable, read_json, write_json, write_whole
from ..preprocess import Preprocess
from .optimise import difference, optimise

FORMAT = 1
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2"}
OPSET = 18
INPUT, OUTPUT = "images", "scores"
_TOLERANCE = 1e-4  # of the largest score, between the network and its file


@dataclass(frozen=True)
class Exported:
    """An exported network: its file, and what the JSON beside it says.

    Arguments:
        path: of the file that engines read.
        shape: of the images, (N, C, H, W); None where any number goes.
        precision: of the weights: "fp32" or "int8".
        preprocess: how it takes pictures, where known; classes likewise.
    """

    path: Path
    shape: tuple[int | None, ...]
    precision: str = "fp32"
    preprocess: Preprocess | None = None
    classes: tuple[str, ...] = ()

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
            "sha256": {path.name: _digest(path) for path in self.files},
            "preprocess": None if self.preprocess is None else self.preprocess.to_dict(),
            "classes": list(self.classes),
        }


def export(
    model: nn.Module,
    out: str | Path,
    shape: tuple[int, int, int],
    *,
    to: str = "onnx",
    preprocess: Preprocess | None = None,
    classes: Sequence[str] = (),
) -> Exported:
    """Write a network for other engines: any batch, and any image size where the network takes any.

    Batch norms are folded first (see `optimise`). The file is run before it is kept, and its answer compared.

    Arguments:
        out: the file to write, which ends in .onnx, .xml (OpenVINO) or .pt2 (torch.export). Beside it stands
            a JSON file of that name and .json: input, preprocessing, classes.
        shape: channels, height and width that the network is made for.
        to: "onnx", "openvino" or "pt2".

    Raises:
        InputError: no such format, or the network holds an operation that the format can't express.
        RunError: the file answers differently.
    """
    path = Path(out)
    if to not in SUFFIXES or path.suffix != SUFFIXES[to]:
        known = ", ".join(f"{name} ({suffix})" for name, suffix in SUFFIXES.items())
        raise InputError(f"Can't export {to!r} to {path.name}: the formats and their files are {known}.")
    check_writable(path.parent)
    example = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    light = optimise(copy.deepcopy(model).cpu(), example)
    program = _program(light.to(memory_format=torch.contiguous_format), example)  # type: ignore[call-overload]
    how = _shape(program), "fp32", preprocess, tuple(classes)
    with tempfile.TemporaryDirectory() as folder:  # what fails leaves an older file as it was
        trial = Exported(Path(folder) / path.name, *how)
        _write(program, trial.path)
        write_json(trial.about, trial.to_dict())
        _check(light, example, trial)
        for file in (*reversed(trial.files), trial.about):  # weights before the structure that names them
            write_whole(path.with_name(file.name), partial(shutil.copyfile, file))
    return Exported(path, *how)


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
    how = said["preprocess"]
    return Exported(
        bare.path,
        tuple(said["input"]["shape"]),
        said["precision"],
        None if how is None else Preprocess.from_dict(how),
        tuple(said["classes"]),
    )


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"Can't read {file}: {error.strerror or error}.") from error


def _program(light: nn.Module, example: Tensor) -> torch.export.ExportedProgram:
    """Traced for any batch and size; a network that fixes one of them has it fixed."""
    dynamic = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    try:
        with _quiet():
            return torch.export.export(light, (example,), dynamic_shapes=(dynamic,))
    except (RuntimeError, ValueError, TypeError, torch._dynamo.exc.TorchDynamoException) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"torch.export can't trace {type(light).__name__}: {reason}") from error


def _write(program: torch.export.ExportedProgram, path: Path) -> None:
    """In the format that the file's name ends in."""
    if path.suffix == ".pt2":
        torch.export.save(program, path)
    elif path.suffix == ".onnx":
        _onnx(program).save(path, external_data=False)
    else:
        openvino = need("openvino", "ship")
        between = path.with_suffix(".onnx")
        _onnx(program).save(between, external_data=False)
        openvino.save_model(openvino.Core().read_model(between), path, compress_to_fp16=False)


def _onnx(program: torch.export.ExportedProgram) -> Any:
    need("onnx", "ship")
    need("onnxscript", "ship")
    try:
        with _quiet():
            return torch.onnx.export(
                program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], opset_version=OPSET, verbose=False
            )
    except torch.onnx.OnnxExporterError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise InputError(f"ONNX can't express this network: {reason}") from error


def _shape(program: torch.export.ExportedProgram) -> tuple[int | None, ...]:
    (name,) = program.graph_signature.user_inputs
    node = next(node for node in program.graph.nodes if node.name == name)
    return tuple(size if isinstance(size, int) else None for size in node.meta["val"].shape)


def _check(light: nn.Module, example: Tensor, exported: Exported) -> None:
    from .engines import DEFAULT, open_engine

    session = open_engine(exported.path, DEFAULT[exported.path.suffix], threads=torch.get_num_threads())
    with torch.no_grad():
        worst = difference(light(example), torch.from_numpy(session(example.numpy())))
    if not worst <= _TOLERANCE:
        raise RunError(
            f"{exported.path} answers an image differently by {worst:.1e} of the largest score: don't use it, and "
            "report the network."
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What torch's exporters say to their own developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)
