"""Snapshots that are made beside the server: whenever one is taken and whatever follows, it tells what replay tells."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import anyio
import pytest

from orchestrator.core import event as e
from orchestrator.core.state import State
from orchestrator.journal.journal import Snapshot
from orchestrator.journal.recovery import recover
from orchestrator.journal.scribe import Scribe, draft
from orchestrator.journal.snapshot import Snapshots
from orchestrator.journal.sqlite import SqliteJournal
from protocol.errors import Unavailable
from tests.unit.test_recovery import Quiet, Writer, begin, encoded


async def tell(writer: Writer, luck: random.Random) -> None:
    """One more piece of a story: a run, a task of one, a removal."""
    runs = writer.state.runs
    opened = [(run.ix, task.ix) for run in runs.values() for task in run.tasks if not task.attempts]
    choice = luck.random()
    if choice < 0.2 or not opened:
        writer.run(writer.state.runs_made + 1, tasks=luck.randint(1, 4))
    elif choice < 0.3 and len(runs) > 1:
        run = luck.choice(sorted(runs))
        writer.write(e.RunRemoved(run), forget=[run])
    else:
        writer.task(*luck.choice(opened))
    await writer.journal.append([]).wait()


@pytest.mark.parametrize("seed", range(4))
def test_after_every_step_snapshot_and_tail_tell_what_all_events_tell(tmp_path: Path, seed: int) -> None:
    luck = random.Random(seed)

    async def main() -> None:
        journal = SqliteJournal(tmp_path / "journal.db")
        journal.start(Quiet())
        writer = begin(journal)
        seen: list[int] = []
        for _ in range(60):
            await tell(writer, luck)
            seen.append(writer.seq)
            if luck.random() < 0.3:  # as of now, or of a while ago: the loop went on meanwhile
                held = journal.load_snapshot()
                until = luck.choice([seq for seq in seen[-4:] if held is None or seq >= held.seq])
                await journal.write_snapshot(draft(journal.path, until)).wait()
            short, long = recover(journal), recover(journal, snapshot=False)
            assert not short.note
            assert encoded(short.state) == encoded(long.state) == encoded(writer.state)
            assert (short.seq, short.at) == (long.seq, long.at)
        await journal.aclose()

    anyio.run(main)


def test_a_draft_holds_what_changed_since_the_last_snapshot_and_counts_the_events_behind_it(tmp_path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(tmp_path / "journal.db")
        journal.start(Quiet())
        writer = begin(journal)
        writer.run(1, tasks=2)
        writer.run(2, tasks=2)
        await journal.append([]).wait()
        first = await anyio.to_thread.run_sync(Scribe(journal.path), writer.seq)
        assert dict(first.records) == {0: 2, 1: 3, 2: 3}
        await journal.write_snapshot(first).wait()
        writer.task(2, 0)
        await journal.append([]).wait()
        second = await anyio.to_thread.run_sync(Scribe(journal.path), writer.seq)
        assert dict(second.records) == {0: 2, 2: 6}
        assert (second.seq, second.layout) == (writer.seq, State.layout())
        assert second.parts[2] == State.restore(writer.state.snapshot()).part(2)
        await journal.aclose()

    anyio.run(main)


class Slow:
    """A draft that ends when told."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.go = threading.Event()
        self.ended = 0

    def __call__(self, until: int) -> Snapshot:
        self.go.wait(20)
        return draft(self._path, until)

    def end(self) -> None:
        self.ended += 1
        self.go.set()


async def nothing() -> None:
    pass


def test_one_of_the_live_state_at_the_stop_is_never_followed_by_an_older_one(tmp_path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(tmp_path / "journal.db")
        journal.start(Quiet())
        writer = begin(journal)
        writer.run(1, tasks=2)
        await journal.append([]).wait()
        slow = Slow(journal.path)
        snapshots = Snapshots(journal, writer.state, {}, {0: 2, 1: 3}, slow)
        snapshots.begin()
        assert not snapshots.due()
        assert snapshots.tail == 5
        async with anyio.create_task_group() as group:
            group.start_soon(snapshots.write, writer.seq, nothing)
            await anyio.wait_all_tasks_blocked()
            writer.task(1, 0)
            await snapshots.take(writer.seq, 9.0).wait()
            slow.go.set()
        held = journal.load_snapshot()
        assert held is not None
        assert held.seq == writer.seq
        assert dict(held.records) == {0: 2, 1: 3}
        assert encoded(recover(journal).state) == encoded(writer.state)
        await journal.aclose()

    anyio.run(main)


class Broken(Slow):
    def __call__(self, until: int) -> Snapshot:
        raise Unavailable("no room for a process")


def test_a_draft_that_fails_costs_nothing_but_itself(tmp_path: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(tmp_path / "journal.db")
        journal.start(Quiet())
        writer = begin(journal)
        writer.run(1, tasks=2)
        snapshots = Snapshots(journal, writer.state, {}, {0: 2, 1: 3}, Broken(journal.path))
        snapshots.begin()
        await snapshots.write(writer.seq, nothing)
        assert (snapshots.failures, snapshots.tail, writer.state.changed) == (1, 5, {0, 1})
        assert journal.load_snapshot() is None
        await journal.aclose()

    anyio.run(main)


def test_a_scribe_that_finds_no_journal_says_so(tmp_path: Path) -> None:
    scribe = Scribe(tmp_path / "journal.db")
    with pytest.raises(Unavailable, match="no journal"):
        scribe(1)
    scribe.end()
