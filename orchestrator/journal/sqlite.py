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
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec

from protocol.errors import Unavailable

from ..placement.predictor import Outcome
from .failure import DISK_FULL, unusable, vanished
from .form import FORM, Form
from .journal import Commit, Health, LogLine, Record, Snapshot, Statistics
from .lock import take_lock
from .prediction import Predictions
from .quota import LogQuota
from .reader import Readers
from .removal import Removals
from .schema import COLUMNS, INSERT, INSERT_LOG, SIZES, checksum, corrupt, part_checksum, prepare

GROUP_RECORDS: Final = 4096
GROUP_BYTES: Final = 1024 * 1024
"""A group is full at either: SQLite holds all of it in memory once more, and what it once took it keeps."""
PIECE_BYTES: Final = 256 * 1024
"""A snapshot's part goes into the file in pieces of this size."""
FULL_RETRY_S: Final = 0.25
CLEAR_UP_S: Final = 0.5
PACE_S: Final = 0.016
"""What nobody waits for is committed so much later."""


class _Entry(msgspec.Struct, gc=False):
    """One call of `append` or `write_snapshot`, on its way to the writer thread."""

    commit: Commit
    notify: Callable[[], None] | None
    records: Sequence[Record] = ()
    logs: Sequence[LogLine] = ()
    snapshot: Snapshot | None = None
    forget: Sequence[int] = ()
    pressing: bool = True
    kept: Sequence[tuple[float, Outcome]] = ()


