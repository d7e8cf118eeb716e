"""Files appear whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from .errors import InputError


def cache() -> Path:
    """The user's cache folder for what can be made again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "convlite"


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place in one step.

    Raises:
        InputError: the folder can't be written to, or the disk is full; `path` is as it was.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        os.close(handle)
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        _flush(path.parent)
    except (OSError, SafetensorError) as error:  # the second is how a full disk shows where tensors are written
        why = getattr(error, "strerror", None) or error
        raise InputError(f"Can't write {path}: {why}; make room or choose another place.") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _flush(folder: Path) -> None:
    """Make a new name in a folder outlive a power cut, where the system lets a folder be opened."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write plain values as JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_text(path: Path) -> str:
    """What stands in a text file.

    Raises:
        InputError: no such file, or no text in it.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"Can't read {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no text in UTF-8 ({error.reason}): give a text file.") from error


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        InputError: no such file, or no JSON in it.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} holds no valid JSON ({error}): it may be cut short.") from error


def check_writable(folder: Path) -> None:
    """Say before long work, and not after it, that its results could not be written.

    Raises:
        InputError: files can't be made in `folder`.
    """
    new = [each for each in (folder, *folder.parents) if not each.exists()]  # innermost first
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        for each in new:  # nothing is left behind where the work then fails
            each.rmdir()
    except OSError as error:
        raise InputError(
            f"Can't write to the folder {folder}: {error.strerror or error}; choose another with --out."
        ) from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
