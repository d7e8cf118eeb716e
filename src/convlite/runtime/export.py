"""A network as a file that other engines run, with all that it takes to use it beside the numbers."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, RunError, need
from ..files import check_writable, write_json, write_whole
from ..preprocess import Preprocess
from .engines import DEFAULT, load, open_engine
from .executorch import lowered
from .exported import INPUT, OUTPUT, Exported
from .optimise import difference, optimise
from .quantise import Calibration, quantise
from .trace import quiet, traced
from .weights import halve, rounded_

WEIGHTS = ("fp32", "fp16", "bf16", "int8")
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "pt2": ".pt2", "executorch": ".pte"}
FORMATS = {suffix: name for name, suffix in SUFFIXES.items()}
OPSET = 18
_TOLERANCE = 1e-4  # of the largest score, between the network and its file


def export(
    model: nn.Module,
    out: str | Path,
    shape: tuple[int, int, int],
    *,
    to: str = "onnx",
    precision: str = "fp32",
    images: Tensor | Calibration | None = None,
    preprocess: Preprocess | None = None,
    classes: Sequence[str] = (),
) -> Exported:
    """Write a network for other engines: any batch, and any image size where the network takes any.

    Batch norms are folded first (see `optimise`). The file is run before it is kept, and its answer compared.

    Arguments:
        out: the file to write, which ends in .onnx, .xml (OpenVINO), .pt2 (torch.export) or .pte (ExecuTorch: of
            that size alone, and one image at a time). Beside it stands a JSON file of that name and .json: input,
            preprocessing, classes.
        shape: channels, height and width that the network is made for.
        to: "onnx", "openvino", "pt2" or "executorch".
        precision: of the weights. "fp16" and "bf16" halve the file: engines compute with the rounded weights in
            fp32, or in what they are asked for. "int8" is what engines compute in (see `quantise`).
        images: for "int8", float32 (N, C, H, W), as the network takes them; or with labels and a bound.

    Raises:
        InputError: no such format, none of that precision, int8 without images, several outputs, or the network
            holds an operation that the format can't express.
        RunError: the file answers differently, or int8 loses more than the bound.
    """
    path = Path(out)
    if to not in SUFFIXES or path.suffix != SUFFIXES[to]:
        known = ", ".join(f"{name} ({suffix})" for name, suffix in SUFFIXES.items())
        raise InputError(f"Can't export {to!r} to {path.name}: the formats and their files are {known}.")
    calibration = _calibration(precision, images, to, shape)
    check_writable(path.parent)
    example = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    light = optimise(copy.deepcopy(model).cpu(), example)
    _check_answer(light, example)
    if precision in ("fp16", "bf16"):
        rounded_(light, precision)
    light.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    with tempfile.TemporaryDirectory() as folder:  # what fails leaves an older file as it was
        file, cost = Path(folder) / path.name, None
        if to == "pt2":
            program = traced(light, example)
            torch.export.save(program, file)
        elif to == "executorch":
            program = traced(light, example[:1], any_size=False, any_batch=False)
            file.write_bytes(lowered(program))
        else:
            program, graph = _portable(light, example, file)
            if calibration is not None:
                graph, cost = quantise(graph, calibration, partial(_tried, file))
            elif precision != "fp32":
                graph = halve(graph, precision)
            _save(graph, file)
        about = Exported(path, _shape(program), precision, preprocess, tuple(classes), cost)
        trial = replace(about, path=file)
        write_json(trial.about, trial.to_dict())
        _check(light, example, trial)
        for file in (*reversed(trial.files), trial.about):  # weights before the structure that names them
            write_whole(path.with_name(file.name), partial(shutil.copyfile, file))
    return about


def _check_answer(light: nn.Module, example: Tensor) -> None:
    with torch.no_grad():
        answer = light(example)
    if not isinstance(answer, Tensor):
        raise InputError(
            f"An exported network answers with one tensor, and this one returns a "
            f"{type(answer).__name__}: export a module around it that returns the part that is wanted."
        )


def _calibration(
    precision: str, images: Tensor | Calibration | None, to: str, shape: tuple[int, int, int]
) -> Calibration | None:
    """What int8 is fitted to; None for the other precisions."""
    if precision not in WEIGHTS:
        raise InputError(f"There is no precision {precision!r} of weights: give one of {', '.join(WEIGHTS)}.")
    if to in ("pt2", "executorch") and precision != "fp32":
        raise InputError(
            f"A {SUFFIXES[to]} file is written in fp32 only, not {precision}: export to onnx or openvino."
        )
    if precision != "int8":
        return None
    if images is None:
        raise InputError("int8 is fitted to images, and none were given: give some that the network was made for.")
    given = images if isinstance(images, Calibration) else Calibration(images)
    if tuple(given.images.shape[1:]) != tuple(shape):
        size, wanted = ("x".join(map(str, one)) for one in (given.images.shape[1:], shape))
        raise InputError(f"The images to fit int8 to are {size}, and the network is exported for {wanted}.")
    return given


def _portable(light: nn.Module, example: Tensor, file: Path) -> tuple[torch.export.ExportedProgram, Any]:
    """Traced, and as an ONNX model: for any size, if that answers as the network does at another than it saw.

    Torch writes some operations, such as adaptive pooling to several pixels, for the size that it saw.
    """
    program = traced(light, example)
    graph = _onnx(program)
    if None not in _shape(program)[2:]:
        return program, graph
    n, channels, height, width = example.shape
    other = torch.randn(n, channels, height + 32, width + 64, generator=torch.Generator().manual_seed(1))
    try:
        with torch.no_grad():
            expected = light(other)
        if difference(expected, torch.from_numpy(_tried(file, graph)(other.numpy()))) <= _TOLERANCE:
            return program, graph
    except (RuntimeError, InputError):  # the network can't take that size, or the file can't
        pass
    program = traced(light, example, any_size=False)
    return program, _onnx(program)


def _save(graph: Any, path: Path) -> None:
    """An ONNX model, in the format that the file's name ends in."""
    onnx = need("onnx", "ship")
    for each in (graph, graph.graph, *graph.graph.node):  # where in which source file on whose machine it was made
        del each.metadata_props[:]
    if path.suffix == ".onnx":
        onnx.save_model(graph, path)
    else:
        openvino = need("openvino", "ship")
        openvino.save_model(openvino.Core().read_model(graph.SerializeToString()), path, compress_to_fp16=False)


