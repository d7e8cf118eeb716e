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
from torch import nn

from ..analyse import Machine, Peaks, Timing, analyse, measure, peaks
from ..analyse.latency import machine, using
from ..errors import InputError
from .engines import ENGINES, Array, Session, open_engine
from .export import export
from .exported import read_exported
from .optimise import optimise

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
        of_peak: share of the multiply-accumulates a second that this machine reached at best, in fp32.
    """

    engine: str
    precision: str
    batch: int
    threads: int
    timing: Timing
    images_per_second: float
    error: float
    agreement: float
    of_peak: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class Bench:
    """All runs, and what could not run.

    Arguments:
        shape: channels, height and width of the images.
        skipped: {"engine precision": why}.
        tolerance: the error that the winner of each batch size stays within.
    """

    shape: tuple[int, int, int]
    runs: tuple[Run, ...]
    skipped: Mapping[str, str]
    machine: Machine
    tolerance: float

    def fastest(self, batch: int) -> tuple[Run, ...]:
        """The fastest way for a batch size within the tolerance, and all that can't be told from it.

        Two ways can't be told apart where the middle halves of their times overlap.
        """
        fit = [run for run in self.runs if run.batch == batch and run.error <= self.tolerance]
        ordered = sorted(fit, key=lambda run: run.timing.median)
        return tuple(run for run in ordered if run.timing.q1 <= ordered[0].timing.q3)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        batches = sorted({run.batch for run in self.runs})
        return {
            "shape": list(self.shape),
            "runs": [run.to_dict() for run in self.runs],
            "fastest": {
                str(batch): [f"{r.engine} {r.precision}" for r in self.fastest(batch)] for batch in batches
            },
            "skipped": dict(self.skipped),
            "tolerance": self.tolerance,
            "machine": self.machine.to_dict(),
        }


def bench(
    network: nn.Module | str | Path,
    shape: tuple[int, int, int] | None = None,
    *,
    engines: Sequence[str] = tuple(ENGINES),
    precisions: Sequence[str] = ("fp32",),
    batches: Sequence[int] = (1, 8),
    threads: int | None = None,
    rounds: int = 20,
    seconds: float = 20.0,
    tolerance: float = TOLERANCE,
    images: Array | None = None,
) -> Bench:
    """Time a network on engine after engine, round after round, so that each meets the same state of the machine.

    Arguments:
        network: a module, which is optimised and exported for this; or an exported file.
        shape: channels, height and width; an exported file may know them.
        threads: as many as there are cores unless given.
        rounds, seconds: at most, for each batch size.
        images: float32 (N, C, H, W), as the network takes them, to compare answers on; random ones unless given.

    Raises:
        InputError: nothing could run.
    """
    with tempfile.TemporaryDirectory() as folder:
        sources, shape = _sources(network, shape, engines, Path(folder))
        sessions, skipped = _open(sources, engines, precisions, threads)
        if not sessions:
            raise InputError(f"No engine can run this: {'; '.join(f'{k}: {v}' for k, v in skipped.items())}")
        if images is None:
            images = np.random.default_rng(0).standard_normal((max(*batches, 16), *shape), dtype=np.float32)
        best = peaks(threads=sessions[0].threads)
        macs = analyse(network, shape).macs if isinstance(network, nn.Module) else None
        expected = _expected(sources, images, sessions)
        with using(sessions[0].threads):
            here = machine()
        runs: list[Run] = []
        for batch in batches:
            runs += _timed(sessions, images, expected, batch, macs, best, rounds, seconds)
    return Bench(shape, tuple(runs), skipped, here, tolerance)


def _sources(
    network: nn.Module | str | Path, shape: tuple[int, int, int] | None, engines: Iterable[str], folder: Path
) -> tuple[dict[str, nn.Module | Path], tuple[int, int, int]]:
    """For each kind of file, and for "module", where the network is to be had in it."""
    if not isinstance(network, nn.Module):
        said = read_exported(network)
        known = said.preprocess.shape if said.preprocess else said.shape[1:]
        if shape is None and None in known:
            raise InputError(f"{network} takes images of any size: say which, as 3x224x224.")
        return {said.path.suffix: said.path}, shape or known  # type: ignore[return-value]
    if shape is None:
        raise InputError("A network needs to be told the size of its images, as (3, 224, 224).")
    sources: dict[str, nn.Module | Path] = {"module": optimise(network, torch.zeros(2, *shape))}
    if {"onnxruntime", "openvino"} & set(engines):
        sources[".onnx"] = export(network, folder / "network.onnx", shape).path
    return sources, shape


def _open(
    sources: Mapping[str, nn.Module | Path], engines: Iterable[str], precisions: Iterable[str], threads: int | None
) -> tuple[list[Session], dict[str, str]]:
    sessions, skipped = [], {}
    for engine in engines:
        for precision in precisions:
            kinds = ["module"] if engine.startswith("torch") else []
            kinds += ENGINES[engine][1] if engine in ENGINES else ()
            source = next((sources[kind] for kind in kinds if kind in sources), next(iter(sources.values())))
            try:
                sessions.append(open_engine(source, engine, precision, threads))
            except InputError as error:
                skipped[f"{engine} {precision}"] = str(error)
    return sessions, skipped


def _expected(sources: Mapping[str, Any], images: Array, sessions: Sequence[Session]) -> Array:
    """What torch answers in fp32; where there is only a file for other engines, the first of them in fp32."""
    plain = next((one for one in sessions if one.precision == "fp32"), sessions[0])
    if "module" in sources:
        plain = open_engine(sources["module"], "torch", threads=sessions[0].threads)
    return _answers(plain, images)


def _answers(session: Session, images: Array, batch: int = 16) -> Array:
    return np.concatenate([session(images[i : i + batch]) for i in range(0, len(images), batch)])


def _timed(
    sessions: Sequence[Session],
    images: Array,
    expected: Array,
    batch: int,
    macs: int | None,
    best: Peaks,
    rounds: int,
    seconds: float,
) -> list[Run]:
    part = np.ascontiguousarray(np.resize(images, (batch, *images.shape[1:])))
    calls = {str(i): partial(session, part) for i, session in enumerate(sessions)}
    found = measure(calls, rounds=rounds, seconds=seconds)
    runs = []
    for session, timing in zip(sessions, found.values()):
        given = _answers(session, images)
        scale = max(float(np.abs(expected).max()), 1e-30)
        same = float((given.argmax(1) == expected.argmax(1)).mean())
        rate = 1e3 * batch / timing.median
        of_peak = None if macs is None else rate * macs / best.macs
        error = float(np.abs(given - expected).max()) / scale
        runs.append(
            Run(session.name, session.precision, batch, session.threads, timing, rate, error, same, of_peak)
        )
    return runs
