"""The tables of the SQLite journal, their statements and checksums, and how an older file is brought up to them.

Invariant: `checksum` covers every column of a record, so one flipped bit anywhere in a row is found when it is read.
"""

from __future__ import annotations

import sqlite3
import struct
import zlib
from typing import Final

import msgspec

from protocol.errors import JournalCorrupt

from .form import BODY_VERSION, newer

SCHEMA_VERSION: Final = 3
"""1: releases up to 0.1. 2: removed runs leave their number, and the places of their records. 3: predictions
with the tokens of a run and what ran beside it."""

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
CREATE TABLE IF NOT EXISTS prediction(
  id INTEGER PRIMARY KEY, run INTEGER NOT NULL, task INTEGER NOT NULL, attempt INTEGER NOT NULL, at REAL NOT NULL,
  skill TEXT NOT NULL, class TEXT NOT NULL, worker INTEGER NOT NULL, speed REAL NOT NULL, size INTEGER NOT NULL,
  run_s REAL NOT NULL, said_s REAL, low_s REAL, p95_s REAL, n INTEGER NOT NULL, rests_on TEXT NOT NULL,
  tokens_in INTEGER NOT NULL DEFAULT 0, tokens_out INTEGER NOT NULL DEFAULT 0, beside INTEGER NOT NULL DEFAULT -1);
CREATE INDEX IF NOT EXISTS prediction_run ON prediction(run, task);
CREATE TABLE IF NOT EXISTS removal(run INTEGER PRIMARY KEY, seq INTEGER NOT NULL, done INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS gap(first INTEGER PRIMARY KEY, last INTEGER NOT NULL);
"""

COLUMNS: Final = 7
SIZES: Final = tuple(2**power for power in range(11, -1, -1))
"""Rows of one INSERT: a few fixed sizes, so that their statements stay prepared."""
_ROW: Final = "(?,?,?,?,?,?,?)"
INSERT: Final = {
    size: "INSERT INTO event(seq, run, kind, v, at, crc, body) VALUES " + ",".join([_ROW] * size) for size in SIZES
}
INSERT_LOG: Final = "INSERT INTO log(run, task, attempt, n, at, stream, text) VALUES " + _ROW

_HEAD: Final = struct.Struct("<qqqd")


def checksum(seq: int, run: int, kind: str, v: int, at: float, body: bytes) -> int:
    """Of a record; -1, which none has, where rot has made a column another type."""
    try:
        return zlib.crc32(body, zlib.crc32(_HEAD.pack(seq, run, v, at) + kind.encode()))
    except (struct.error, TypeError, AttributeError):
        return -1


def part_checksum(part: int, seq: int, body: bytes) -> int:
    """As checksum, of a part of the snapshot."""
    try:
        return zlib.crc32(body, zlib.crc32(_HEAD.pack(seq, part, 0, 0.0)))
    except (struct.error, TypeError):
        return -1


def prepare(writer: sqlite3.Connection, name: str, fresh_id: str) -> dict[str, str]:
    """Make the tables, bring an older file up to date, give a new one its id: one transaction. Returns `meta`.

    Raises: VersionMismatch for a file that a newer build has written to; it is left as it was.
    """
    writer.execute("BEGIN IMMEDIATE")
    try:
        tables = {row[0] for row in writer.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        meta = dict(writer.execute("SELECT key, value FROM meta")) if "meta" in tables else {}
        check_versions(meta, name)
        for statement in DDL.split(";"):
            writer.execute(statement)
        if meta.get("schema") == "1":
            _from_1(writer)
        if meta.get("schema") in ("1", "2"):
            _from_2(writer)
        meta = {"journal": fresh_id, "epoch": "0"} | meta | {"schema": str(SCHEMA_VERSION), "body": str(BODY_VERSION)}
        writer.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())
        writer.execute("COMMIT")
    except BaseException:
        if writer.in_transaction:
            writer.execute("ROLLBACK")
        raise
    return meta


def check_versions(meta: dict[str, str], name: str) -> None:
    """Raises: VersionMismatch for what only a newer build can read."""
    for key, ours in (("schema", SCHEMA_VERSION), ("body", BODY_VERSION)):
        if not str(meta.get(key, ours)).isdecimal():
            raise corrupt(f"the version of the journal {name}")
        if int(meta.get(key, ours)) > ours:
            what = "tables" if key == "schema" else "events"
            raise newer(f"the journal {name} has {what} of version {meta[key]}, this build knows {ours}")


def _from_1(writer: sqlite3.Connection) -> None:
    """A removed run left nothing behind: its number is what no record names, its places what no record fills."""
    writer.execute(
        "INSERT INTO gap SELECT seq + width, next - 1 FROM (SELECT seq, LEAD(seq) OVER (ORDER BY seq) AS next,"
        " CASE WHEN substr(body, 1, 1) = x'92' THEN 2 ELSE 1 END AS width FROM event) WHERE next > seq + width"
    )
    head = writer.execute("SELECT seq, crc, body FROM snapshot WHERE part = 0").fetchone()
    if head is not None and part_checksum(0, head[0], head[2]) != head[1]:
        raise corrupt("the head of the snapshot")
    made = msgspec.msgpack.decode(head[2])[2] if head is not None else 0
    known = {row[0] for row in writer.execute("SELECT DISTINCT run FROM event")}
    gone = [(run,) for run in range(1, made + 1) if run not in known]
    writer.executemany("INSERT INTO removal(run, seq, done) VALUES (?, 0, 1)", gone)
    writer.execute("INSERT INTO removal SELECT run, MAX(seq), 0 FROM event WHERE kind = 'RunRemoved' GROUP BY run")


def _from_2(writer: sqlite3.Connection) -> None:
    """Files of 1 may have no predictions yet: then the table was made just now, as it is today."""
    known = {row[1] for row in writer.execute("PRAGMA table_info(prediction)")}
    for name, usual in (("tokens_in", 0), ("tokens_out", 0), ("beside", -1)):
        if name not in known:
            writer.execute(f"ALTER TABLE prediction ADD COLUMN {name} INTEGER NOT NULL DEFAULT {usual}")


def corrupt(what: str, where: str = "") -> JournalCorrupt:
    return JournalCorrupt(
        f"{what} fails its checksum: the file was damaged after it was written",
        hint="restore the journal from a copy; workers still hold what it did not acknowledge",
        where=where,
    )
