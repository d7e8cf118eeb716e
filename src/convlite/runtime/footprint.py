"""What a network on an engine takes of the machine's memory, as the kernel sees it in a process of its own.

In a process that holds several engines none can be told from the others, and what one gave back the next may reuse.
"""

from __future__ import annotations

import contextlib
import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np

from ..errors import RunError
from .engines import ENGINES, open_engine

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def footprint(
    path: Path, engine: str, precision: str, threads: int, images: tuple[int, int, int, int]
) -> int | None:
    """Bytes at the highest point of opening an exported network and running it twice.

    What a process holds once it has imported the engine is not counted: weights, buffers and compiled code are.

    Arguments:
        images: (N, C, H, W).

    Returns:
        None where there is no such account: it is Linux's.

    Raises:
        RunError: the engine can't run it.
    """
    if not _STATUS.exists():
        return None
    asked = [str(path), engine, precision, str(threads), *map(str, images)]
    done = subprocess.run([sys.executable, "-m", __name__, *asked], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RunError(f"{engine} in {precision} can't be run in a process of its own: {last}")
    return int(done.stdout.split()[-1])


def _taken(path: Path, engine: str, precision: str, threads: int, images: tuple[int, ...]) -> int:
    importlib.import_module(ENGINES[engine][0])
    given = np.random.default_rng(0).standard_normal(images, dtype=np.float32)
    before = _bytes("VmRSS")
    with contextlib.suppress(OSError):
        _RESET.write_text("5")  # the high-water mark, down to what is resident now
    session = open_engine(path, engine, precision, threads)
    for _ in range(2):
        session(given)
    return _bytes("VmHWM") - before


def _bytes(field: str) -> int:
    lines = _STATUS.read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    file, name, kind, count, *sizes = sys.argv[1:]
    sys.stdout.write(f"{_taken(Path(file), name, kind, int(count), tuple(map(int, sizes)))}\n")
