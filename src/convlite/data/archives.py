"""Tar and zip archives: where their members are, so that each can be read by itself."""

from __future__ import annotations

import struct
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from .encoded import File, Part

LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip member: lengths of its name and of what follows it


@dataclass(frozen=True)
class Listing:
    """What a source holds: files by name, relative and with /, and its folders, also the empty ones."""

    files: dict[str, File]
    folders: frozenset[str]


def tar(source: Path) -> Listing:
    """A tar archive's members; those of a compressed one are read into memory, for it has no middle to go to."""
    files: dict[str, File] = {}
    folders = []
    plain = _is_plain(source)
    with tarfile.open(source) as archive:
        for member in archive:  # in order: a compressed archive can only be read from its start
            if member.isdir():
                folders.append(member.name)
            elif plain and member.isreg() and not member.issparse():
                files[member.name] = Part(source, member.offset_data, member.size)
            elif (member.isfile() or member.islnk()) and (stream := archive.extractfile(member)):
                files[member.name] = stream.read()
    return _unpacked(files, folders)


def zipped(source: Path) -> Listing:
    """A zip archive's members."""
    with zipfile.ZipFile(source) as archive, source.open("rb") as raw:
        members = archive.infolist()
        files = {m.filename: _in_zip(archive, m, source, raw) for m in members if not m.is_dir()}
        return _unpacked(files, [m.filename for m in members if m.is_dir()])


def _is_plain(source: Path) -> bool:
    try:
        with tarfile.open(source, "r:"):
            return True
    except tarfile.ReadError:
        return False


def _in_zip(archive: zipfile.ZipFile, member: zipfile.ZipInfo, source: Path, raw: BinaryIO) -> File:
    deflated = member.compress_type == zipfile.ZIP_DEFLATED
    if member.flag_bits & 1 or not (deflated or member.compress_type == zipfile.ZIP_STORED):
        return archive.read(member)  # which also says that it is encrypted
    raw.seek(member.header_offset)
    header = raw.read(LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
        raise zipfile.BadZipFile(f"no member where {member.filename} should be")
    offset = member.header_offset + LOCAL_HEADER.size + sum(LOCAL_HEADER.unpack(header))
    return Part(source, offset, member.compress_size, deflated)


def _unpacked(members: dict[str, File], names: Iterable[str]) -> Listing:
    """A listing without the one outer folder that archives mostly have; nothing is written anywhere."""
    inner = {PurePosixPath(name): content for name, content in members.items()}
    inner = {path: content for path, content in inner.items() if not any(map(junk, path.parts))}
    folders = {PurePosixPath(name) for name in names} | {p for path in inner for p in path.parents}
    folders = {path for path in folders if path.parts and not any(map(junk, path.parts))}
    tops = {path.parts[0] for path in (*inner, *folders)}
    outer = tops.pop() if len(tops) == 1 and max((len(path.parts) for path in inner), default=0) > 2 else "."
    files = {path.relative_to(outer).as_posix(): content for path, content in inner.items()}
    return Listing(files, frozenset(p.relative_to(outer).as_posix() for p in folders) - {"."})


def junk(name: str) -> bool:
    """What operating systems and tools leave in folders."""
    return name.startswith(".") or name in ("Thumbs.db", "desktop.ini", "__MACOSX")
