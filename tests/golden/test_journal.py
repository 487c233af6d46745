"""A journal of release 0.1 opens, replays and goes on, for ever. It holds every kind of event there was."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import anyio
import msgspec
import pytest

from orchestrator.core import event as e
from orchestrator.core.event_codec import decode_events
from orchestrator.core.lifecycle import Settled
from orchestrator.core.state import State
from orchestrator.journal.archive import Archive
from orchestrator.journal.journal import Record
from orchestrator.journal.recovery import recover
from orchestrator.journal.sqlite import SqliteJournal
from orchestrator.placement.predictor import Outcome
from orchestrator.service.audit import audit
from protocol.artifact import ArtifactRef
from protocol.outcome import Failure

DUMP = Path(__file__).with_name("journal-1.sql")
EVENTS = 82


class Quiet:
    def disk_full(self, full: bool) -> None: ...

    def failed(self, error: Exception) -> None: ...


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "journal.db"
    with sqlite3.connect(path) as file:
        file.executescript(DUMP.read_text())
    file.close()
    return path


def check(state: State) -> None:
    assert [run.name for run in state.runs.values()] == ["r1", "r2", "r3"]
    assert state.runs_made == 4  # r4 was removed, and its number is not given again
    assert state.keys == {"key-1": 1, "key-2": 2, "key-3": 3}
    assert (state.workers[1].name, state.workers[1].labels, state.workers[2].gone) == ("pi-1", {"zone": "attic"}, True)
    assert [(one.used, one.revoked) for one in state.tokens.values()] == [(1, False), (1, True)]
    one, two, three = state.runs.values()
    assert [task.state.state for task in one.tasks if isinstance(task.state, Settled)] == ["succeeded"] * 3
    assert one.tasks[0].value == b"42"
    assert one.tasks[1].value == ArtifactRef("sha256:" + "34" * 32, "application/json", 70000)
    assert one.find("a") is one.tasks[0]
    assert [attempt.ended for attempt in one.tasks[0].attempts] == ["failed", "succeeded"]
    assert two.state.state == "cancelled"  # type: ignore[union-attr]
    assert {two.name_of(task): task.state_is("succeeded") for task in two.tasks} == {
        "l": True, "m": False, "w": False, "z": False, "m.0": True, "m.1": False,
    }  # fmt: skip
    assert three.fork_of == 1
    assert three.tasks[0].reused
    assert [attempt.live for attempt in three.tasks[1].attempts] == [True]
    state.check()


@pytest.mark.parametrize("snapshot", [True, False])
def test_a_journal_of_release_0_1_tells_its_story_with_and_without_its_snapshot(old: Path, snapshot: bool) -> None:
    journal = SqliteJournal(old)
    found = recover(journal, snapshot=snapshot)
    assert (found.seq, found.epoch) == (EVENTS, 3)
    check(found.state)
    assert [line.text for _, line in journal.read_logs(1)] == ["counting"]
    anyio.run(journal.aclose)


def test_it_is_read_as_it_lies_by_verify_and_not_changed(old: Path) -> None:
    before = old.read_bytes()
    with Archive(old) as archive:
        found = audit(archive)
    assert found.sound, found.defects
    assert found.events == EVENTS
    assert old.read_bytes() == before


def test_it_goes_on_under_todays_build_and_opens_again(old: Path) -> None:
    async def main() -> None:
        journal = SqliteJournal(old)
        found = recover(journal)
        journal.start(Quiet())
        body = b"\x91\x92\xafWorkerForgotten\x01"
        await journal.append([Record(EVENTS + 1, 0, "WorkerForgotten", 1.8e9, body)]).wait()
        while journal.statistics().removing:  # the run that was removed there is taken out here
            await journal.append([]).wait()
        assert [record.kind for record in journal.read(run=4)] == ["RunRemoved"]
        await journal.aclose()
        again = SqliteJournal(old)
        assert recover(again).state.workers[1].gone
        assert recover(again).state.runs.keys() == found.state.runs.keys()
        await again.aclose()

    anyio.run(main)


def test_predictions_of_version_2_gain_what_they_lacked_and_are_read_on(old: Path) -> None:
    async def keep(*kept: Outcome) -> list[Outcome]:
        journal = SqliteJournal(old)
        recover(journal)
        journal.start(Quiet())
        journal.keep(list(kept), 1.8e9)
        await journal.append([]).wait()
        found = journal.recent_predictions(9)
        await journal.aclose()
        return found

    before = Outcome("x", "cpu", 1, 1.0, 0, 2.0)
    assert anyio.run(keep, before) == [before]
    with closing(sqlite3.connect(old)) as writer:
        for name in ("tokens_in", "tokens_out", "beside"):
            writer.execute(f"ALTER TABLE prediction DROP COLUMN {name}")
        writer.execute("UPDATE meta SET value = '2' WHERE key = 'schema'")
        writer.commit()
    after = Outcome("x", "cpu", 1, 1.0, 0, 2.0, tokens_in=9, tokens_out=3, beside=1)
    assert anyio.run(keep, after) == [before, after]


def test_a_field_that_came_later_has_its_default_in_an_older_body() -> None:
    failure = Failure("Lost", "gone", "infra")
    (found,) = decode_events(msgspec.msgpack.encode([["AttemptEnded", 7, 0, 1, msgspec.to_builtins(failure)]]))
    assert found == e.AttemptEnded(7, 0, 1, failure)
