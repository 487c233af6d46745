"""The journal on SQLite: WAL, synchronous=FULL, one writing connection owned by one thread, commits in groups.

Invariant: everything of one `append` is committed or nothing; `Commit` settles and `notify` runs only after the
fsync. Rows go in as multi-row statements of a few fixed sizes: a statement per row would hand the interpreter lock
back and forth for every row, and with a busy loop beside it that costs 5 ms each (333 records/s instead of 50,000).

Disk full is waited out: the group is kept and tried again, nothing behind it is acknowledged. Any other failed write
ends the process through `Health.failed`; a failed fsync is never retried, because the kernel may have dropped the
pages it could not write and would report success the next time.

Bound to asyncio on purpose: the thread calls back with `call_soon_threadsafe`, once per group, and waits for nobody.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec

from protocol.errors import AsterismError, Unavailable, VersionMismatch

from .journal import Commit, Health, LogLine, Record, Snapshot, Statistics
from .lock import take_lock
from .quota import LogQuota
from .reader import Readers
from .schema import (
    COLUMNS,
    DDL,
    INSERT,
    INSERT_LOG,
    SCHEMA_VERSION,
    SIZES,
    checksum,
    corrupt,
    part_checksum,
)

GROUP_RECORDS: Final = 4096
FULL_RETRY_S: Final = 0.25
PACE_S: Final = 0.004
"""Between two commits that nobody waits for."""
_FULL: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE})


class _Entry(msgspec.Struct, gc=False):
    """One call of `append` or `write_snapshot`, on its way to the writer thread."""

    commit: Commit
    notify: Callable[[], None] | None
    records: Sequence[Record] = ()
    logs: Sequence[LogLine] = ()
    snapshot: Snapshot | None = None
    forget: Sequence[int] = ()
    pressing: bool = True


class SqliteJournal:
    """Open with the constructor (takes the lock, recovers the WAL), then `start` in the loop.

    `limit_bytes` caps the size of the event file, 0 for no cap; over it behaves as a full disk.
    Raises: JournalBusy if another process holds it, VersionMismatch, JournalCorrupt.
    """

    def __init__(
        self, path: Path, *, limit_bytes: int = 0, task_log_bytes: int = 10_000_000, run_log_bytes: int = 200_000_000
    ) -> None:
        self.path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = take_lock(path)
        try:
            self._writer = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=64)
            self.id, self.epoch = self._prepare()
        except sqlite3.DatabaseError as error:
            self._lock.close()
            raise corrupt(f"the journal {path}") from error
        except BaseException:
            self._lock.close()
            raise
        self.resize(limit_bytes)
        self._quota = LogQuota(self._stored_logs, task_bytes=task_log_bytes, run_bytes=run_log_bytes)
        self._readers = Readers(path)
        self._queue: SimpleQueue[_Entry | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._health: Health | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._committed_at = 0.0
        self._closed = False
        self._stats = Statistics()

    # life

    def start(self, health: Health) -> None:
        self._loop = asyncio.get_running_loop()
        self._health = health
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    async def aclose(self) -> None:
        """While the disk is full the queued records are given up: nobody was told they are safe."""
        if self._closed:
            return
        self._closed = True
        self._stopping.set()
        if self._thread is not None:
            self._queue.put(None)
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._thread.join)
        self._readers.close()
        self._writer.close()
        self._lock.close()

    def open_epoch(self, epoch: int) -> None:
        if epoch <= self.epoch:
            raise ValueError(f"epoch {epoch} is not above {self.epoch}")
        self._writer.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (str(epoch),))
        self.epoch = epoch

    def resize(self, limit_bytes: int) -> None:
        """Change the cap on the file's size (0: none)."""
        page = self._writer.execute("PRAGMA page_size").fetchone()[0]
        pages = max(1, limit_bytes // page) if limit_bytes else 2**32 - 2
        self._writer.execute(f"PRAGMA max_page_count={pages}")

    # writing, in the loop

    def append(
        self,
        records: Sequence[Record],
        logs: Sequence[LogLine] = (),
        notify: Callable[[], None] | None = None,
        *,
        pressing: bool = True,
    ) -> Commit:
        return self._enqueue(_Entry(Commit(), notify, records=records, logs=logs, pressing=pressing))

    def write_snapshot(self, snapshot: Snapshot, forget: Sequence[int] = ()) -> Commit:
        return self._enqueue(_Entry(Commit(), None, snapshot=snapshot, forget=tuple(forget)))

    def statistics(self) -> Statistics:
        return self._stats

    def _enqueue(self, entry: _Entry) -> Commit:
        if self._failure is not None or self._closed:
            entry.commit.settle(self._failure or Unavailable("the journal is closed"))
        else:
            self._queue.put(entry)
        return entry.commit

    # reading, in any thread

    def load_snapshot(self) -> Snapshot | None:
        return self._readers.load_snapshot()

    def read(
        self, after: int = 0, run: int | None = None, limit: int = 1000, kinds: Collection[str] = ()
    ) -> list[Record]:
        return self._readers.read(after, run, limit, kinds)

    def read_logs(
        self, run: int, task: int | None = None, after: int = 0, limit: int = 1000
    ) -> list[tuple[int, LogLine]]:
        return self._readers.read_logs(run, task, after, limit)

    # the writer thread

    def _prepare(self) -> tuple[str, int]:
        writer = self._writer
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("PRAGMA synchronous=FULL")
        writer.execute("PRAGMA wal_autocheckpoint=4000")
        writer.execute("PRAGMA journal_size_limit=67108864")
        os.chmod(self.path, 0o600)
        writer.executescript(DDL)
        writer.execute("BEGIN IMMEDIATE")
        meta = dict(writer.execute("SELECT key, value FROM meta"))
        if int(meta.get("schema", SCHEMA_VERSION)) != SCHEMA_VERSION:
            raise VersionMismatch(
                f"the journal {self.path} has schema {meta['schema']}, this build writes {SCHEMA_VERSION}",
                hint="start the asterism that wrote it, or choose another ASTERISM_HOME",
            )
        if "journal" not in meta:
            meta |= {"journal": secrets.token_hex(16), "schema": str(SCHEMA_VERSION), "epoch": "0"}
            writer.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())
        writer.execute("COMMIT")
        return meta["journal"], int(meta["epoch"])

    def _stored_logs(self, run: int) -> dict[int, int]:
        rows = self._writer.execute(
            "SELECT task, SUM(LENGTH(CAST(text AS BLOB))) FROM log WHERE run = ? GROUP BY task", (run,)
        )
        return dict(rows.fetchall())

    def _write(self) -> None:
        group: list[_Entry] = []
        try:
            while True:
                group, last = self._take()
                if group:
                    self._commit(group)
                    self._call(self._settle, group, None)
                if last:
                    return
        except _Abandoned:
            self._call(self._fail, group, Unavailable("the journal was closed while the disk was full"), False)
        except BaseException as error:  # noqa: BLE001 the thread's border: whatever broke, the process has to end
            self._call(self._fail, group, error, True)

    def _take(self) -> tuple[list[_Entry], bool]:
        """Wait for one entry, then everything else that is queued, up to a group.

        While nobody waits for any of it, commits keep PACE_S apart: each costs a chain of tasks more than its hop.
        """
        entry = self._queue.get()
        group: list[_Entry] = []
        size = 0
        pressing = False
        while entry is not None:
            group.append(entry)
            size += len(entry.records) + 1
            pressing = pressing or entry.pressing
            if size >= GROUP_RECORDS:
                return group, False
            patience_s = 0.0 if pressing else self._committed_at + PACE_S - time.perf_counter()
            try:
                entry = self._queue.get(timeout=patience_s) if patience_s > 0 else self._queue.get_nowait()
            except Empty:
                return group, False
        return group, True

    def _commit(self, group: list[_Entry]) -> None:
        full = False
        while True:
            began = time.perf_counter()
            try:
                records = self._commit_once(group)
            except sqlite3.OperationalError as error:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                if error.sqlite_errorcode not in _FULL:
                    raise
                if not full:
                    full = True
                    self._call(self._tell_full, True)
                if self._stopping.wait(FULL_RETRY_S):
                    raise _Abandoned from error
                continue
            self._committed_at = time.perf_counter()
            took = self._committed_at - began
            stats = self._stats
            self._stats = Statistics(
                groups=stats.groups + 1,
                records=stats.records + records,
                largest=max(stats.largest, records),
                commit_s=stats.commit_s + took,
                slowest_s=max(stats.slowest_s, took),
            )
            if full:
                self._call(self._tell_full, False)
            return

    def _commit_once(self, group: list[_Entry]) -> int:
        writer = self._writer
        writer.execute("BEGIN IMMEDIATE")
        flat: list[Any] = []
        count = 0
        lines: list[LogLine] = []
        for entry in group:
            for record in entry.records:
                seq, run, kind, at, body, v = record.seq, record.run, record.kind, record.at, record.body, record.v
                flat += (seq, run, kind, v, at, checksum(seq, run, kind, v, at, body), body)
            count += len(entry.records)
            lines.extend(entry.logs)
            if entry.snapshot is not None:  # ordered with the records before and behind it
                self._insert(flat)
                flat = []
                self._store_snapshot(entry.snapshot, entry.forget)
        self._insert(flat)
        if lines:
            kept = self._quota.admit(lines)
            writer.executemany(
                INSERT_LOG, [(x.run, x.task, x.attempt, x.n, x.at, x.stream, _storable(x.text)) for x in kept]
            )
        writer.execute("COMMIT")
        return count

    def _insert(self, flat: list[Any]) -> None:
        start, rows = 0, len(flat) // COLUMNS
        for size in SIZES:
            while rows >= size:
                end = start + size * COLUMNS
                self._writer.execute(INSERT[size], flat[start:end])
                start, rows = end, rows - size

    def _store_snapshot(self, snapshot: Snapshot, forget: Sequence[int]) -> None:
        writer, seq = self._writer, snapshot.seq
        writer.executemany(
            "INSERT OR REPLACE INTO snapshot(part, seq, records, crc, body) VALUES (?, ?, ?, ?, ?)",
            [
                (part, seq, snapshot.records.get(part, 0), part_checksum(part, seq, body), body)
                for part, body in snapshot.parts.items()
            ],
        )
        writer.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            [("snapshot_seq", str(seq)), ("snapshot_at", repr(snapshot.at))],
        )
        for run in forget:
            writer.execute("DELETE FROM snapshot WHERE part = ?", (run,))
            writer.execute("DELETE FROM event WHERE run = ? AND seq <= ?", (run, seq))
            writer.execute("DELETE FROM log WHERE run = ?", (run,))
        self._quota.forget(forget)

    # back in the loop

    def _call(self, function: Callable[..., None], *values: object) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function, *values)
        except RuntimeError:  # the loop is closed: nobody is left to tell
            return

    def _settle(self, group: list[_Entry], error: BaseException | None) -> None:
        for entry in group:
            entry.commit.settle(error)
            if entry.notify is not None and error is None:
                entry.notify()

    def _tell_full(self, full: bool) -> None:
        assert self._health is not None
        self._health.disk_full(full)

    def _fail(self, group: list[_Entry], error: BaseException, tell: bool) -> None:
        """The thread is gone. Nothing can slip in behind the drain: appends happen in this loop too."""
        self._failure = error
        while not self._queue.empty():
            entry = self._queue.get_nowait()
            if entry is not None:
                group.append(entry)
        self._settle(group, error)
        if tell:
            assert self._health is not None
            self._health.failed(error if isinstance(error, AsterismError) else _write_failed(self.path, error))


class _Abandoned(Exception):
    """Closed while waiting for room on the disk."""


def _storable(text: str) -> str:
    """A lone surrogate can't be stored as UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8") if not text.isascii() else text


def _write_failed(path: Path, error: BaseException) -> AsterismError:
    return Unavailable(
        f"the journal {path} can't be written: {error}",
        hint="check the disk, then start the server again: it recovers by replay",
    )
