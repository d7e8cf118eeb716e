"""The engines that run a network, behind one call: images in, scores out, in the precision that was asked for."""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib.util
import os
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import kernels
from ..analyse.latency import using
from ..errors import ConvliteError, InputError, need
from . import executorch
from .exported import read_exported
from .native import native
from .tape import Tapes
from .trace import traced

Array = np.ndarray
Run = Callable[[Array], Array]

PRECISIONS = ("fp32", "bf16", "int8")
ENGINES = {  # the package that each needs, and the files it reads; these and convlite also run modules as they are
    "torch": ("torch", (".pt2",)),
    "torch-channels-last": ("torch", (".pt2",)),
    "torch-compile": ("torch", (".pt2",)),
    "convlite": ("torch", (".pt2",)),  # torch with convlite's own convolutions
    "onnxruntime": ("onnxruntime", (".onnx",)),
    "openvino": ("openvino", (".onnx", ".xml")),
    "executorch": ("executorch", (".pte",)),
}
_PLACE = re.compile(r"(Exception from|Check '[^']*' failed at) \S+:\d+:\s*")  # where in OpenVINO's sources
SHAPES = 2  # of images, the first to come, that openvino plans for by themselves: 5 to 8% less time than for any
Shape = tuple[int, ...]
DEFAULT = {".pt2": "torch", ".onnx": "onnxruntime", ".xml": "openvino", ".pte": "executorch"}


@dataclass(frozen=True)
class Session:
    """A network on an engine.

    Call it with float32 images (N, C, H, W); it gives float32 scores, (N, classes) or (N, classes, H, W).
    """

    name: str
    precision: str
    threads: int
    run: Run

    def __call__(self, images: Array) -> Array:
        if not isinstance(images, np.ndarray) or images.dtype != np.float32 or images.ndim != 4:
            raise InputError(
                "An engine takes float32 images of shape (N, C, H, W) as a numpy array, given "
                f"{type(images).__name__} {getattr(images, 'dtype', '')} {tuple(getattr(images, 'shape', ()))}."
            )
        return self.run(images)


def why_not(engine: str) -> str | None:
    """Why an engine can't be used here; None where it can.

    Raises:
        InputError: there is no such engine.
    """
    if engine not in ENGINES:
        raise InputError(f"There is no engine {engine!r}: give one of {', '.join(ENGINES)}.")
    package = ENGINES[engine][0]
    if importlib.util.find_spec(package) is None:
        extra = executorch.EXTRA if engine == "executorch" else "ship"
        return f"{package} is not installed: run pip install 'convlite[{extra}]'"
    return kernels.why_not() if engine == "convlite" else None


def runs_modules(engine: str) -> bool:
    """Whether an engine runs modules as they are, and not exported files alone."""
    return ".pt2" in ENGINES.get(engine, ("", ()))[1]


def open_engine(
    network: nn.Module | str | Path, engine: str, precision: str = "fp32", threads: int | None = None
) -> Session:
    """A network on an engine.

    Arguments:
        network: an exported file that this engine reads, or for convlite and the torch engines also a module: it
            should come from `optimise`.
        precision: that it computes in: "fp32"; "bf16", where processor and engine have it; "int8" for a quantised
            file, of which some layers may be in fp32. Weights kept in sixteen bits are widened.
        threads: of the processor; as many as there are cores unless given.

    Raises:
        InputError: no such engine, it is not installed, it can't read this file, or hasn't that precision.
    """
    if (reason := why_not(engine)) is not None:
        raise InputError(f"The engine {engine} can't be used: {reason}.")
    if precision not in PRECISIONS:
        raise InputError(f"There is no precision {precision!r}: give one of {', '.join(PRECISIONS)}.")
    threads = threads_of(threads)
    if isinstance(network, nn.Module):
        if not runs_modules(engine):
            raise InputError(f"{engine} runs exported files, not modules: export the network first.")
        network = copy.deepcopy(network)
        own = _convlite(network, precision, threads) if engine == "convlite" else None
        return Session(engine, precision, threads, own or _torch(network, engine, precision, threads))
    path = Path(network)
    said = read_exported(path)
    if path.suffix not in ENGINES[engine][1]:
        raise InputError(f"{engine} reads {' and '.join(ENGINES[engine][1])} files, given {path.name}.")
    if (said.precision == "int8") != (precision == "int8"):
        raise InputError(
            f"{path.name} holds {said.precision} weights, and {precision} was asked for: "
            f"ask for {said.precision}, or export the network again."
        )
    return Session(engine, precision, threads, load(path, engine, precision, threads))


def load(path: Path, engine: str, precision: str, threads: int) -> Run:
    """A file on an engine, whatever stands beside it."""
    if engine == "convlite":
        return _convlite(torch.export.load(path), precision, threads)
    if engine.startswith("torch"):
        return _torch(torch.export.load(path).module(), engine, precision, threads)
    own = {"onnxruntime": _onnxruntime, "openvino": _openvino, "executorch": executorch.opened}
    return own[engine](path, precision, threads)


