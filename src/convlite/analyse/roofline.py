"""How close each layer comes to what this machine can do at best (Williams et al. 2009, the roofline model).

A layer can take no less time than its multiply-accumulates at the machine's best rate, nor than its bytes at the
best bandwidth. The best is measured here, not read from a data sheet: matrix products and convolutions for the
rate, since neither is always the faster; activations in place, in the cache and in memory, for the bandwidth, since
what writes elsewhere makes a processor read there first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ..errors import InputError
from ..files import cache, read_json, write_json
from .latency import Machine, machine, measure, using
from .layers import LayerTimes
from .table import Table

_MULTIPLIED = 1024  # rows and columns of a matrix product
_CONVOLVED = 56  # pixels in height and width: enough for a convolution to reach its best rate
_SMALL, _LARGE = 1 << 18, 1 << 25  # numbers: well within a cache, and well beyond it


@dataclass(frozen=True, slots=True)
class Peaks:
    """The best that was measured of one machine, in one number type and with so many threads.

    Arguments:
        macs: multiply-accumulates a second.
        cache, memory: bytes a second, of tensors that stay in the cache and of those that don't.
        cache_bytes: the size of the last-level cache; 0 where it is not known.
        machine: what it was measured on.
    """

    macs: float
    cache: float
    memory: float
    cache_bytes: int
    machine: Machine

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Roof:
    """One module under the roof.

    Arguments:
        path: the module; its own operations, without those of modules inside it.
        ms: what it took; at_best: the least it can take.
        limit: what bounds it, "compute" or "memory".
        share: at_best / ms: how close it comes. Above 1 the peaks were measured too low: a fault of the
            calibration, and no feat of the layer.
    """

    path: str
    ms: float
    at_best: float
    limit: str
    share: float

    @property
    def fault(self) -> bool:
        """Whether the layer was faster than what was measured as the best possible."""
        return self.share > 1

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "fault": self.fault}


def roofline(table: Table, times: LayerTimes, best: Peaks) -> tuple[Roof, ...]:
    """Each module that computes or moves anything, in the order of the network.

    Arguments:
        table: of the same input as `times`, so of the same batch.
        times: of the same model, measured with the number of threads that `best` is for.
    """
    costs: dict[str, tuple[int, int]] = {}
    for row in table.rows:
        macs, moved = costs.get(row.path, (0, 0))
        costs[row.path] = macs + row.macs, moved + row.bytes
    found = []
    for path, (macs, moved) in costs.items():
        if path in times.layers and (macs or moved) and times.layers[path].median > 0:
            bandwidth = best.memory if best.cache_bytes and moved > best.cache_bytes else best.cache
            compute, memory = 1e3 * macs / best.macs, 1e3 * moved / bandwidth
            ms, at_best = times.layers[path].median, max(compute, memory)
            found.append(Roof(path, ms, at_best, "compute" if compute >= memory else "memory", at_best / ms))
    return tuple(found)


def peaks(
    dtype: torch.dtype = torch.float32,
    *,
    threads: int | None = None,
    device: torch.device | str = "cpu",
    again: bool = False,
    folder: Path | None = None,
) -> Peaks:
    """This machine's best, measured once for each number type and thread count and then remembered.

    Arguments:
        threads: of the processor; torch's own choice where left out.
        again: measure even where there is a remembered answer.
        folder: where answers are remembered; the user's cache folder where left out.
    """
    with using(threads):
        here = machine(device, dtype)
        key = f"{here.processor}, {here.threads} threads, {here.dtype}, torch {here.torch}"
        file = (folder or cache()) / "peaks.json"
        known = read_json(file) if file.exists() else {}
        if key in known and not again:
            return Peaks(**{**known[key], "machine": Machine(**known[key]["machine"])})
        found = _measured(dtype, torch.device(device), here)
        with contextlib.suppress(InputError):  # where nothing can be kept, it is measured each time
            write_json(file, known | {key: found.to_dict()})
        return found


def _measured(dtype: torch.dtype, device: torch.device, here: Machine) -> Peaks:
    """The shortest of many runs: a best is spoilt by anything else that runs, and never flattered."""
    like: dict[str, Any] = {"dtype": dtype, "device": device}
    a, b = torch.rand(_MULTIPLIED, _MULTIPLIED, **like), torch.rand(_MULTIPLIED, _MULTIPLIED, **like)
    x = torch.rand(1, 256, _CONVOLVED, _CONVOLVED, **like)  # (N, C, H, W)
    weight = torch.rand(256, 256, 3, 3, **like)  # (M, C, K, K)
    last = torch.channels_last
    y, kernel = x.contiguous(memory_format=last), weight.contiguous(memory_format=last)
    small, large = torch.rand(_SMALL, **like), torch.rand(_LARGE, **like)
    convolved = 256 * 256 * 9 * _CONVOLVED**2
    runs: dict[str, tuple[int, Callable[[], object]]] = {
        "product": (_MULTIPLIED**3, lambda: a @ b),
        "contiguous": (convolved, lambda: F.conv2d(x, weight, padding=1)),
        "channels_last": (convolved, lambda: F.conv2d(y, kernel, padding=1)),
        "cache": (20 * small.nbytes, lambda: [torch.relu_(small) for _ in range(10)]),
        "memory": (2 * large.nbytes, lambda: torch.relu_(large)),
    }
    with torch.inference_mode():
        times = measure({name: run for name, (_, run) in runs.items()}, rounds=15, seconds=5.0, device=device)
    best = {name: 1e3 * work / times[name].least for name, (work, _) in runs.items()}
    return Peaks(
        macs=max(best["product"], best["contiguous"], best["channels_last"]),
        cache=max(best["cache"], best["memory"]),
        memory=best["memory"],
        cache_bytes=_cache_bytes(device),
        machine=here,
    )


def _cache_bytes(device: torch.device) -> int:
    """The size of the last-level cache, as the GPU's driver or Linux tells it."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    sizes = [0]
    for file in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = file.read_text(encoding="utf-8").strip()
        sizes.append(int(text[:-1]) * {"K": 1 << 10, "M": 1 << 20}[text[-1]] if text[-1] in "KM" else int(text))
    return max(sizes)
