"""The tables of the SQLite journal, the checksum of a record, and the upcasters of old bodies.

Invariant: `checksum` covers every column of a record, so one flipped bit anywhere in a row is found when it is read.
A stored body of version v < BODY_VERSION is lifted step by step; a version above is from a newer build and refused.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Final

from protocol.errors import JournalCorrupt, VersionMismatch

SCHEMA_VERSION: Final = 1
BODY_VERSION: Final = 1

DDL: Final = """
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS event(
  seq INTEGER PRIMARY KEY, run INTEGER NOT NULL, kind TEXT NOT NULL, v INTEGER NOT NULL,
  at REAL NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS event_run ON event(run, seq);
CREATE TABLE IF NOT EXISTS snapshot(
  part INTEGER PRIMARY KEY, seq INTEGER NOT NULL, records INTEGER NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS log(
  id INTEGER PRIMARY KEY, run INTEGER NOT NULL, task INTEGER NOT NULL, attempt INTEGER NOT NULL, n INTEGER NOT NULL,
  at REAL NOT NULL, stream TEXT NOT NULL, text TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS log_run ON log(run, task, id);
"""

COLUMNS: Final = 7
SIZES: Final = tuple(2**power for power in range(11, -1, -1))
"""Rows of one INSERT: a few fixed sizes, so that their statements stay prepared."""
_ROW: Final = "(?,?,?,?,?,?,?)"
INSERT: Final = {
    size: "INSERT INTO event(seq, run, kind, v, at, crc, body) VALUES " + ",".join([_ROW] * size) for size in SIZES
}
INSERT_LOG: Final = "INSERT INTO log(run, task, attempt, n, at, stream, text) VALUES " + _ROW

UPCASTERS: Final[Mapping[int, Callable[[str, bytes], bytes]]] = {}
"""version -> (kind, body) -> body of the next version."""

_HEAD: Final = struct.Struct("<qqqd")


def checksum(seq: int, run: int, kind: str, v: int, at: float, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(_HEAD.pack(seq, run, v, at) + kind.encode()))


def part_checksum(part: int, seq: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(_HEAD.pack(seq, part, 0, 0.0)))


def lift(seq: int, kind: str, v: int, body: bytes) -> bytes:
    """The body in today's version. Raises: VersionMismatch for one that a newer build wrote."""
    while v < BODY_VERSION:
        body = UPCASTERS[v](kind, body)
        v += 1
    if v > BODY_VERSION:
        raise VersionMismatch(
            f"journal record {seq} has version {v}; this build reads up to {BODY_VERSION}",
            hint="start the newer asterism that wrote it",
        )
    return body


def corrupt(what: str) -> JournalCorrupt:
    return JournalCorrupt(
        f"{what} fails its checksum: the file was damaged after it was written",
        hint="restore the journal from a copy; workers still hold what it did not acknowledge",
    )
