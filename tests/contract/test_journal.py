"""One suite for every journal: what any implementation must keep."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import pytest

from orchestrator.journal.journal import Journal, LogLine, Record, Snapshot
from orchestrator.journal.memory import MemoryJournal
from orchestrator.journal.sqlite import SqliteJournal
from orchestrator.placement.predictor import Outcome, Prediction
from protocol.errors import AsterismError, JournalBusy, JournalCorrupt, Unavailable, VersionMismatch


class Watcher:
    """Health, remembered, with something to wait on."""

    def __init__(self) -> None:
        self.full: list[bool] = []
        self.errors: list[AsterismError] = []
        self._changed = anyio.Event()

    def disk_full(self, full: bool) -> None:
        self.full.append(full)
        self._changed.set()

    def failed(self, error: AsterismError) -> None:
        self.errors.append(error)
        self._changed.set()

    async def changed(self) -> None:
        await self._changed.wait()
        self._changed = anyio.Event()


class Shelf:
    """Makes a journal, and opens it again as a new process would."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.path = folder / "server" / "journal.db"
        self._memory: MemoryJournal | None = None

    def open(self, **options: int) -> Journal:
        if self.kind == "sqlite":
            return SqliteJournal(self.path, **options)
        if self._memory is None:
            self._memory = MemoryJournal(**options)
        return self._memory