def threads_of(asked: int | None) -> int:
    """As many threads as asked for, or as there are cores; a warning where these are fewer."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if asked is None:
        return cores
    if asked < 1:
        raise InputError(f"An engine needs one thread at least, given {asked}.")
    if asked > cores:
        warnings.warn(f"{asked} threads on {cores} cores are in each other's way: give {cores}.", stacklevel=3)
    return asked


def _torch(module: nn.Module, engine: str, precision: str, threads: int) -> Run:
    if precision == "int8":
        raise InputError(f"{engine} runs no int8 files: use onnxruntime or openvino.")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    module = module.to(dtype)
    layout = torch.contiguous_format if engine == "torch" else torch.channels_last
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    call: Callable[[torch.Tensor], torch.Tensor] = torch.compile(module) if engine == "torch-compile" else module

    def run(images: Array) -> Array:
        with using(threads), _as_asked(), torch.no_grad():
            x = torch.from_numpy(images).to(dtype).contiguous(memory_format=layout)
            return call(x).float().numpy()

    return run


def _convlite(network: nn.Module | torch.export.ExportedProgram, precision: str, threads: int) -> Run:
    if precision != "fp32":
        raise InputError(f"convlite computes in fp32, not in {precision}: ask for fp32, or use another engine.")
    made = [Tapes(native(network))] if isinstance(network, torch.export.ExportedProgram) else []

    def run(images: Array) -> Array:
        with using(threads), _as_asked(), torch.no_grad():
            x = torch.from_numpy(images)
            for net in made:
                try:
                    return net(x).numpy()
                except ConvliteError:
                    raise
                except (AssertionError, RuntimeError):  # it was traced for other sizes
                    continue
            if not isinstance(network, nn.Module):
                raise InputError(f"The file was exported for other images than {images.shape}: export again.")
            program = traced(network, x.new_zeros(2, *x.shape[1:]), any_size=bool(made))  # sooner done for one
            made[:] = [*made[-1:], Tapes(native(program))]
            return made[-1](x).numpy()

    return run


@contextlib.contextmanager
def _as_asked() -> Iterator[None]:
    """fp32 computed in fp32, also where the program at large lets torch take bf16 for it."""
    kinds = [getattr(torch.backends.mkldnn, name, None) for name in ("conv", "matmul")]  # None in older torch
    before = [(kind, kind.fp32_precision) for kind in kinds if kind is not None]
    try:
        for kind, _ in before:
            kind.fp32_precision = "ieee"
        yield
    finally:
        for kind, precision in before:
            kind.fp32_precision = precision


def _onnxruntime(path: Path, precision: str, threads: int) -> Run:
    if precision == "bf16":
        raise InputError("onnxruntime has no bf16 on processors: use openvino, or ask for fp32.")
    runtime = need("onnxruntime", "ship")
    names = "Fail", "InvalidArgument", "InvalidGraph", "NotImplemented", "RuntimeException"
    errors = tuple(getattr(runtime.capi.onnxruntime_pybind11_state, name) for name in names)
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # what goes wrong is raised too
    # else its threads go on spinning after an answer, and whatever runs next waits for them
    options.add_session_config_entry("session.force_spinning_stop", "1")
    with _said("onnxruntime", path, errors):
        session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    ends = session.get_inputs(), session.get_outputs()
    if [len(each) for each in ends] != [1, 1]:
        raise InputError(
            f"{path.name} has {len(ends[0])} inputs and {len(ends[1])} outputs: networks with one of each are run."
        )
    name, output = ends[0][0].name, ends[1][0].name

    def run(images: Array) -> Array:
        with _said("onnxruntime", path, errors, images.shape):
            return session.run([output], {name: images})[0]

    return run


@contextlib.contextmanager
def _said(engine: str, path: Path, errors: Any, given: tuple[int, ...] | None = None) -> Iterator[None]:
    """An engine's own error, which names the operation, as ours."""
    try:
        yield
    except errors as error:
        what = path.name if given is None else f"{path.name} on images {given}"
        reason = _PLACE.sub("", " ".join(str(error).split()))[:300]
        raise InputError(f"{engine} can't run {what}: {reason}") from error


@functools.cache
def _core() -> Any:
    """OpenVINO's, one for the whole process, which ends with it.

    On processors with AMX each gives its thread a stack for signals and, at its end, puts back the one it found. Of
    two that end in the order they were made in, the second puts back the first's, which is gone: the next Ctrl-C
    would crash the process.
    """
    return need("openvino", "ship").Core()


def _openvino(path: Path, precision: str, threads: int) -> Run:
    openvino, core = need("openvino", "ship"), _core()
    kind = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}[precision]  # int8: of what is not quantised
    how = {"INFERENCE_PRECISION_HINT": kind, "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}

    def ready_for(shape: Shape | None) -> Any:
        model = core.read_model(path)
        if shape is not None:
            model.reshape(list(shape))
        compiled = core.compile_model(model, "CPU", how)
        used = compiled.get_property("INFERENCE_PRECISION_HINT")
        if used != getattr(openvino.Type, kind):
            raise InputError(
                f"openvino would run in {used} here instead of {precision}: this processor does not have it."
            )
        return compiled.create_infer_request()

    with _said("openvino", path, RuntimeError):
        request = ready_for(None)  # also tells whether it can run at all
        dynamic = core.read_model(path).is_dynamic()
    ready: dict[Shape | None, Any] = {} if dynamic else {None: request}

    def run(images: Array) -> Array:
        own = dynamic and (images.shape in ready or sum(shape is not None for shape in ready) < SHAPES)
        shape = images.shape if own else None
        with _said("openvino", path, RuntimeError, images.shape):
            if shape not in ready:
                ready[shape] = ready_for(shape)
            result: Any = ready[shape].infer([images], share_inputs=True)
        return next(iter(result.values())).copy()

    return run
