"""The reading side of the SQLite journal: read-only connections that see what is committed, in whatever thread asks.

Invariant: every record and snapshot part is checked against its checksum before it is handed out, and lifted to
today's body version. It never writes.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..placement.predictor import Outcome
from .failure import unusable
from .form import FORM, Form
from .journal import LogLine, Record, Snapshot
from .prediction import read_recent, read_run
from .schema import checksum, corrupt, part_checksum


def connect_to_read(path: Path) -> sqlite3.Connection:
    """A read-only connection that any thread may use, one at a time. Raises: sqlite3.OperationalError."""
    reader = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )
    reader.execute("PRAGMA query_only=1")
    return reader


def read_snapshot(reader: sqlite3.Connection) -> Snapshot | None:
    """All parts, as of one instant. Raises: JournalCorrupt for a part whose checksum is wrong."""
    meta = dict(reader.execute("SELECT key, value FROM meta WHERE key LIKE 'snapshot%'"))
    rows = reader.execute("SELECT part, seq, records, crc, body FROM snapshot ORDER BY part").fetchall()
    if not meta:
        return None
    if not rows or rows[0][0] != 0:
        raise corrupt("the head of the snapshot")
    parts: dict[int, bytes] = {}
    records: dict[int, int] = {}
    for part, seq, count, crc, body in rows:
        if part_checksum(part, seq, body) != crc:
            raise corrupt(f"snapshot part {part} (as of event {seq})")
        parts[part] = body
        records[part] = count
        if part == 0 and str(seq) != meta.get("snapshot_seq"):  # the head is written with every snapshot
            raise corrupt("the number of the snapshot")
    try:
        return Snapshot(
            int(meta["snapshot_seq"]), float(meta["snapshot_at"]), parts, records, meta.get("snapshot_layout", "")
        )
    except (LookupError, ValueError, TypeError) as error:
        raise corrupt("the description of the snapshot") from error


def read_records(
    reader: sqlite3.Connection,
    form: Form,
    after: int,
    run: int | None,
    limit: int,
    kinds: Collection[str] = (),
) -> list[Record]:
    """See Journal.read."""
    where = "seq >= COALESCE((SELECT MAX(seq) FROM event WHERE seq <= ?), 0)"
    values: list[int | str] = [after]
    if run is not None:
        where += " AND run = ?"
        values.append(run)
    if kinds:
        where += f" AND kind IN ({', '.join('?' * len(kinds))})"
        values += sorted(kinds)
    rows = reader.execute(
        f"SELECT seq, run, kind, v, at, crc, body FROM event WHERE {where} ORDER BY seq LIMIT ?", [*values, limit]
    ).fetchall()
    found: list[Record] = []
    for seq, of_run, kind, v, at, crc, body in rows:
        if checksum(seq, of_run, kind, v, at, body) != crc:
            raise corrupt(f"journal record {seq}", str(seq))
        found.append(Record(seq, of_run, kind, at, form.lift(seq, v, body), form.version))
    return found


def read_removed(reader: sqlite3.Connection) -> frozenset[int]:
    """See Journal.removed."""
    return frozenset(row[0] for row in reader.execute("SELECT run FROM removal"))


class Readers:
    """A pool of connections; each is used by one thread at a time and kept for the next."""

    def __init__(self, path: Path, form: Form = FORM) -> None:
        self._path = path
        self._form = form
        self._idle: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._closed = False

    def close(self) -> None:
        """Connections in use are closed when they come back."""
        with self._lock:
            self._closed = True
            for reader in self._idle:
                reader.close()
            self._idle.clear()

    def load_snapshot(self) -> Snapshot | None:
        with self._connection() as reader:
            reader.execute("BEGIN")
            try:
                return read_snapshot(reader)
            finally:
                reader.execute("COMMIT")

    def read(
        self, after: int = 0, run: int | None = None, limit: int = 1000, kinds: Collection[str] = ()
    ) -> list[Record]:
        with self._connection() as reader:
            return read_records(reader, self._form, after, run, limit, kinds)

    def used_bytes(self) -> int:
        """Of the event file, pages that are free for reuse apart."""
        with self._connection() as reader:
            pages, free, size = (
                reader.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
            )
            return int((pages - free) * size)

    def removed(self) -> frozenset[int]:
        with self._connection() as reader:
            return read_removed(reader)

    def read_logs(
        self, run: int, task: int | None = None, after: int = 0, limit: int = 1000
    ) -> list[tuple[int, LogLine]]:
        where, values = ("run = ? AND id > ?", [run, after])
        if task is not None:
            where, values = ("run = ? AND task = ? AND id > ?", [run, task, after])
        with self._connection() as reader:
            rows = reader.execute(
                f"SELECT id, run, task, attempt, n, at, stream, text FROM log WHERE {where} ORDER BY id LIMIT ?",
                [*values, limit],
            ).fetchall()
        return [(row[0], LogLine(*row[1:])) for row in rows]

    def read_predictions(self, run: int, task: int | None = None, limit: int = 1000) -> list[Outcome]:
        with self._connection() as reader:
            return read_run(reader, run, task, limit)

    def recent_predictions(self, each: int) -> list[Outcome]:
        with self._connection() as reader:
            return read_recent(reader, each)

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """A read-only connection, kept for the next reader of whatever thread."""
        with self._lock:
            reader = self._idle.pop() if self._idle else None
        try:
            if reader is None:
                reader = connect_to_read(self._path)
            yield reader
        except sqlite3.Error as error:
            if reader is not None:
                reader.close()
            raise unusable(self._path, error) from error
        except (UnicodeDecodeError, MemoryError) as error:  # rot in what SQLite reads before we do
            if reader is not None:
                reader.close()
            raise corrupt(f"the journal {self._path}") from error
        with self._lock:
            if self._closed:
                reader.close()
            else:
                self._idle.append(reader)
