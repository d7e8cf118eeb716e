"""Which engine runs a network fastest here: all of them in turn, and how their answers agree."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..analyse import Machine, Timing, analyse, measure, peaks
from ..analyse.latency import machine, using
from ..errors import InputError, RunError
from .engines import ENGINES, Array, Session, open_engine, runs_modules, why_not
from .export import export
from .exported import read_exported
from .footprint import footprint
from .optimise import optimise
from .quantise import Calibration, answers, compared

TOLERANCE = 1e-3  # of the largest score: what a winner's answers may be off by, unless told


@dataclass(frozen=True)
class Run:
    """One way to run the network, measured.

    Arguments:
        engine, precision, batch, threads: which.
        timing: milliseconds for a batch.
        images_per_second: from the median.
        error: the largest difference of a score from torch's in fp32, relative to the largest score.
        agreement: share of images whose best class is torch's.
        accuracy: share of images answered right, where labels were given.
        drop: what is lost of the accuracy in fp32; without labels, of the agreement.
        of_peak: share of the multiply-accumulates a second that this machine reached at best, in fp32.
        memory: bytes at the highest point, in a process of its own; None where that was not measured.
    """

    engine: str
    precision: str
    batch: int
    threads: int
    timing: Timing
    images_per_second: float
    error: float
    agreement: float
    accuracy: float | None
    drop: float
    of_peak: float | None
    memory: int | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Bench:
    """All runs, and what could not run.

    Arguments:
        shape: channels, height and width of the images.
        skipped: {"engine precision": why}.
        tolerance: the error that the winner of each batch size stays within; or else
        max_drop: what it may lose, where answers were compared on images that were given with such a bound.
    """

    shape: tuple[int, int, int]
    runs: tuple[Run, ...]
    skipped: Mapping[str, str]
    machine: Machine
    tolerance: float
    max_drop: float | None = None

    def fits(self, run: Run) -> bool:
        """Whether its answers are good enough to win."""
        return run.error <= self.tolerance or (self.max_drop is not None and run.drop <= self.max_drop)

    def fastest(self, batch: int) -> tuple[Run, ...]:
        """The fastest way for a batch size within the tolerance, and all that can't be told from it.

        Two ways can't be told apart where the middle halves of their times overlap.
        """
        fit = [run for run in self.runs if run.batch == batch and self.fits(run)]
        ordered = sorted(fit, key=lambda run: run.timing.median)
        return tuple(run for run in ordered if run.timing.q1 <= ordered[0].timing.q3)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        batches = sorted({run.batch for run in self.runs})
        return {
            "shape": list(self.shape),
            "runs": [run.to_dict() for run in self.runs],
            "fastest": {
                str(batch): [f"{r.engine} {r.precision} {r.threads}" for r in self.fastest(batch)]
                for batch in batches
            },
            "skipped": dict(self.skipped),
            "tolerance": self.tolerance,
            "max_drop": self.max_drop,
            "machine": self.machine.to_dict(),
        }


def bench(
    network: nn.Module | str | Path,
    shape: tuple[int, int, int] | None = None,
    *,
    engines: Sequence[str] = tuple(ENGINES),
    precisions: Sequence[str] = ("fp32",),
    batches: Sequence[int] = (1, 8),
    threads: int | Sequence[int] | None = None,
    rounds: int = 20,
    seconds: float = 20.0,
    tolerance: float = TOLERANCE,
    images: Tensor | Array | Calibration | None = None,
    memory: bool = True,
) -> Bench:
    """Time a network on engine after engine, round after round, so that each meets the same state of the machine.

    Arguments:
        network: a module, which is optimised and exported for this; or an exported file.
        shape: channels, height and width; an exported file may know them.
        threads: one number or several; as many as there are cores unless given.
        rounds, seconds: at most, for each batch size.
        images: float32 (N, C, H, W), as the network takes them, to compare answers on; random ones unless given.
            int8 needs a `Calibration`: it is fitted to its images, and all answers are compared on those held out.
        memory: measure the peak memory of each way too, which takes a process and some seconds for each.

    Raises:
        InputError: nothing could run.
    """
    given = images if isinstance(images, Calibration) else None
    with tempfile.TemporaryDirectory() as folder:
        sources, shape, skipped = _sources(network, shape, engines, precisions, given, Path(folder), memory)
        counts: list[int | None] = [threads] if threads is None or isinstance(threads, int) else list(threads)
        sessions = _open(sources, engines, precisions, counts, skipped)
        if not sessions:
            raise InputError(f"No engine can run this: {'; '.join(f'{k}: {v}' for k, v in skipped.items())}")
        compare = _images(images, (max(*batches, 16), *shape))
        expected = _expected(sources, compare, sessions)
        macs = analyse(network, shape).macs if isinstance(network, nn.Module) else None
        best = {session.threads: peaks(threads=session.threads).macs for session in sessions}
        with using(max(best)):
            here = machine()
        quality = [_quality(expected, answers(session, compare), given) for session in sessions]
        runs: list[Run] = []
        for batch in batches:
            part = np.ascontiguousarray(np.resize(compare, (batch, *shape)))  # (N, C, H, W)
            calls = {str(i): partial(session, part) for i, session in enumerate(sessions)}
            found = measure(calls, rounds=rounds, seconds=seconds)
            for session, good, timing in zip(sessions, quality, found.values()):
                rate = 1e3 * batch / timing.median
                of_peak = None if macs is None else rate * macs / best[session.threads]
                peak = _memory(sources, session, part.shape, skipped) if memory else None
                which = session.name, session.precision, batch, session.threads
                runs.append(Run(*which, timing, rate, *good, of_peak, peak))
    return Bench(shape, tuple(runs), skipped, here, tolerance, None if given is None else given.max_drop)


Sources = Mapping[str, nn.Module | Path]


def _sources(
    network: nn.Module | str | Path,
    shape: tuple[int, int, int] | None,
    engines: Iterable[str],
    precisions: Iterable[str],
    given: Calibration | None,
    folder: Path,
    memory: bool,
) -> tuple[Sources, tuple[int, int, int], dict[str, str]]:
    """Where the network is to be had: "module", "int8", and each kind of file; and what could not be made."""
    if not isinstance(network, nn.Module):
        said = read_exported(network)
        known = said.preprocess.shape if said.preprocess else said.shape[1:]
        if shape is None and None in known:
            raise InputError(f"{network} takes images of any size: say which, as 3x224x224.")
        return {said.path.suffix: said.path}, shape or known, {}  # type: ignore[return-value]
    if shape is None:
        raise InputError("A network needs to be told the size of its images, as (3, 224, 224).")
    sources: dict[str, nn.Module | Path] = {"module": optimise(network, torch.zeros(2, *shape))}
    skipped = {}
    if memory and any(map(runs_modules, engines)):  # another process can't have the module
        sources[".pt2"] = export(network, folder / "network.pt2", shape, to="pt2").path
    if "executorch" in engines and why_not("executorch") is None:
        try:
            sources[".pte"] = export(network, folder / "network.pte", shape, to="executorch").path
        except InputError as error:
            skipped["executorch"] = str(error)
    if {"onnxruntime", "openvino"} & set(engines):
        sources[".onnx"] = export(network, folder / "network.onnx", shape).path
        if "int8" in precisions:
            try:
                made = export(network, folder / "int8.onnx", shape, precision="int8", images=given)
                sources["int8"] = made.path
            except (InputError, RunError) as error:
                skipped["int8"] = str(error)
    return sources, shape, skipped


def _source(sources: Sources, engine: str, precision: str) -> nn.Module | Path:
    """What this engine reads, or else something that it will refuse with a reason."""
    kinds = ["module"] if runs_modules(engine) else ["int8"] if precision == "int8" else []
    kinds += ENGINES[engine][1] if engine in ENGINES else ()
    return next((sources[kind] for kind in kinds if kind in sources), next(iter(sources.values())))


def _open(
    sources: Sources,
    engines: Iterable[str],
    precisions: Iterable[str],
    threads: Iterable[int | None],
    skipped: dict[str, str],
) -> list[Session]:
    sessions, counts = [], list(threads)
    for engine in engines:
        for precision in precisions:
            if engine in skipped or (precision == "int8" and "int8" in skipped and not runs_modules(engine)):
                continue
            try:
                source = _source(sources, engine, precision)
                sessions += [open_engine(source, engine, precision, count) for count in counts]
            except InputError as error:
                skipped[f"{engine} {precision}"] = str(error)
    return sessions


def _images(given: Tensor | Array | Calibration | None, shape: tuple[int, ...]) -> Array:
    if given is None:
        return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    if isinstance(given, Calibration):
        return given.tested
    return given.numpy() if isinstance(given, Tensor) else given


def _expected(sources: Sources, images: Array, sessions: Sequence[Session]) -> Array:
    """What torch answers in fp32; where there is only a file for other engines, the first of them in fp32."""
    plain = next((one for one in sessions if one.precision == "fp32"), sessions[0])
    if "module" in sources:
        plain = open_engine(sources["module"], "torch", threads=sessions[0].threads)
    return answers(plain, images)


def _quality(expected: Array, found: Array, given: Calibration | None) -> tuple[float, float, float | None, float]:
    """Error, agreement, accuracy, drop."""
    error = float(np.abs(found - expected).max()) / max(float(np.abs(expected).max()), 1e-30)
    known = compared(expected, found, None if given is None else given.labels)
    return error, known.agreement, known.accuracy[1] if known.accuracy else None, known.drop


def _memory(sources: Sources, session: Session, images: tuple[int, ...], skipped: dict[str, str]) -> int | None:
    files = {kind: source for kind, source in sources.items() if kind != "module"}
    source = _source(files, session.name, session.precision)
    assert isinstance(source, Path)
    n, channels, height, width = images
    try:
        return footprint(source, session.name, session.precision, session.threads, (n, channels, height, width))
    except RunError as error:
        skipped[f"{session.name} {session.precision} memory"] = str(error)
        return None
