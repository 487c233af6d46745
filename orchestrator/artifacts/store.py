"""Content by digest, on disk: what is there is whole, verified and readable by nobody else.

A content grows in `partial/HEX` and is renamed into place only once its SHA-256 is the name it came under and it is
flushed to the disk; a broken upload leaves a prefix that the next one continues. Everything here blocks: call it in a
thread. It must not know who sends what, nor what the content means (except JSON, where the engine asks).
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from protocol.artifact import CHUNK_BYTES, SMALL_BYTES, ArtifactRef, Content, digest_of, is_digest
from protocol.bundle import oversized
from protocol.errors import AsterismError, Conflict, NotFound, SchemaMismatch, Unavailable, UsageError, WireError
from protocol.json_bytes import check_json
from protocol.pointer import EACH, MISSING, descend
from protocol.security import private_directory

JSON_BYTES: Final = 64 * 1024 * 1024
"""The largest artifact that is read as JSON here."""
JSON_ITEMS: Final = 100_000
"""The longest list or object that is walked through or counted here."""
COMPLETE: Final = -1
_ENVELOPE: Final = 128
_TOGETHER: Final = 64
"""Files that are written side by side before they are flushed, one after the other."""
Kept = tuple[str, Path]
"""A content on disk under a passing name, and the path it is to have."""
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")
_LIST: Final = msgspec.json.Decoder(list[msgspec.Raw])
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Upload:
    """One content on its way in. `write` its bytes, `finish` it; `close` keeps what came for the next attempt."""

    def __init__(self, store: ArtifactStore, digest: str, offset: int) -> None:
        self._store = store
        self._digest = digest
        self._path = store.partial_path(digest)
        self._sum = hashlib.sha256()
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._file: BinaryIO = os.fdopen(handle, "r+b", buffering=0)
        try:
            here = os.fstat(handle).st_size
            if offset > here:
                hint = "ask `has` how much is here"
                raise Conflict(f"the upload starts at byte {offset}, {here} are here", hint=hint)
            self._file.truncate(offset)
            while chunk := self._file.read(CHUNK_BYTES):
                self._sum.update(chunk)
        except BaseException:
            self._file.close()
            raise

    def write(self, data: bytes) -> None:
        """Raises: Unavailable when the disk is full."""
        self._sum.update(data)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise _disk(error) from None

    def finish(self) -> None:
        """Verify and move into place; the content is on disk when this returns.

        Raises: WireError when the bytes are not those of the digest (they are thrown away); Unavailable.
        """
        if "sha256:" + self._sum.hexdigest() != self._digest:
            self.close()
            self._path.unlink(missing_ok=True)
            raise _another_content(self._digest)
        final = self._store.path(self._digest)
        try:
            try:
                os.fsync(self._file.fileno())
            except OSError:
                self._path.unlink(missing_ok=True)  # what a failed flush left behind is not to be trusted
                raise
            finally:
                self.close()
            private_directory(final.parent)
            os.replace(self._path, final)
            _flush_directory(final.parent)
        except OSError as error:
            raise _disk(error) from None

    def close(self) -> None:
        self._file.close()


def content_path(directory: Path, digest: str) -> Path:
    """Where the store at `directory` keeps this content. Whoever asks must know that it is a digest."""
    return directory / digest[7:9] / digest[9:]


class ArtifactStore:
    """A directory of contents. One process at a time writes to it (a server holds its journal's lock)."""

    def __init__(self, directory: Path) -> None:
        self._directory = private_directory(directory)
        self._partial = private_directory(directory / "partial")
        self._names = itertools.count(1)
        for left in self._partial.glob("*.*"):  # kept and not settled when the last server died
            left.unlink(missing_ok=True)

    def path(self, digest: str) -> Path:
        """Where the content is, or would be. Raises: UsageError for what is no digest (so no name leads elsewhere)."""
        if not is_digest(digest):
            raise _no_digest(digest)
        return content_path(self._directory, digest)

    @property
    def directory(self) -> Path:
        return self._directory

    def partial_path(self, digest: str) -> Path:
        self.path(digest)
        return self._partial / digest[7:]

    def has(self, digest: str) -> int:
        """COMPLETE (-1), or how many bytes of it are here: where an upload may go on.

        Who asks may build on the answer, so from now on the content counts as fresh (see sweep).
        """
        try:
            os.utime(self.path(digest))
            return COMPLETE
        except FileNotFoundError:
            pass
        try:
            return self.partial_path(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def upload(self, digest: str, offset: int = 0) -> Upload:
        """Begin or go on with a content; what is here beyond `offset` is thrown away.

        Raises: Conflict when less than `offset` is here; UsageError; Unavailable.
        """
        try:
            return Upload(self, digest, offset)
        except OSError as error:
            raise _disk(error) from None

    def put(self, data: bytes, media: str = "application/json") -> ArtifactRef:
        """Keep a content of our own."""
        digest = digest_of(data)
        if self.has(digest) != COMPLETE:
            self.settle(self._write_together([(digest, data)]))
        return ArtifactRef(digest, media, len(data))

    def keep(self, contents: Sequence[Content], kept: list[Kept]) -> dict[str, AsterismError]:
        """Take small contents, all but those returned. They are here once `kept`, which grows, is settled.

        Raises: Unavailable when the disk is full.
        """
        refused: dict[str, AsterismError] = {}
        fresh: dict[str, bytes] = {}
        for one in contents:
            if not is_digest(one.digest):
                refused[one.digest] = _no_digest(one.digest)
            elif len(one.data) > SMALL_BYTES:
                refused[one.digest] = oversized(one.digest, len(one.data))
            elif self.has(one.digest) == COMPLETE:
                continue
            elif digest_of(one.data) != one.digest:
                refused[one.digest] = _another_content(one.digest)
            else:
                fresh[one.digest] = one.data
        pairs = list(fresh.items())
        for start in range(0, len(pairs), _TOGETHER):
            kept += self._write_together(pairs[start : start + _TOGETHER])
        return refused

    def settle(self, kept: Sequence[Kept]) -> None:
        """Give what was kept its names and have them on disk, each folder flushed once. Raises: Unavailable."""
        folders = {final.parent for _, final in kept}
        try:
            for folder in folders:
                private_directory(folder)
            for name, final in kept:
                os.replace(name, final)
            for folder in folders:
                _flush_directory(folder)
        except OSError as error:
            raise _disk(error) from None

    def _write_together(self, pairs: Sequence[tuple[str, bytes]]) -> list[Kept]:
        """Written, all before the first is flushed, so that the disk has them in one go; under passing names."""
        written: list[Kept] = []
        handles: list[int] = []
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            for digest, data in pairs:
                # Not the digest's own partial name: an upload of the same content may be growing there.
                name = f"{self._partial}/{digest[7:]}.{next(self._names)}"
                handles.append(os.open(name, flags, 0o600))
                written.append((name, self.path(digest)))
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(handles[-1], rest) :]
            for handle in handles:
                os.fsync(handle)
        except OSError as error:
            for name, _ in written:
                os.unlink(name)
            raise _disk(error) from None
        finally:
            for handle in handles:
                os.close(handle)
        return written

    def collect(self, digests: Sequence[str]) -> tuple[tuple[Content, ...], int]:
        """A message's worth of small contents from the front of the list, and how many of its entries that covers.

        What is not here, or not small, is passed over. Raises: UsageError for what is no digest.
        """
        found: list[Content] = []
        room = CHUNK_BYTES
        for at, digest in enumerate(digests):
            try:
                file = self.open(digest)
            except NotFound:
                continue
            with file:
                size = os.fstat(file.fileno()).st_size
                if size > SMALL_BYTES:
                    continue
                if size > room:
                    return tuple(found), at
                found.append(Content(digest, "", file.read()))
                room -= size + _ENVELOPE
        return tuple(found), len(digests)

    def size(self, digest: str) -> int:
        """Raises: NotFound."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise _absent(digest) from None

    def open(self, digest: str) -> BinaryIO:
        """The content, for reading. Raises: NotFound."""
        try:
            handle = os.open(self.path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise _absent(digest) from None
        return os.fdopen(handle, "rb", buffering=0)

    def begin(self, digest: str, offset: int = 0) -> tuple[bytes, BinaryIO | None]:
        """The first chunk from `offset`, and the file to read on from: None when that was all. Raises: NotFound."""
        file = self.open(digest)
        try:
            file.seek(offset)
            chunk = file.read(CHUNK_BYTES)
            if offset + len(chunk) < os.fstat(file.fileno()).st_size:
                return chunk, file
        except BaseException:
            file.close()
            raise
        file.close()
        return chunk, None

    def read(self, digest: str, offset: int = 0) -> Iterator[bytes]:
        """The content from `offset` in chunks. Raises: NotFound."""
        with self.open(digest) as file:
            file.seek(offset)
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def json_at(self, digest: str, pointer: tuple[str, ...] = ()) -> bytes:
        """The JSON text at `pointer` in a content that is JSON. Only the objects on the way are taken apart.

        Raises: NotFound for an absent content or pointer; UsageError beyond JSON_BYTES or JSON_ITEMS;
            SchemaMismatch for a content that is no JSON.
        """
        size = self.size(digest)
        if size > JSON_BYTES:
            raise _too_large(f"{digest} has {size} bytes, JSON is read up to {JSON_BYTES}")
        with self.open(digest) as file:
            node: Any = file.read()
        for depth, step in enumerate(pointer):
            inside = _inside(digest, node)
            if isinstance(inside, list) and step == EACH:
                node = msgspec.json.encode(self._gathered(digest, node, pointer[depth:]))
                break
            where = "/" + "/".join(pointer[: depth + 1])
            if isinstance(inside, dict) and step in inside:
                node = inside[step]
            elif isinstance(inside, list) and _INDEX.fullmatch(step) and int(step) < len(inside):
                node = inside[int(step)]
            else:
                raise NotFound(f"there is nothing at {where} in {digest}", hint="the task's result has other fields")
        found = bytes(node)
        try:
            check_json(found)
        except WireError as error:
            raise SchemaMismatch(f"{digest} is not JSON: {error.message}") from None
        return found

    def _gathered(self, digest: str, node: Any, pointer: tuple[str, ...]) -> list[Any]:
        """What each element of a list has at the pointer behind `*`. Raises: NotFound, SchemaMismatch."""
        try:
            found = descend(msgspec.json.decode(node), pointer)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise SchemaMismatch(f"{digest} is not JSON: {error}") from None
        if found is MISSING:
            raise NotFound(f"not every element has /{'/'.join(pointer[1:])}", hint="name what all of them have")
        return list(found)

    def length_at(self, digest: str, pointer: tuple[str, ...] = ()) -> int:
        """How many elements the list at `pointer` has. Raises: as json_at; SchemaMismatch when it is no list."""
        found = _inside(digest, self.json_at(digest, pointer))
        if not isinstance(found, list):
            raise SchemaMismatch(f"there is no list at /{'/'.join(pointer)} in {digest}")
        return len(found)


def _inside(digest: str, node: Any) -> list[Any] | dict[str, Any] | None:
    """The parts of a JSON list or object, each still as text; None for a scalar."""
    start = bytes(memoryview(node)[:64]).lstrip()[:1]
    if start not in (b"[", b"{"):
        return None
    try:
        found: list[Any] | dict[str, Any] = _LIST.decode(node) if start == b"[" else _OBJECT.decode(node)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise SchemaMismatch(f"{digest} is not JSON: {error}") from None
    if len(found) > JSON_ITEMS:
        raise _too_large(f"{digest} has a list or object of {len(found)} items, {JSON_ITEMS} are allowed")
    return found


def _no_digest(text: str) -> UsageError:
    return UsageError(f"{text[:80]!r} is no digest", hint="write sha256: and 64 hex digits")


def _another_content(digest: str) -> WireError:
    return WireError(f"the content is not that of {digest}", hint="send it again from the start")


def _too_large(message: str) -> UsageError:
    return UsageError(message, hint="let the task return less, or split it up with a map")


def _absent(digest: str) -> NotFound:
    return NotFound(f"the content {digest} isn't here", hint="the run that made it may have been removed")


def _disk(error: OSError) -> Unavailable:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "the disk is full" if full else f"the artifact store can't write: {error.strerror}"
    return Unavailable(what, hint="make room under ASTERISM_HOME" if full else "check ASTERISM_HOME")


def _flush_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