def _tried(path: Path, graph: Any) -> Callable[[Any], Any]:
    """A model as it will be kept, on the engine that reads it."""
    _save(copy.deepcopy(graph), path)
    return load(path, DEFAULT[path.suffix], "fp32", torch.get_num_threads())


def _onnx(program: torch.export.ExportedProgram) -> Any:
    need("onnx", "ship")
    need("onnxscript", "ship")
    try:
        with quiet():
            made = torch.onnx.export(
                program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], opset_version=OPSET, verbose=False
            )
    except torch.onnx.OnnxExporterError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise InputError(f"ONNX can't express this network: {reason}") from error
    assert made is not None
    return made.model_proto


def _shape(program: torch.export.ExportedProgram) -> tuple[int | None, ...]:
    (name,) = program.graph_signature.user_inputs
    node = next(node for node in program.graph.nodes if node.name == name)
    return tuple(size if isinstance(size, int) else None for size in node.meta["val"].shape)


def _check(light: nn.Module, example: Tensor, exported: Exported) -> None:
    precision = "int8" if exported.precision == "int8" else "fp32"
    session = open_engine(exported.path, DEFAULT[exported.path.suffix], precision, torch.get_num_threads())
    given = torch.from_numpy(session(example.numpy()))
    with torch.no_grad():
        worst = difference(light(example), given)
    if precision == "fp32" and not worst <= _TOLERANCE:  # what int8 loses was measured on pictures, not on noise
        raise RunError(
            f"{exported.path} answers an image differently by {worst:.1e} of the largest score: don't use it, and "
            "report the network."
        )
