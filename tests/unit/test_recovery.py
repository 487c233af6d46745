"""Recovery: what the journal tells is the state that was."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import anyio
import msgspec
import pytest

from orchestrator.core import event as e
from orchestrator.core.event_codec import encode_events
from orchestrator.core.state import State
from orchestrator.journal.journal import Journal, Record
from orchestrator.journal.memory import MemoryJournal
from orchestrator.journal.recovery import recover
from orchestrator.journal.schema import part_checksum
from orchestrator.journal.snapshot import TAIL_EVENTS, Snapshots
from orchestrator.journal.sqlite import SqliteJournal
from protocol.errors import JournalCorrupt
from protocol.ids import Fence
from protocol.outcome import Success
from protocol.patch import Patch
from protocol.task import RunSettings, TaskSpec


class Quiet:
    def disk_full(self, full: bool) -> None: ...

    def failed(self, error: Exception) -> None: ...


class Writer:
    """Applies and appends as the engine does: an attempt's end and what it settled in one record."""

    def __init__(self, journal: Journal, state: State, seq: int = 0) -> None:
        self.journal = journal
        self.state = state
        self.seq = seq
        self.snapshots = Snapshots(journal, state, {}, {})

    def write(self, *events: e.Event, forget: Sequence[int] = ()) -> None:
        for event in events:
            self.state.apply(event)
        run = e.run_of(events[0])
        record = Record(self.seq + 1, run, type(events[0]).__name__, float(self.seq), encode_events(events))
        self.journal.append([record], forget=forget)
        self.snapshots.note(run, len(events))
        self.seq += len(events)

    def run(self, number: int, tasks: int) -> None:
        settings = RunSettings()
        self.write(e.RunSubmitted(number, "a request", f"key-{number}", "me", settings, {}, at=1.0))
        specs = tuple(TaskSpec(f"t{ix}", "flow.echo") for ix in range(tasks))
        self.write(e.PatchAccepted(number, 1, Patch("planner", specs), at=1.0))
        self.write(e.PlanClosed(number))

    def task(self, run: int, task: int) -> None:
        fence = Fence(self.state.epoch, self.seq)
        self.write(e.AttemptDispatched(run, task, 1, 1, fence, b"pin", at=2.0))
        self.write(
            e.AttemptEnded(run, task, 1, Success(b"[%d]" % task), at=3.0),
            e.TaskSettled(run, task, "succeeded", 1, at=3.0),
        )


def begin(journal: Journal) -> Writer:
    state = State(journal=journal.id)
    writer = Writer(journal, state)
    writer.write(e.EpochStarted(1, journal.id))
    writer.write(e.WorkerEnrolled(1, "pi-1", "hash"))
    return writer


def encoded(state: State) -> dict[int, bytes]:
    """Its parts, after one trip through the encoding: 0 and 0.0 are one number there."""
    return State.restore(state.snapshot()).snapshot()


def test_an_empty_journal_gives_an_empty_state_and_epoch_one() -> None:
    journal = MemoryJournal()
    found = recover(journal)
    assert (found.seq, found.epoch, found.state.journal) == (0, 1, journal.id)


def test_replay_gives_the_live_state_byte_for_byte() -> None:
    journal = MemoryJournal()
    writer = begin(journal)
    writer.run(1, tasks=5)
    for task in range(3):
        writer.task(1, task)
    journal.commit()
    found = recover(journal)
    assert encoded(found.state) == encoded(writer.state)
    assert (found.seq, found.epoch) == (writer.seq, 2)
    assert found.tail == {0: 2, 1: 3 + 9}


def test_what_was_not_committed_is_not_recovered() -> None:
    journal = MemoryJournal()
    writer = begin(journal)
    writer.run(1, tasks=1)
    journal.commit()
    before = encoded(writer.state)
    writer.task(1, 0)
    assert encoded(recover(journal).state) == before


def test_a_snapshot_and_the_tail_give_the_same_as_the_whole_replay() -> None:
    journal = MemoryJournal()
    writer = begin(journal)
    writer.run(1, tasks=3)
    writer.run(2, tasks=3)
    writer.task(1, 0)
    writer.snapshots.take(writer.seq, 5.0)
    writer.task(2, 1)
    writer.snapshots.take(writer.seq, 6.0)
    writer.task(2, 2)
    journal.commit()
    found = recover(journal)
    assert encoded(found.state) == encoded(writer.state)
    assert found.tail == {2: 3}
    assert found.behind == {0: 2, 1: 6, 2: 6}
    assert found.seq == writer.seq


def test_a_snapshot_holds_only_the_runs_that_changed() -> None:
    journal = MemoryJournal()
    writer = begin(journal)
    writer.run(1, tasks=2)
    writer.run(2, tasks=2)
    writer.snapshots.take(writer.seq, 5.0)
    journal.commit()
    first = journal.load_snapshot()
    writer.task(2, 0)
    assert writer.state.changed == {2}
    writer.snapshots.take(writer.seq, 6.0)
    journal.commit()
    second = journal.load_snapshot()
    assert first is not None
    assert second is not None
    assert second.parts[1] is first.parts[1]
    assert second.parts[2] != first.parts[2]


def test_a_removed_run_stays_removed_and_its_number_is_never_used_again() -> None:
    journal = MemoryJournal()
    writer = begin(journal)
    writer.run(1, tasks=1)
    writer.run(2, tasks=1)
    writer.snapshots.take(writer.seq, 5.0)
    writer.write(e.RunRemoved(2), forget=[2])
    journal.commit()
    assert [one.kind for one in journal.read(run=2)] == ["RunRemoved"]
    for snapshot in (True, False):
        found = recover(journal, snapshot=snapshot)
        assert set(found.state.runs) == {1}
        assert found.state.runs_made == 2
        assert encoded(found.state) == encoded(writer.state)


