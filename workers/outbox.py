"""The outbox: every report is in this file before it leaves, until the orchestrator has it.

One append-only file per journal id, so that what one journal is owed is never offered to another. A write survives
`kill -9` of the daemon (page cache); `sync` makes it survive power loss and is called within 50 ms, in a thread.
Invariant: a record is whole or absent: each carries a checksum, a torn tail is cut off on opening. It knows no link
and no machine.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from protocol.frame import Report
from protocol.ids import AttemptId

from .spool import Owed, Spools, owed_for

_HEAD: Final = 8
_COMPACT_BYTES: Final = 4 * 1024 * 1024


class _Forgotten(msgspec.Struct, frozen=True, array_like=True, tag="forgotten", gc=False):
    attempts: tuple[AttemptId, ...]


class _Kept(msgspec.Struct, frozen=True, array_like=True, tag="kept", gc=False):
    report: Report


class _Epoch(msgspec.Struct, frozen=True, array_like=True, tag="epoch", gc=False):
    epoch: int


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Forgotten | _Kept | _Epoch)


def _frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "little") + zlib.crc32(body).to_bytes(4, "little") + body


class _File:
    """One journal's file: where each unacknowledged report starts, and how much of it is dead."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.at: dict[AttemptId, tuple[int, int]] = {}
        self.epoch = 0
        self.size = self.live = self.synced = 0
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._load()

    def _load(self) -> None:
        data = memoryview(self.path.read_bytes())
        at = 0
        while at + _HEAD <= len(data):
            length = int.from_bytes(data[at : at + 4], "little")
            body = data[at + _HEAD : at + _HEAD + length]
            if len(body) < length or zlib.crc32(body) != int.from_bytes(data[at + 4 : at + 8], "little"):
                break
            try:
                record = _DECODER.decode(body)
            except (msgspec.DecodeError, UnicodeDecodeError):
                break  # zeros, which a power cut leaves at the end of a file, have the checksum of nothing
            self._note(record, at, _HEAD + length)
            at += _HEAD + length
        if at < len(data):
            os.ftruncate(self.fd, at)
        self.size = self.synced = at

    def _note(self, record: _Forgotten | _Kept | _Epoch, at: int, length: int) -> None:
        if isinstance(record, _Kept):
            self._drop(record.report.attempt)
            self.at[record.report.attempt] = (at, length)
            self.live += length
        elif isinstance(record, _Forgotten):
            for attempt in record.attempts:
                self._drop(attempt)
        else:
            self.epoch = max(self.epoch, record.epoch)

    def _drop(self, attempt: AttemptId) -> None:
        found = self.at.pop(attempt, None)
        if found is not None:
            self.live -= found[1]

    def write(self, records: Iterable[_Forgotten | _Kept | _Epoch]) -> None:
        chunks = []
        noted = list(records)
        for record in noted:
            chunks.append(_frame(_ENCODER.encode(record)))
        try:
            _write_all(self.fd, b"".join(chunks))
        except OSError:
            os.ftruncate(self.fd, self.size)  # half a record would hide every later one
            raise
        for record, chunk in zip(noted, chunks, strict=True):
            self._note(record, self.size, len(chunk))
            self.size += len(chunk)

    def read(self, attempt: AttemptId) -> Report | None:
        found = self.at.get(attempt)
        if found is None:
            return None
        at, length = found
        record = _DECODER.decode(os.pread(self.fd, length, at)[_HEAD:])
        return record.report if isinstance(record, _Kept) else None

    def compact(self) -> None:
        """Write what is still owed into a new file and put it in place of the old one, fsynced first."""
        kept = [record for record in map(self.read, list(self.at)) if record is not None]
        fresh = self.path.with_suffix(".new")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        new = _File(fresh)
        try:
            new.write([_Epoch(self.epoch), *map(_Kept, kept)])
            os.fsync(new.fd)
            os.replace(fresh, self.path)
        except OSError:
            os.close(new.fd)
            fresh.unlink(missing_ok=True)
            raise
        os.close(self.fd)
        self.fd, self.at, self.size, self.live, self.synced = new.fd, new.at, new.size, new.live, new.size
        new.fd = -1


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class Outbox:
    """All of this worker's files. Not thread-safe, but `sync`'s fsync may run in a thread beside appends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._files = {path.stem: _File(path) for path in sorted(folder.glob("*.log"))}
        self.journal = ""
        with contextlib.suppress(FileNotFoundError):
            self.journal = (folder / "journal").read_text().strip()

    def spools(self) -> Spools:
        """What is owed, per journal: the machine's start."""
        owed: dict[str, dict[AttemptId, Owed]] = {}
        for journal, file in self._files.items():
            found = owed[journal] = {}
            for attempt in file.at:
                report = file.read(attempt)
                if report is not None:
                    found[attempt] = owed_for(report)
        return Spools(self.journal, {journal: file.epoch for journal, file in self._files.items()}, owed)

    def adopt(self, journal: str, epoch: int) -> None:
        """From here `append`, `read` and `forget` mean this journal. Safe to repeat."""
        if not journal.isalnum():
            raise ValueError("a journal id is letters and digits")
        if journal != self.journal:
            self.journal = journal
            fresh = self.folder / "journal.new"
            fresh.write_text(journal)
            os.replace(fresh, self.folder / "journal")
        file = self._current()
        if epoch > file.epoch:
            file.write([_Epoch(epoch)])

    def append(self, reports: Iterable[Report]) -> None:
        """One write for all of them. Raises: OSError when the disk is full (nothing of it counts then)."""
        self._current().write(map(_Kept, reports))

    def read(self, attempt: AttemptId) -> Report | None:
        return self._current().read(attempt)

    def forget(self, attempts: tuple[AttemptId, ...]) -> None:
        """The orchestrator has them. Losing this record only means to offer them once more."""
        file = self._current()
        file.write([_Forgotten(attempts)])
        if file.size > _COMPACT_BYTES and file.live < file.size // 4:
            file.compact()

    @property
    def dirty(self) -> bool:
        return any(file.synced < file.size for file in self._files.values())

    def sync(self) -> None:
        """fsync what has been appended; everything appended before the call is on disk after it."""
        for file in list(self._files.values()):
            upto = file.size
            if file.synced < upto:
                duplicate = os.dup(file.fd)
                try:
                    os.fsync(duplicate)
                finally:
                    os.close(duplicate)
                if file.synced < upto <= file.size:
                    file.synced = upto

    def renew(self) -> None:
        """After a failed `sync`: what a disk once refused it may forget, so all that is owed is written anew.

        Raises: OSError, nothing having changed for the file that failed.
        """
        for file in list(self._files.values()):
            if file.synced < file.size:
                file.compact()

    def close(self) -> None:
        for file in self._files.values():
            if file.fd >= 0:
                os.close(file.fd)
                file.fd = -1

    def _current(self) -> _File:
        name = self.journal or "none"
        file = self._files.get(name)
        if file is None:
            file = self._files[name] = _File(self.folder / f"{name}.log")
        return file
