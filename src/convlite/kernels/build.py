"""The compiled kernels: made by the machine's own C++ compiler for its own processor, once, and kept."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from ..errors import ConvliteError, RunError
from ..files import cache, write_whole

SOURCE = Path(__file__).with_name("source")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-Wno-psabi")


def why_not() -> str | None:
    """Why there can be no kernels here; None where there can. The first time, they are compiled for that."""
    try:
        library()
    except ConvliteError as error:
        return str(error).rstrip(".")
    return None


@functools.cache
def library() -> ctypes.CDLL:
    """The kernels, compiled if this compiler has not compiled them for this processor before.

    Raises:
        RunError: no compiler, or it fails.
    """
    compiler = _compiler()
    if compiler is None:
        raise RunError("there is no C++ compiler (c++, g++ or clang++, or the one named in CXX): install one.")
    known = _run(compiler, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull)  # its version, and what the processor has
    texts = [file.read_bytes() for file in sorted(SOURCE.iterdir())]
    digest = hashlib.sha256(b"".join(texts) + known.encode()).hexdigest()[:16]
    file = cache() / f"conv-{digest}.so"
    if not file.exists():
        write_whole(file, lambda made: _run(compiler, *FLAGS, str(SOURCE / "run.cpp"), "-o", str(made)))
    found = ctypes.CDLL(str(file))
    found.wide.restype = ctypes.c_int64
    return found


def _compiler() -> str | None:
    named = os.environ.get("CXX")
    return next(filter(None, map(shutil.which, [named] if named else ["c++", "g++", "clang++"])), None)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = " ".join(done.stderr.split())[-200:]
        raise RunError(f"{command[0]} can't compile the kernels: {said}")
    return done.stdout
