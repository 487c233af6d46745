"""What disks, file systems and people do to a journal's files: a typed error each, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from orchestrator.core import event as e
from orchestrator.core.event_codec import encode_events
from orchestrator.journal.archive import Archive
from orchestrator.journal.journal import Record
from orchestrator.journal.recovery import recover
from orchestrator.journal.sqlite import SqliteJournal
from protocol.errors import AsterismError, JournalBusy, JournalCorrupt, Unavailable

WAL_HEAD, FRAME_HEAD = 32, 24


class Watcher:
    """Health, remembered."""

    def __init__(self) -> None:
        self.full: list[bool] = []
        self.error: AsterismError | None = None
        self.told = anyio.Event()

    def disk_full(self, full: bool) -> None:
        self.full.append(full)

    def failed(self, error: AsterismError) -> None:
        self.error = error
        self.told.set()


class Failing(sqlite3.Connection):
    """A disk whose flush fails from the `left`-th commit on, as SQLite reports it."""

    left = 2

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql == "COMMIT" and self.__dict__.setdefault("armed", False):
            Failing.left -= 1
            if Failing.left <= 0:
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
                raise error
        return super().execute(sql, parameters)


def record(seq: int, run: int = 1, size: int = 200) -> Record:
    return Record(seq, run, "Emitted", seq / 8, encode_events((e.Emitted(run, 0, 1, "note", b"1" * size),)))


def test_a_failed_flush_ends_the_journal_is_never_tried_again_and_acknowledges_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    Failing.left = 3

    async def main() -> list[int]:
        journal = SqliteJournal(path, connection=Failing)
        journal._writer.__dict__["armed"] = True
        watcher = Watcher()
        journal.start(watcher)
        safe: list[int] = []
        for seq in range(1, 6):
            try:
                await journal.append([record(seq)]).wait()
                safe.append(seq)
            except Unavailable:
                break
        await watcher.told.wait()
        assert "disk I/O error" in str(watcher.error)
        assert "recovers by replay" in str(watcher.error)
        with pytest.raises(Unavailable):
            await journal.append([record(9)]).wait()
        assert Failing.left == 0  # one attempt, no second one
        await journal.aclose()
        return safe

    safe = anyio.run(main)
    assert safe == [1, 2]
    again = SqliteJournal(path)
    assert [one.seq for one in again.read()][: len(safe)] == safe
    anyio.run(again.aclose)


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: os.replace(shutil.copy(path, f"{path}.other"), path)])
def test_a_journal_that_is_removed_or_replaced_under_its_server_acknowledges_nothing_more(
    tmp_path: Path, harm: Callable[[Path], object]
) -> None:
    async def main() -> None:
        journal = SqliteJournal(tmp_path / "journal.db")
        watcher = Watcher()
        journal.start(watcher)
        await journal.append([record(1)]).wait()
        harm(journal.path)
        with pytest.raises(Unavailable):
            await journal.append([record(2)]).wait()
        assert "removed or replaced" in str(watcher.error)
        await journal.aclose()

    anyio.run(main)


def frames(wal: bytes) -> list[tuple[int, bool]]:
    """(where each frame ends, whether it commits)."""
    page = struct.unpack(">I", wal[8:12])[0]
    ends = range(WAL_HEAD + FRAME_HEAD + page, len(wal) + 1, FRAME_HEAD + page)
    return [(end, struct.unpack(">I", wal[end - page - 20 : end - page - 16])[0] > 0) for end in ends]


def test_a_log_cut_anywhere_keeps_every_commit_before_the_cut_and_nothing_else(tmp_path: Path) -> None:
    """Each frame's end and the middle of each: what a power cut may leave of the file that was written last."""
    path = tmp_path / "journal.db"
    acknowledged: list[tuple[int, int]] = [(0, 0)]

    async def write() -> None:
        journal = SqliteJournal(path)
        journal.start(Watcher())
        wal = path.with_name("journal.db-wal")
        seq = 0
        for group in (1, 2, 1, 5, 1, 40, 1):
            await journal.append([record(seq + k, size=700) for k in range(1, group + 1)]).wait()
            seq += group
            acknowledged.append((wal.stat().st_size, seq))
        for name in ("journal.db", "journal.db-wal"):
            shutil.copy(path.with_name(name), tmp_path / f"kept-{name}")
        await journal.aclose()

    anyio.run(write)
    wal = (tmp_path / "kept-journal.db-wal").read_bytes()
    found = frames(wal)
    cuts = sorted({0, WAL_HEAD - 1, WAL_HEAD, *(end for end, _ in found), *(end - 100 for end, _ in found)})
    for cut in cuts:
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        shutil.copy(tmp_path / "kept-journal.db", folder / "journal.db")
        (folder / "journal.db-wal").write_bytes(wal[:cut])
        if cut < found[0][0] or not any(commits for end, commits in found if end <= cut):
            shutil.rmtree(folder)  # not even the tables are there: nothing was acknowledged before
            continue
        journal = SqliteJournal(folder / "journal.db")
        kept = [one.seq for one in journal.read()]
        safe = max(seq for size, seq in acknowledged if size <= cut)
        assert kept == list(range(1, safe + 1)), f"cut at {cut}"
        anyio.run(journal.aclose)
        shutil.rmtree(folder)


def test_a_missing_log_leaves_what_was_moved_into_the_file(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"

    async def write() -> None:
        journal = SqliteJournal(path)
        journal.start(Watcher())
        await journal.append([record(1), record(2)]).wait()
        await journal.aclose()

    anyio.run(write)
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)
    with Archive(path) as archive:
        assert [one.seq for one in archive.read()] == [1, 2]


def test_files_of_two_journals_that_were_mixed_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"

    async def write() -> None:
        journal = SqliteJournal(path)
        journal.start(Watcher())
        await journal.append([Record(1, 0, "EpochStarted", 1.0, encode_events((e.EpochStarted(1, "ab" * 16),)))]).wait()
        with pytest.raises(JournalCorrupt, match="holds the events of abab"):
            recover(journal)
        await journal.aclose()

    anyio.run(write)


def test_another_program_that_writes_is_told_from_damage(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    anyio.run(SqliteJournal(path).aclose)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode=EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    other.execute("INSERT INTO meta VALUES ('x', 'y')")

    class Hasty(sqlite3.Connection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options, timeout=0.0)

    with pytest.raises(JournalBusy, match="another program"):
        SqliteJournal(path, connection=Hasty)
    other.close()


def test_a_folder_that_cannot_be_made_or_written_is_a_typed_refusal(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="can't be opened"):
        SqliteJournal(tmp_path / "file" / "journal.db")
    (tmp_path / "folder" / "journal.db").mkdir(parents=True)
    with pytest.raises(Unavailable, match="can't be opened"):
        SqliteJournal(tmp_path / "folder" / "journal.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_that_is_not_ours_to_write_is_a_typed_refusal(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    anyio.run(SqliteJournal(path).aclose)
    path.chmod(0o400)
    with pytest.raises(Unavailable, match="can't be opened for writing"):
        SqliteJournal(path)
