"""Removed runs: what remains is the same story, wherever the server dies while they leave the file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import anyio
import pytest

from orchestrator.core import event as e
from orchestrator.journal import removal, sqlite
from orchestrator.journal.archive import Archive
from orchestrator.journal.journal import LogLine
from orchestrator.journal.recovery import recover
from orchestrator.journal.scribe import draft
from orchestrator.journal.sqlite import SqliteJournal
from orchestrator.service.audit import audit
from tests.unit.test_recovery import Quiet, begin, encoded


def gaps(path: Path) -> int:
    with Archive(path) as archive:
        return sum(last - first + 1 for first, last in archive.gaps().items())


@pytest.mark.parametrize("snapshot", [True, False])
def test_a_crash_between_any_two_slices_of_a_removal_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, snapshot: bool
) -> None:
    monkeypatch.setattr(removal, "SLICE_ROWS", 3)
    path = tmp_path / "journal.db"
    told: dict[int, bytes] = {}

    async def write() -> None:
        journal = SqliteJournal(path)
        journal.start(Quiet())
        writer = begin(journal)
        for run in (1, 2, 3, 4):
            writer.run(run, tasks=3)
        for task in range(3):
            for run in (1, 2, 3, 4):
                writer.task(run, task)
        await journal.append(
            [], [LogLine(run, 0, 1, n, 1.0, "stdout", "line") for run in (2, 3) for n in range(7)]
        ).wait()
        if snapshot:
            await journal.write_snapshot(draft(path, writer.seq)).wait()
        for run in (2, 3):
            writer.write(e.RunRemoved(run), forget=[run])
        await journal.append([]).wait()
        told.update(encoded(writer.state))
        await journal.aclose()

    with monkeypatch.context() as dying:  # before the first slice
        dying.setattr(removal.Removals, "due", None)
        dying.setattr(sqlite, "CLEAR_UP_S", -1.0)
        anyio.run(write)
    file = sqlite3.connect(path, isolation_level=None)
    work, slices, missing = removal.Removals(file), 0, []
    while work.left:
        work.work()
        slices += 1
        for short in (True, False):
            with Archive(path) as archive:
                found = recover(archive, snapshot=short)
            assert encoded(found.state) == told
            assert set(found.state.runs) == {1, 4}
        with Archive(path) as archive:
            checked = audit(archive)
        assert checked.sound, checked.defects
        missing.append(gaps(path))
    assert slices > 6
    assert missing == sorted(missing)
    assert missing[-1] == 2 * (3 + 3 * 3)
    assert file.execute("SELECT COUNT(*) FROM log WHERE run IN (2, 3)").fetchone() == (0,)
    assert file.execute("SELECT COUNT(*) FROM snapshot WHERE part IN (2, 3)").fetchone() == (0,)
    assert file.execute("SELECT run, kind FROM event WHERE run IN (2, 3)").fetchall() == [
        (2, "RunRemoved"),
        (3, "RunRemoved"),
    ]
    file.close()


def test_the_pages_of_a_removed_run_go_back_to_the_file_system(tmp_path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(tmp_path / "journal.db")
        journal.start(Quiet())
        writer = begin(journal)
        writer.run(1, tasks=1)
        writer.run(2, tasks=1500)
        for task in range(1500):
            writer.task(2, task)
        await journal.append([]).wait()
        before = journal.used_bytes()
        writer.write(e.RunRemoved(2), forget=[2])
        await journal.append([]).wait()
        while journal.statistics().removing:
            await journal.append([]).wait()
        assert journal.used_bytes() < before / 4
        await journal.aclose()

    anyio.run(main)
    file = sqlite3.connect(tmp_path / "journal.db", isolation_level=None)
    while removal.Removals(file)._free():
        pass
    file.close()
    assert (tmp_path / "journal.db").stat().st_size < 200_000