@pytest.fixture(params=["memory", "sqlite"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    return Shelf(request.param, tmp_path)


def record(seq: int, run: int = 1, body: bytes = b"body", kind: str = "TaskSettled") -> Record:
    return Record(seq=seq, run=run, kind=kind, at=seq / 8, body=body)


def line(n: int, text: str = "hello", run: int = 1, task: int = 0) -> LogLine:
    return LogLine(run=run, task=task, attempt=1, n=n, at=0.5, stream="stdout", text=text)


def drive(shelf: Shelf, story: Callable[[Journal], Awaitable[None]], **options: int) -> None:
    async def main() -> None:
        journal = shelf.open(**options)
        journal.start(Watcher())
        try:
            await story(journal)
        finally:
            await journal.aclose()

    anyio.run(main)


def test_a_committed_record_reads_back_equal(shelf: Shelf) -> None:
    written = [record(1), record(2, run=0, body=b""), record(4, run=2, body=bytes(range(256)))]

    async def story(journal: Journal) -> None:
        await journal.append(written).wait()
        assert await anyio.to_thread.run_sync(journal.read) == written

    drive(shelf, story)


def test_records_survive_a_restart_and_the_journal_keeps_its_id(shelf: Shelf) -> None:
    ids: list[str] = []

    async def first(journal: Journal) -> None:
        ids.append(journal.id)
        await journal.append([record(1), record(3)]).wait()

    async def second(journal: Journal) -> None:
        assert [one.seq for one in journal.read()] == [1, 3]
        assert journal.id == ids[0]
        assert len(bytes.fromhex(journal.id)) == 16

    drive(shelf, first)
    drive(shelf, second)


def test_close_commits_what_was_appended(shelf: Shelf) -> None:
    async def first(journal: Journal) -> None:
        journal.append([record(seq) for seq in range(1, 500)])

    async def second(journal: Journal) -> None:
        assert len(journal.read()) == 499

    drive(shelf, first)
    drive(shelf, second)


def test_notifications_come_in_append_order_after_the_commit_and_never_inside_append(shelf: Shelf) -> None:
    async def story(journal: Journal) -> None:
        heard: list[int] = []
        readable: list[bool] = []

        def heard_of(number: int) -> None:
            heard.append(number)
            readable.append(bool(journal.read(after=number - 1, limit=1)))

        for number in range(1, 200):
            commit = journal.append([record(number)], notify=partial(heard_of, number))
            assert number not in heard
        await commit.wait()
        assert commit.done
        assert heard == list(range(1, 200))
        assert all(readable)

    drive(shelf, story)


def test_waiting_twice_and_late_both_return(shelf: Shelf) -> None:
    async def story(journal: Journal) -> None:
        commit = journal.append([record(1)])
        async with anyio.create_task_group() as group:
            group.start_soon(commit.wait)
            group.start_soon(commit.wait)
        await commit.wait()

    drive(shelf, story)


def test_an_empty_append_is_still_ordered_behind_the_ones_before(shelf: Shelf) -> None:
    async def story(journal: Journal) -> None:
        first = journal.append([record(1)])
        await journal.append([]).wait()
        assert first.done

    drive(shelf, story)


@pytest.mark.parametrize("count", [1, 2, 3, 511, 4097, 6000])
def test_groups_of_any_size_arrive_whole(shelf: Shelf, count: int) -> None:
    async def story(journal: Journal) -> None:
        await journal.append([record(seq, body=b"%d" % seq) for seq in range(1, count + 1)]).wait()
        found = journal.read(limit=count + 1)
        assert [one.body for one in found] == [b"%d" % seq for seq in range(1, count + 1)]

    drive(shelf, story)


def test_reading_goes_on_after_a_number_in_pages_and_per_run(shelf: Shelf) -> None:
    async def story(journal: Journal) -> None:
        await journal.append([record(seq, run=1 + seq % 4 // 2) for seq in range(2, 42, 2)]).wait()
        assert [one.seq for one in journal.read(after=10, limit=3)] == [10, 12, 14]
        assert [one.seq for one in journal.read(after=11, limit=3)] == [10, 12, 14]
        assert [one.seq for one in journal.read(after=30, run=1)] == [32, 36, 40]
        assert [one.seq for one in journal.read(after=31, run=2)] == [30, 34, 38]
        assert [one.seq for one in journal.read(after=40)] == [40]
        assert journal.read(after=40, run=9) == []

    drive(shelf, story)


def test_reading_only_some_kinds_pages_over_the_rest(shelf: Shelf) -> None:
    async def story(journal: Journal) -> None:
        kinds = ("EpochStarted", "TaskSettled", "PeerRefused", "TaskSettled", "PeerRefused")
        await journal.append([record(seq, kind=kind) for seq, kind in enumerate(kinds, 1)]).wait()
        read = partial(journal.read, kinds=("PeerRefused", "EpochStarted"))
        assert [one.seq for one in read()] == [1, 3, 5]
        assert [one.seq for one in read(limit=2)] == [1, 3]
        assert [one.seq for one in read(3)][-1] == 5

    drive(shelf, story)


def test_an_epoch_grows_and_is_remembered(shelf: Shelf) -> None:
    async def close(journal: Journal) -> None:
        assert journal.epoch == 3

    journal = shelf.open()
    assert journal.epoch == 0
    journal.open_epoch(3)
    with pytest.raises(ValueError, match="not above"):
        journal.open_epoch(3)
    anyio.run(journal.aclose)
    drive(shelf, close)


def test_a_snapshot_keeps_unchanged_parts_and_replaces_changed_ones(shelf: Shelf) -> None:
    async def first(journal: Journal) -> None:
        assert journal.load_snapshot() is None
        journal.append([record(1), record(2, run=2)])
        await journal.write_snapshot(
            Snapshot(seq=2, at=0.25, parts={0: b"all", 1: b"one", 2: b"two"}, records={1: 1, 2: 1})
        ).wait()
        await journal.append([record(3, run=2)]).wait()
        await journal.write_snapshot(Snapshot(seq=3, at=0.375, parts={0: b"all'", 2: b"two'"}, records={2: 2})).wait()

    async def second(journal: Journal) -> None:
        assert journal.load_snapshot() == Snapshot(
            seq=3, at=0.375, parts={0: b"all'", 1: b"one", 2: b"two'"}, records={0: 0, 1: 1, 2: 2}
        )
        assert [one.seq for one in journal.read(after=3)] == [3]

    drive(shelf, first)
    drive(shelf, second)


def test_a_removed_run_leaves_with_its_events_parts_and_logs(shelf: Shelf) -> None:
    async def story(journal: Journal) -> None:
        journal.append([record(1), record(2, run=2), record(3), record(4, run=2)], [line(1), line(1, run=2)])
        await journal.write_snapshot(Snapshot(seq=2, at=0.0, parts={0: b"a", 1: b"b", 2: b"c"})).wait()
        journal.append([record(5, run=2)], forget=[2])
        journal.append([record(6)])
        await journal.write_snapshot(Snapshot(seq=4, at=0.0, parts={0: b"a'", 2: b"late"})).wait()
        assert journal.removed() == {2}
        while journal.statistics().removing:
            await journal.append([]).wait()
        assert [one.seq for one in journal.read()] == [1, 3, 5, 6]
        assert [one.seq for one in journal.read(run=2)][-1] == 5
        loaded = journal.load_snapshot()
        assert loaded is not None
        assert set(loaded.parts) == {0, 1}
        assert journal.read_logs(2) == []
        assert len(journal.read_logs(1)) == 1

    drive(shelf, story)


def test_log_lines_come_back_by_run_and_task_after_a_cursor(shelf: Shelf) -> None:
    async def story(journal: Journal) -> None:
        await journal.append([], [line(1), line(2, task=5), line(1, run=2), line(3, "héllo \ud800")]).wait()
        found = journal.read_logs(1)
        assert [(one.task, one.n) for _, one in found] == [(0, 1), (5, 2), (0, 3)]
        assert [one.n for _, one in journal.read_logs(1, after=found[0][0])] == [2, 3]
        assert [one.n for _, one in journal.read_logs(1, task=0)] == [1, 3]
        assert [one.n for _, one in journal.read_logs(1, limit=1)] == [1]

    drive(shelf, story)


def test_logs_stop_at_the_cap_of_a_task_with_one_marker(shelf: Shelf) -> None:
    async def story(journal: Journal) -> None:
        journal.append([], [line(n, "x" * 40) for n in range(1, 8)])
        await journal.append([], [line(1, "y" * 40, task=2)]).wait()
        texts = [one.text for _, one in journal.read_logs(1, task=0)]
        assert texts[:2] == ["x" * 40] * 2
        assert len(texts) == 3
        assert "cut at 100 bytes" in texts[2]
        assert [one.text for _, one in journal.read_logs(1, task=2)] == ["y" * 40]

    drive(shelf, story, task_log_bytes=100, run_log_bytes=1000)


def outcome(run: int = 1, task: int = 0, run_s: float = 1.0, skill: str = "x") -> Outcome:
    said = Prediction(1.5, 1.0, 2.0, 7, "class")
    return Outcome(skill, "cpu/a", 3, 2.0, 1_000, run_s, said, (run, task, 1), tokens_in=900, tokens_out=40, beside=2)


def test_predictions_come_back_by_run_and_the_last_ones_by_skill_also_after_a_restart(shelf: Shelf) -> None:
    unheard = msgspec.structs.replace(outcome(run=2, run_s=9.0), predicted=None, beside=-1)

    async def first(journal: Journal) -> None:
        journal.keep([outcome(task=task, run_s=float(task)) for task in range(5)], 0.5)
        journal.keep([unheard, outcome(run=2, skill="y")], 0.75)
        await journal.append([record(1)]).wait()

    async def later(journal: Journal) -> None:
        assert journal.read_predictions(1, limit=2) == [outcome(task=0, run_s=0.0), outcome(task=1)]
        assert journal.read_predictions(1, 3) == [outcome(task=3, run_s=3.0)]
        assert journal.recent_predictions(2) == [outcome(task=4, run_s=4.0), unheard, outcome(run=2, skill="y")]

    drive(shelf, first)
    drive(shelf, later)


def test_predictions_go_with_their_run_and_none_comes_after(shelf: Shelf) -> None:
    async def first(journal: Journal) -> None:
        await journal.append([record(1), record(2, run=2)]).wait()
        journal.keep([outcome(), outcome(run=2)], 0.5)
        await journal.append([record(3, kind="RunRemoved")], forget=[1]).wait()
        journal.keep([outcome(task=1)], 0.5)

    async def later(journal: Journal) -> None:
        assert journal.read_predictions(1) == []
        assert journal.read_predictions(2) == [outcome(run=2)]

    drive(shelf, first)
    drive(shelf, later)


def test_only_the_last_predictions_are_kept(shelf: Shelf) -> None:
    async def story(journal: Journal) -> None:
        for turn in range(30):
            journal.keep([outcome(task=turn * 100 + n) for n in range(100)], 0.5)
        await journal.append([record(1)]).wait()
        kept = journal.read_predictions(1, limit=5_000)
        assert kept[-1].of[1] == 2_999
        assert 50 <= len(kept) <= 1_100

    drive(shelf, story, predictions=50)


def test_statistics_count_groups_and_records(shelf: Shelf) -> None:
    async def story(journal: Journal) -> None:
        await journal.append([record(1), record(2)]).wait()
        await journal.append([record(3)]).wait()
        found = journal.statistics()
        assert found.records == 3
        assert 1 <= found.groups <= 2

    drive(shelf, story)


# Only on a real file


def test_a_second_owner_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    first = SqliteJournal(path)
    with pytest.raises(JournalBusy, match="in use by process"):
        SqliteJournal(path)
    anyio.run(first.aclose)
    anyio.run(SqliteJournal(path).aclose)


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE event SET body = CAST('rotten' AS BLOB) WHERE seq = 7",
        "UPDATE event SET run = 9 WHERE seq = 7",
        "UPDATE event SET kind = 'Other' WHERE seq = 7",
        "UPDATE event SET at = at + 1 WHERE seq = 7",
        "UPDATE event SET v = 2 WHERE seq = 7",
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, damage: str) -> None:
    shelf = Shelf("sqlite", tmp_path)

    async def first(journal: Journal) -> None:
        await journal.append([record(seq) for seq in range(1, 10)]).wait()

    async def second(journal: Journal) -> None:
        with pytest.raises(JournalCorrupt, match="record 7"):
            journal.read()

    drive(shelf, first)
    with sqlite3.connect(shelf.path) as file:
        file.execute(damage)
    file.close()
    drive(shelf, second)


def test_a_damaged_snapshot_part_is_named(tmp_path: Path) -> None:
    shelf = Shelf("sqlite", tmp_path)

    async def first(journal: Journal) -> None:
        await journal.write_snapshot(Snapshot(seq=5, at=0.0, parts={0: b"a", 3: b"b"})).wait()

    async def second(journal: Journal) -> None:
        with pytest.raises(JournalCorrupt, match="part 3"):
            journal.load_snapshot()

    drive(shelf, first)
    with sqlite3.connect(shelf.path) as file:
        file.execute("UPDATE snapshot SET body = CAST('c' AS BLOB) WHERE part = 3")
    file.close()
    drive(shelf, second)


def test_a_file_that_is_no_journal_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"not a database, but somebody's notes" * 100)
    with pytest.raises(JournalCorrupt):
        SqliteJournal(path)
    assert path.read_bytes().startswith(b"not a database")


@pytest.mark.parametrize(("key", "what"), [("schema", "tables"), ("body", "events")])
def test_a_journal_that_a_newer_build_wrote_is_refused_and_not_touched(tmp_path: Path, key: str, what: str) -> None:
    path = tmp_path / "journal.db"
    anyio.run(SqliteJournal(path).aclose)
    with sqlite3.connect(path) as file:
        file.execute("UPDATE meta SET value = '99' WHERE key = ?", (key,))
    file.close()
    before = path.read_bytes()
    for _ in range(2):
        with pytest.raises(VersionMismatch, match=f"{what} of version 99") as refused:
            SqliteJournal(path)
    assert refused.value.exit_code == 9
    assert "newer asterism" in refused.value.hint
    assert path.read_bytes() == before


def test_a_full_disk_is_told_waited_out_and_loses_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(tmp_path / "journal.db", limit_bytes=200_000)
        watcher = Watcher()
        journal.start(watcher)
        heard: list[int] = []
        commits = [
            journal.append([record(seq, body=bytes(4000))], notify=partial(heard.append, seq)) for seq in range(1, 200)
        ]
        await watcher.changed()
        assert watcher.full == [True]
        assert not commits[-1].done
        assert 199 not in heard
        journal.resize(0)
        await commits[-1].wait()
        assert watcher.full == [True, False]
        assert heard == list(range(1, 200))
        assert [one.seq for one in journal.read()] == list(range(1, 200))
        assert watcher.errors == []
        await journal.aclose()

    anyio.run(main)


def test_closing_on_a_full_disk_gives_up_what_nobody_was_promised(tmp_path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(tmp_path / "journal.db", limit_bytes=200_000)
        watcher = Watcher()
        journal.start(watcher)
        await journal.append([record(1)]).wait()
        big = journal.append([record(2, body=bytes(400_000))])
        await watcher.changed()
        await journal.aclose()
        assert not big.done
        again = SqliteJournal(tmp_path / "journal.db")
        assert [one.seq for one in again.read()] == [1]
        await again.aclose()

    anyio.run(main)


def test_any_other_failed_write_ends_the_journal(tmp_path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(tmp_path / "journal.db")
        watcher = Watcher()
        journal.start(watcher)
        await journal.append([record(1)]).wait()
        journal.append([record(1)])  # the same number twice: a broken invariant
        late = journal.append([record(2)])
        await watcher.changed()
        assert len(watcher.errors) == 1
        with pytest.raises(Unavailable):
            await journal.append([record(3)]).wait()
        with pytest.raises(Unavailable):
            await late.wait()
        assert [one.seq for one in journal.read()] == [1]
        await journal.aclose()

    anyio.run(main)


def test_readers_see_only_what_is_committed_while_the_writer_waits(tmp_path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(tmp_path / "journal.db", limit_bytes=200_000)
        watcher = Watcher()
        journal.start(watcher)
        await journal.append([record(1)]).wait()
        journal.append([record(2, body=bytes(400_000))])
        await watcher.changed()
        assert [one.seq for one in await anyio.to_thread.run_sync(journal.read)] == [1]
        await journal.aclose()

    anyio.run(main)