class SqliteJournal:
    """Open with the constructor (takes the lock, recovers the WAL), then `start` in the loop.

    `limit_bytes` caps the size of the event file, 0 for no cap; over it behaves as a full disk. `connection` is the
    class of the writing connection.
    Raises: JournalBusy if another process holds it, VersionMismatch, JournalCorrupt, Unavailable.
    """

    def __init__(
        self,
        path: Path,
        *,
        limit_bytes: int = 0,
        task_log_bytes: int = 10_000_000,
        run_log_bytes: int = 200_000_000,
        predictions: int = 100_000,
        form: Form = FORM,
        connection: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        self.path = path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = take_lock(path)
        except OSError as error:
            raise unusable(path, error) from error
        try:
            self._writer = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, cached_statements=64, factory=connection
            )
            self.id, self.epoch = self._prepare()
            self._inode = path.stat().st_ino
            self._removals = Removals(self._writer)
            self._predictions = Predictions(self._writer, predictions)
        except (sqlite3.Error, OSError) as error:
            self._lock.close()
            raise unusable(path, error) from error
        except (ValueError, LookupError, MemoryError) as error:  # rot in what SQLite reads before we do
            self._lock.close()
            raise corrupt(f"the journal {path}") from error
        except BaseException:
            self._lock.close()
            raise
        self.resize(limit_bytes)
        self._quota = LogQuota(self._stored_logs, task_bytes=task_log_bytes, run_bytes=run_log_bytes)
        self._readers = Readers(path, form)
        self._queue: SimpleQueue[_Entry | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._health: Health | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._pressed = threading.Event()
        """Somebody waits for an entry that was queued."""
        self._failure: BaseException | None = None
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
            self._pressed.set()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._thread.join)
        self._readers.close()
        self._writer.close()
        self._lock.close()

    def open_epoch(self, epoch: int) -> None:
        if epoch <= self.epoch:
            raise ValueError(f"epoch {epoch} is not above {self.epoch}")
        try:
            self._writer.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (str(epoch),))
        except sqlite3.Error as error:
            raise unusable(self.path, error) from error
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
        forget: Sequence[int] = (),
    ) -> Commit:
        return self._enqueue(_Entry(Commit(), notify, records, logs, forget=tuple(forget), pressing=pressing))

    def write_snapshot(self, snapshot: Snapshot) -> Commit:
        return self._enqueue(_Entry(Commit(), None, snapshot=snapshot))

    def keep(self, outcomes: Sequence[Outcome], at: float, *, pressing: bool = False) -> Commit:
        return self._enqueue(_Entry(Commit(), None, pressing=pressing, kept=[(at, one) for one in outcomes]))

    def statistics(self) -> Statistics:
        return msgspec.structs.replace(self._stats, removing=self._removals.left)

    def _enqueue(self, entry: _Entry) -> Commit:
        if self._failure is not None or self._closed:
            entry.commit.settle(self._failure or Unavailable("the journal is closed"))
        else:
            self._queue.put(entry)
            if entry.pressing:
                self._pressed.set()
        return entry.commit

    # reading, in any thread

    def load_snapshot(self) -> Snapshot | None:
        return self._readers.load_snapshot()

    def read(
        self, after: int = 0, run: int | None = None, limit: int = 1000, kinds: Collection[str] = ()
    ) -> list[Record]:
        return self._readers.read(after, run, limit, kinds)

    def used_bytes(self) -> int:
        """What the event file holds, in bytes. In any thread."""
        return self._readers.used_bytes()

    def removed(self) -> frozenset[int]:
        return self._readers.removed()

    def read_logs(
        self, run: int, task: int | None = None, after: int = 0, limit: int = 1000
    ) -> list[tuple[int, LogLine]]:
        return self._readers.read_logs(run, task, after, limit)

    def read_predictions(self, run: int, task: int | None = None, limit: int = 1000) -> list[Outcome]:
        return self._readers.read_predictions(run, task, limit)

    def recent_predictions(self, each: int) -> list[Outcome]:
        return self._readers.recent_predictions(each)

    # the writer thread

    def _prepare(self) -> tuple[str, int]:
        writer = self._writer
        writer.execute("PRAGMA auto_vacuum=INCREMENTAL")  # heard by a new file only
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("PRAGMA synchronous=FULL")
        writer.execute("PRAGMA wal_autocheckpoint=4000")
        writer.execute("PRAGMA journal_size_limit=67108864")
        os.chmod(self.path, 0o600)
        meta = prepare(writer, str(self.path), secrets.token_hex(16))
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
                    group = []  # a snapshot in it may be as large as all runs
                if last:
                    self._clear_up()
                    return
        except _Abandoned:
            self._call(self._fail, group, Unavailable("the journal was closed while the disk was full"), False)
        except BaseException as error:  # noqa: BLE001 the thread's border: whatever broke, the process has to end
            self._call(self._fail, group, error, True)

    def _take(self) -> tuple[list[_Entry], bool]:
        """Wait for one entry, then everything else that is queued, up to a group.

        What nobody waits for is written PACE_S later: a commit costs a chain of tasks more than its hop. Meanwhile this
        thread sleeps through what is queued: awake it would take the interpreter from the loop just when that has work
        to send.
        """
        entry = self._next()
        if entry is not None and not entry.pressing:
            self._pressed.wait(PACE_S)
        self._pressed.clear()  # whoever pressed has queued before: it is found now
        group: list[_Entry] = []
        count = size = 0
        while entry is not None:
            group.append(entry)
            count += len(entry.records) + 1
            size += sum([len(record.body) for record in entry.records])
            if count >= GROUP_RECORDS or size >= GROUP_BYTES:
                return group, False
            try:
                entry = self._queue.get_nowait()
            except Empty:
                return group, False
        return group, True

    def _next(self) -> _Entry | None:
        """Wait for an entry; removed runs go meanwhile, and a slice at a time also where there is never a while."""
        while True:
            due = self._removals.due
            if due is None:
                return self._queue.get()
            if due > 0:
                try:
                    return self._queue.get(timeout=due)
                except Empty:
                    pass
            try:
                self._removals.work()
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode not in DISK_FULL:
                    raise

    def _clear_up(self) -> None:
        """Before the end, take out what little is left of removed runs; what takes longer goes with the next start."""
        end = time.perf_counter() + CLEAR_UP_S
        with suppress(sqlite3.OperationalError):
            while self._removals.left and time.perf_counter() < end:
                self._removals.work()

    def _commit(self, group: list[_Entry]) -> None:
        full = False
        while True:
            began = time.perf_counter()
            try:
                records = self._commit_once(group)
            except sqlite3.OperationalError as error:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                if error.sqlite_errorcode not in DISK_FULL:
                    raise
                if not full:
                    full = True
                    self._call(self._tell_full, True)
                if self._stopping.wait(FULL_RETRY_S):
                    raise _Abandoned from error
                continue
            took = time.perf_counter() - began
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
            if entry.forget:
                self._removals.enter(entry.forget, entry.records[-1].seq)
            if entry.snapshot is not None:  # ordered with the records before and behind it
                self._insert(flat)
                flat = []
                self._store_snapshot(entry.snapshot)
        self._insert(flat)
        if told := [one for entry in group for one in entry.kept]:
            self._predictions.write(told)
        if lines:
            kept = self._quota.admit(lines)
            writer.executemany(
                INSERT_LOG, [(x.run, x.task, x.attempt, x.n, x.at, x.stream, _storable(x.text)) for x in kept]
            )
        writer.execute("COMMIT")
        if self._gone():  # what was just written went with it: nobody may be told that it is safe
            raise vanished(self.path)
        for entry in group:
            if entry.forget:
                self._removals.entered(entry.forget, entry.records[-1].seq)
                self._quota.forget(entry.forget)
        return count

    def _gone(self) -> bool:
        try:
            return self.path.stat().st_ino != self._inode
        except FileNotFoundError:
            return True

    def _insert(self, flat: list[Any]) -> None:
        start, rows = 0, len(flat) // COLUMNS
        for size in SIZES:
            while rows >= size:
                end = start + size * COLUMNS
                self._writer.execute(INSERT[size], flat[start:end])
                start, rows = end, rows - size

    def _store_snapshot(self, snapshot: Snapshot) -> None:
        writer, seq = self._writer, snapshot.seq
        gone = {row[0] for row in writer.execute("SELECT run FROM removal")}
        for part, body in snapshot.parts.items():
            if part in gone:
                continue
            # Not as a value of the statement: SQLite would copy all of it twice, and keep the memory.
            writer.execute(
                "INSERT OR REPLACE INTO snapshot(part, seq, records, crc, body) VALUES (?, ?, ?, ?, zeroblob(?))",
                (part, seq, snapshot.records.get(part, 0), part_checksum(part, seq, body), len(body)),
            )
            with writer.blobopen("snapshot", "body", part) as blob, memoryview(body) as view:
                for start in range(0, len(body), PIECE_BYTES):
                    blob.write(view[start : start + PIECE_BYTES])
        writer.executemany(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)",
            [("snapshot_seq", str(seq)), ("snapshot_at", repr(snapshot.at)), ("snapshot_layout", snapshot.layout)],
        )

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
            self._health.failed(unusable(self.path, error))


class _Abandoned(Exception):
    """Closed while waiting for room on the disk."""


def _storable(text: str) -> str:
    """A lone surrogate can't be stored as UTF-8."""
    return text.encode("utf-8", "replace").decode("utf-8") if not text.isascii() else text
