"""Built-in skills on whole files: file.hash, file.pack, file.unpack.

Packing is deterministic: the same files give the same bytes, whenever and wherever. Unpacking trusts nothing in the
archive: names are checked, links and devices refused, sizes counted as they are written, not as they are declared.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, TypedDict

from protocol.artifact import parse_file
from protocol.builtin import BY_NAME
from protocol.errors import SkillFailed, UsageError
from workers.context import SkillContext
from workers.file import File
from workers.skill import skill

MAX_MEMBERS: Final = 20_000
MAX_UNPACKED_BYTES: Final = 4 * 1024**3
_CHUNK: Final = 1 << 20
_DEEPEST: Final = 64
_BROKEN: Final = (
    tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, struct.error,
    EOFError, OSError, RuntimeError, ValueError, LookupError, OverflowError,
)  # fmt: skip
"""What the libraries raise for an archive that is none."""
_TAR: Final = (".tar.gz", ".tgz")


class HashResult(TypedDict):
    file: File
    sha256: str
    bytes: int


@skill(spec=BY_NAME["file.hash"])
def hash(file: File) -> HashResult:
    with file.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256")  # type: ignore[arg-type]
        return HashResult(file=file, sha256=digest.hexdigest(), bytes=handle.tell())


class PackResult(TypedDict):
    file: File
    sha256: str
    bytes: int


@skill(spec=BY_NAME["file.pack"])
def pack(ctx: SkillContext, files: list[File], name: str = "files.tar.gz") -> PackResult:
    """Packs in order of name; members are called by their path below the folder that all share."""
    if name != PurePosixPath(name).name or name in ("", ".", ".."):
        raise UsageError(f"{name!r} is no plain file name", hint="give a name such as logs.tar.gz")
    members = sorted(zip(_member_names(files), files, strict=True), key=lambda member: member[0])
    target = ctx.folder / name
    if name.endswith(".zip"):
        _write_zip(target, members)
    elif name.endswith(_TAR):
        _write_tar(target, members)
    else:
        raise UsageError(f"{name} is no kind of archive known here", hint="end it in .tar.gz, .tgz or .zip")
    made = hash(File(target))
    return PackResult(file=made["file"], sha256=made["sha256"], bytes=made["bytes"])


def _member_names(files: list[File]) -> list[str]:
    """Paths below the common folder; by their own names, numbered where needed, if they come from several machines."""
    origins = [parse_file(file.uri) if file.uri else None for file in files]
    paths = [origin.path if origin is not None else str(file) for origin, file in zip(origins, files, strict=True)]
    workers = {origin.worker if origin is not None else "" for origin in origins}
    if len(workers) == 1 and len(set(paths)) == len(paths) and all(os.path.isabs(path) for path in paths):
        top = os.path.commonpath([os.path.dirname(path) for path in paths])
        return [os.path.relpath(path, top) for path in paths]
    seen: dict[str, int] = {}
    names = []
    for file in files:
        seen[file.name] = seen.get(file.name, 0) + 1
        stem, dot, suffix = file.name.partition(".")
        names.append(file.name if seen[file.name] == 1 else f"{stem}-{seen[file.name]}{dot}{suffix}")
    return names


def _write_tar(target: Path, members: list[tuple[str, File]]) -> None:
    with target.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, file in members:
                with file.open("rb") as handle:
                    about = tarfile.TarInfo(name)
                    about.size = os.fstat(handle.fileno()).st_size
                    about.mode = 0o644
                    archive.addfile(about, handle)


def _write_zip(target: Path, members: list[tuple[str, File]]) -> None:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, file in members:
            about = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            about.compress_type = zipfile.ZIP_DEFLATED
            about.create_system = 3
            about.external_attr = 0o644 << 16
            with file.open("rb") as handle, archive.open(about, "w", force_zip64=True) as member:
                shutil.copyfileobj(handle, member, _CHUNK)


class UnpackResult(TypedDict):
    files: list[File]
    count: int


@skill(spec=BY_NAME["file.unpack"])
def unpack(ctx: SkillContext, file: File) -> UnpackResult:
    """Unpacks into a fresh folder, files in order of name; a refused archive leaves nothing behind."""
    top = ctx.folder / "unpacked"
    shutil.rmtree(top, ignore_errors=True)
    top.mkdir(parents=True)
    made: list[File] = []
    left = min(MAX_UNPACKED_BYTES, shutil.disk_usage(top).free // 2)
    try:
        for name, source in _members(file):
            if len(made) >= MAX_MEMBERS:
                raise SkillFailed(f"{file.name} holds more than {MAX_MEMBERS} files", hint="unpack it by hand")
            target = top.joinpath(*_safe_parts(name, file.name))
            target.parent.mkdir(parents=True, exist_ok=True)
            left -= _copy(source, target, left, file.name)
            made.append(File(target))
    except _BROKEN as error:
        shutil.rmtree(top, ignore_errors=True)
        raise SkillFailed(f"{file.name} can't be unpacked: {error}") from error
    except BaseException:
        shutil.rmtree(top, ignore_errors=True)
        raise
    made.sort()
    return UnpackResult(files=made, count=len(made))


def _members(file: File) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of each regular file. Raises: SkillFailed for links, devices and encrypted members."""
    with file.open("rb") as raw:
        if zipfile.is_zipfile(raw):
            yield from _zip_members(file.name, raw)
            return
        raw.seek(0)
        magic = raw.read(6)
        raw.seek(0)
        opener = next((opener for head, opener in _PACKED.items() if magic.startswith(head)), None)
        stream: Any = opener(raw) if opener is not None else raw
        with tarfile.open(fileobj=_Bounded(stream, file.name), mode="r:") as tar:  # type: ignore[call-overload]
            for count, member in enumerate(tar):
                tar.members = []  # it would keep all of them
                if count >= MAX_MEMBERS:
                    raise SkillFailed(f"{file.name} holds more than {MAX_MEMBERS} entries", hint="unpack it by hand")
                if member.isdir():
                    continue
                content = tar.extractfile(member) if member.isreg() and not member.issparse() else None
                if content is None:
                    raise SkillFailed(f"{file.name}: {member.name!r} is a link or a device", hint="unpack it by hand")
                with content:
                    yield member.name, content


