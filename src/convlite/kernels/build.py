"""The compiled kernels: made by the machine's own C++ compiler for its own processor, once, and kept."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from ..errors import RunError
from ..files import write_whole

SOURCE = Path(__file__).with_name("conv.cpp")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-Wno-psabi")


def why_not() -> str | None:
    """Why there can be no kernels here; None where there can."""
    return None if _compiler() else "there is no C++ compiler (c++, g++ or clang++): install one, or name it in CXX"


@functools.cache
def library() -> ctypes.CDLL:
    """The kernels, compiled if this compiler has not compiled them for this processor before.

    Raises:
        RunError: no compiler, or it fails.
    """
    compiler = _compiler()
    if compiler is None:
        raise RunError(f"The kernels can't be compiled: {why_not()}.")
    known = _run(compiler, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull)  # its version, and what the processor has
    digest = hashlib.sha256(SOURCE.read_bytes() + known.encode()).hexdigest()[:16]
    file = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convlite" / f"conv-{digest}.so"
    if not file.exists():
        write_whole(file, lambda made: _run(compiler, *FLAGS, str(SOURCE), "-o", str(made)))
    found = ctypes.CDLL(str(file))
    found.wide.restype = ctypes.c_int64
    return found


def _compiler() -> str | None:
    return next(filter(None, map(shutil.which, (os.environ.get("CXX", ""), "c++", "g++", "clang++"))), None)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = " ".join(done.stderr.split())[-200:]
        raise RunError(f"{command[0]} can't compile the kernels: {said}")
    return done.stdout
