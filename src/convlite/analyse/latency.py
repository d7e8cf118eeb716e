"""Milliseconds that stand comparison: several callables in turn, round after round, and the spread with each.

On a machine that others use too, single shots differ by a factor of two and medians drift by the minute.
Timing in rounds lets each drift meet every callable alike; the median and the quartiles leave out the rest.
"""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import InputError

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds of one callable.

    Arguments:
        median, q1, q3: of the runs; half of them lie between `q1` and `q3`.
        runs: how many there were.
        least: the shortest of them, which nothing disturbed.
    """

    median: float
    q1: float
    q3: float
    runs: int
    least: float

    def to_dict(self) -> dict[str, float | int]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Machine:
    """What was measured on: figures from different ones can't be compared.

    Arguments:
        device, processor, cores: "cpu" or "cuda", its name, and how many cores this process may use.
        threads, dtype, torch: what torch computed with.
        load: how many processes were running when measuring began, on average over the minute before. Where
            that is near the number of cores, others are in the way.
    """

    device: str
    processor: str
    cores: int
    load: float
    threads: int
    dtype: str
    torch: str

    def to_dict(self) -> dict[str, str | int | float]:
        """Plain JSON types."""
        return asdict(self)


def machine(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Machine:
    """This machine, as measurements record it."""
    where = torch.device(device)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else _processor()
    return Machine(
        device=where.type,
        processor=name,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0,
        threads=torch.get_num_threads(),
        dtype=str(dtype).removeprefix("torch."),
        torch=torch.__version__,
    )


@contextlib.contextmanager
def using(threads: int | None) -> Iterator[None]:
    """Torch on so many threads of the processor, and as before afterwards; None changes nothing.

    Raises:
        InputError: fewer than one.
    """
    if threads is not None and threads < 1:
        raise InputError(f"Torch needs one thread at least, given {threads}.")
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        torch.set_num_threads(before)


def measure(
    functions: Mapping[Key, Callable[[], object]],
    *,
    rounds: int = 20,
    warmup: int = 3,
    seconds: float | None = None,
    minimum: int = 5,
    settle: int = 0,
    device: torch.device | str = "cpu",
) -> dict[Key, Timing]:
    """Time each function once a round, so that all meet the same state of the machine.

    Each round begins with another function, so that none always runs after the same one.

    Arguments:
        rounds: how many timed rounds at most.
        warmup: rounds before them that are not timed.
        settle: runs right before each timed one that are not timed: it then finds the caches and threads that it
            has in steady service, not those that another function left.
        seconds: a budget: no further round begins after it, once `minimum` rounds are done.
        device: on "cuda" the GPU's own clock is read, with events; all work before a run is waited for.

    Raises:
        InputError: nothing to time, or fewer than one round.
    """
    if not functions or rounds < 1 or minimum < 1:
        raise InputError(
            f"Timing needs a function and a round at least: given {len(functions)} functions, {rounds} rounds."
        )
    timed = _timed_on_gpu if torch.device(device).type == "cuda" else _timed
    names = list(functions)
    for _ in range(warmup):
        for name in names:
            timed(functions[name])
    runs: dict[Key, list[float]] = {name: [] for name in names}
    start = time.perf_counter()
    for done in range(rounds):
        if seconds is not None and done >= minimum and time.perf_counter() - start > seconds:
            break
        for i in range(len(names)):
            name = names[(done + i) % len(names)]
            for _ in range(settle):
                functions[name]()
            runs[name].append(timed(functions[name]))
    return {name: timing(values) for name, values in runs.items()}


def measure_models(
    models: Mapping[str, tuple[nn.Module, Tensor | tuple[Any, ...] | Mapping[str, Any]]],
    **options: Any,
) -> dict[str, Timing]:
    """Time the forward of each model on its input, in eval mode and inference mode; see `measure`.

    Arguments:
        models: name → (module, a tensor, or a tuple or mapping of arguments). The modes are put back
            afterwards.
        options: of `measure`.
    """
    with contextlib.ExitStack() as stack:
        for module, _ in models.values():
            stack.enter_context(evaluating(module))
        stack.enter_context(torch.inference_mode())
        calls = {name: _call(module, given) for name, (module, given) in models.items()}
        return measure(calls, **options)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Every module in eval mode, and back in its own afterwards."""
    modes = [(one, one.training) for one in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for one, mode in modes:
            one.training = mode


def timing(milliseconds: list[float]) -> Timing:
    """Median and quartiles of some runs."""
    if len(milliseconds) == 1:
        return Timing(milliseconds[0], milliseconds[0], milliseconds[0], 1, milliseconds[0])
    q1, median, q3 = statistics.quantiles(milliseconds, n=4, method="inclusive")
    return Timing(median, q1, q3, len(milliseconds), min(milliseconds))


def _call(module: nn.Module, given: Any) -> Callable[[], object]:
    if isinstance(given, Mapping):
        return lambda: module(**given)
    args = given if isinstance(given, tuple) else (given,)
    return lambda: module(*args)


def _timed(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def _timed_on_gpu(function: Callable[[], object]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    function()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end))


def _processor() -> str:
    """The processor's name; Linux keeps it in a file, elsewhere Python may know it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