def test_a_snapshot_is_due_after_twenty_thousand_events_and_then_after_twice_what_is_behind() -> None:
    state = State()
    snapshots = Snapshots(MemoryJournal(), state, {}, {})
    state.changed.add(1)
    snapshots.note(1, TAIL_EVENTS)
    assert not snapshots.due()
    snapshots.note(1)
    assert snapshots.due()
    state.changed.clear()
    snapshots.take(1, 0.0)
    assert snapshots.tail == 0
    state.changed.add(1)
    snapshots.note(1, 2 * (TAIL_EVENTS + 1))
    assert not snapshots.due()
    snapshots.note(1)
    assert snapshots.due()
    state.changed = {2}
    assert snapshots.due()


def test_a_real_file_recovers_across_two_restarts_with_a_growing_epoch(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    states: list[dict[int, bytes]] = []

    async def first() -> None:
        journal = SqliteJournal(path)
        journal.open_epoch(recover(journal).epoch)
        journal.start(Quiet())
        writer = begin(journal)
        writer.run(1, tasks=400)
        for task in range(300):
            writer.task(1, task)
        states.append(encoded(writer.state))
        await journal.aclose()

    async def second() -> None:
        journal = SqliteJournal(path)
        found = recover(journal)
        assert encoded(found.state) == states[0]
        assert found.epoch == 2
        journal.open_epoch(found.epoch)
        journal.start(Quiet())
        writer = Writer(journal, found.state, found.seq)
        writer.snapshots = Snapshots(journal, found.state, found.behind, found.tail)
        writer.write(e.EpochStarted(found.epoch, journal.id))
        writer.task(1, 300)
        await writer.snapshots.take(writer.seq, 9.0).wait()
        writer.task(1, 301)
        states.append(encoded(writer.state))
        await journal.aclose()

    async def third() -> None:
        journal = SqliteJournal(path)
        found = recover(journal)
        assert encoded(found.state) == states[1]
        assert (found.epoch, sum(found.tail.values())) == (3, 3)
        await journal.aclose()

    anyio.run(first)
    anyio.run(second)
    anyio.run(third)


def test_an_epoch_that_was_opened_but_never_journaled_is_not_used_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = SqliteJournal(path)
    journal.open_epoch(recover(journal).epoch)
    anyio.run(journal.aclose)
    again = SqliteJournal(path)
    assert recover(again).epoch == 2
    anyio.run(again.aclose)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        ("UPDATE meta SET value = '0-old' WHERE key = 'snapshot_layout'", "another build"),
        ("DELETE FROM meta WHERE key = 'snapshot_layout'", "another build"),
        ("UPDATE snapshot SET crc = crc + 1 WHERE part = 1", "damaged"),
        ("UPDATE snapshot SET body = x'c1', crc = :crc WHERE part = 1", "can't be read"),
    ],
)
def test_a_snapshot_that_is_of_no_use_is_left_aside_for_the_events_and_replaced_whole(
    tmp_path: Path, harm: str, says: str
) -> None:
    path = tmp_path / "journal.db"
    told: dict[int, bytes] = {}

    async def write() -> None:
        journal = SqliteJournal(path)
        journal.start(Quiet())
        writer = begin(journal)
        writer.run(1, tasks=2)
        writer.run(2, tasks=1)
        await writer.snapshots.take(writer.seq, 5.0).wait()
        writer.task(2, 0)
        told.update(encoded(writer.state))
        await journal.aclose()

    async def again() -> None:
        journal = SqliteJournal(path)
        found = recover(journal)
        assert says in found.note
        assert "every event was replayed" in found.note
        assert encoded(found.state) == told
        journal.start(Quiet())
        await Snapshots(journal, found.state, found.behind, found.tail).take(found.seq, found.at).wait()
        mended = recover(journal)
        assert mended.note == ""
        assert mended.tail == {}
        assert encoded(mended.state) == told
        await journal.aclose()

    anyio.run(write)
    with sqlite3.connect(path) as file:
        seq = file.execute("SELECT seq FROM snapshot WHERE part = 1").fetchone()[0]
        file.execute(harm, {"crc": part_checksum(1, seq, b"\xc1")} if ":crc" in harm else {})
    file.close()
    anyio.run(again)


@pytest.mark.parametrize("body", [b"", b"\x91", msgspec.msgpack.encode([["NoSuchEvent", 1]])])
def test_a_body_that_no_event_makes_is_named(body: bytes) -> None:
    journal = MemoryJournal()
    begin(journal)
    journal.append([Record(3, 1, "TaskSettled", 0.0, body)])
    journal.commit()
    with pytest.raises(JournalCorrupt, match="record 3"):
        recover(journal)


def test_a_damaged_record_refuses_to_start_and_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"

    async def write() -> None:
        journal = SqliteJournal(path)
        journal.start(Quiet())
        begin(journal).run(1, tasks=1)
        await journal.aclose()

    anyio.run(write)
    with sqlite3.connect(path) as file:
        file.execute("UPDATE event SET body = zeroblob(LENGTH(body)) WHERE seq = 4")
    file.close()
    journal = SqliteJournal(path)
    with pytest.raises(JournalCorrupt, match="record 4"):
        recover(journal)
    anyio.run(journal.aclose)