def _zip_members(archive_name: str, raw: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(raw) as archive:
        for about in archive.infolist()[: MAX_MEMBERS + 1]:
            kind = about.external_attr >> 28
            if about.flag_bits & 1 or kind not in (0, 4, 8):
                raise SkillFailed(
                    f"{archive_name}: {about.filename!r} is a link or encrypted", hint="unpack it by hand"
                )
            if not about.is_dir():
                with archive.open(about) as source:
                    yield about.filename, source


_PACKED: Final[dict[bytes, Callable[[Any], Any]]] = {
    b"\x1f\x8b": lambda raw: gzip.GzipFile(fileobj=raw),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}


class _Bounded:
    """A stream of which nobody reads much at once: a header that claims to be gigabytes long is believed by tarfile."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream = stream
        self._name = name
        self.seek, self.tell, self.close = stream.seek, stream.tell, stream.close

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= 2 * _CHUNK:
            raise SkillFailed(f"{self._name}: a header claims to have {size} bytes", hint="unpack it by hand")
        return self._stream.read(size)


def _safe_parts(name: str, archive: str) -> tuple[str, ...]:
    path = PurePosixPath(name.replace("\\", "/"))
    parts = tuple(part for part in path.parts if part != ".")
    if path.is_absolute() or not parts or ".." in parts or ":" in parts[0]:
        raise SkillFailed(f"{archive}: {name[:200]!r} leads out of the archive", hint="unpack it by hand")
    if not name.isprintable() or len(parts) > _DEEPEST or any(len(part.encode()) > 255 for part in parts):
        raise SkillFailed(f"{archive}: {name[:200]!r} is no name for a file here", hint="unpack it by hand")
    return parts


def _copy(source: Any, target: Path, left: int, archive: str) -> int:
    size = 0
    with target.open("xb") as out:
        while block := source.read(_CHUNK):
            size += len(block)
            if size > left:
                raise SkillFailed(f"{archive} unpacks to more than there is room for", hint="unpack it by hand")
            out.write(block)
    return size
