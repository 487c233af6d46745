"""`journal verify`: what is sound passes, and whatever is wrong is named with the first record that it is about."""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from orchestrator.artifacts.store import ArtifactStore
from orchestrator.core import event as e
from orchestrator.core.event_codec import encode_events
from orchestrator.core.state import State
from orchestrator.journal.archive import Archive
from orchestrator.journal.journal import Commit, Record
from orchestrator.journal.schema import checksum, part_checksum
from orchestrator.journal.snapshot import Snapshots
from orchestrator.journal.sqlite import SqliteJournal
from orchestrator.service.audit import Audit, audit
from protocol.artifact import ArtifactRef
from protocol.errors import AsterismError, NotFound
from protocol.ids import Fence
from protocol.outcome import Success
from protocol.patch import Patch
from protocol.task import RunSettings, TaskSpec

CONTENT = b'"a large value"'
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
RUN_EVENTS = 6


class Quiet:
    def disk_full(self, full: bool) -> None: ...

    def failed(self, error: AsterismError) -> None:
        raise error


def story(state: State, run: int) -> list[tuple[e.Event, ...]]:
    value = ArtifactRef(DIGEST, "application/json", len(CONTENT))
    return [
        (e.RunSubmitted(run, "a request", f"key-{run}", "me", RunSettings(), {}, at=1.0),),
        (e.PatchAccepted(run, 1, Patch("planner", (TaskSpec("t", "flow.echo"),)), at=1.0),),
        (e.PlanClosed(run),),
        (e.AttemptDispatched(run, 0, 1, 1, Fence(1, run), b"pin", at=2.0),),
        (
            e.AttemptEnded(run, 0, 1, Success(value), at=3.0),
            e.TaskSettled(run, 0, "succeeded", 1, at=3.0),
        ),
        (e.RunSettled(run, "succeeded", at=4.0),),
    ]


async def write(folder: Path) -> None:
    """Three runs, the second one removed; a snapshot after the first."""
    journal = SqliteJournal(folder / "journal.db")
    journal.start(Quiet())
    state, seq = State(journal=journal.id), 0
    snapshots = Snapshots(journal, state, {}, {})

    def append(*events: e.Event, forget: tuple[int, ...] = ()) -> Commit:
        nonlocal seq
        for event in events:
            state.apply(event)
        record = Record(seq + 1, e.run_of(events[0]), type(events[0]).__name__, 1.0 + seq, encode_events(events))
        snapshots.note(record.run, len(events))
        seq += len(events)
        return journal.append([record], forget=forget)

    append(e.EpochStarted(1, journal.id))
    append(e.WorkerEnrolled(1, "pi-1", "hash"))
    for events in story(state, 1):
        append(*events)
    snapshots.take(seq, 9.0)
    for two, three in zip(story(state, 2), story(state, 3), strict=True):
        append(*two)
        append(*three)
    await append(e.RunRemoved(2), forget=(2,)).wait()
    while journal.statistics().removing:
        await journal.append([]).wait()
    await journal.aclose()
    ArtifactStore(folder / "artifacts").put(CONTENT)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("server")
    anyio.run(write, folder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    for path in written.rglob("*"):
        if path.is_file():
            target = tmp_path / path.relative_to(written)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return tmp_path


def check(folder: Path, artifacts: bool = True) -> Audit:
    with Archive(folder / "journal.db") as archive:
        return audit(archive, folder / "artifacts" if artifacts else None)


def damage(folder: Path, *statements: str) -> None:
    with sqlite3.connect(folder / "journal.db") as file:
        for statement in statements:
            file.execute(statement)
    file.close()


def test_a_sound_journal_passes_with_its_gaps_accounted_for(folder: Path) -> None:
    found = check(folder)
    assert found.sound, found.defects
    assert (found.runs, found.artifacts, found.first_bad) == (2, 1, None)
    assert found.events == 2 + 2 * (RUN_EVENTS + 1) + 1
    with Archive(folder / "journal.db") as archive:
        assert sum(last - first + 1 for first, last in archive.gaps().items()) == RUN_EVENTS + 1


@pytest.mark.parametrize(
    ("statement", "seq", "says"),
    [
        ("UPDATE event SET body = zeroblob(LENGTH(body)) WHERE seq = 5", 5, "checksum"),
        ("UPDATE event SET at = at + 1 WHERE seq = 4", 4, "checksum"),
        ("DELETE FROM event WHERE seq = 6", 6, "is missing"),
        ("DELETE FROM event WHERE seq = 1", 1, "is missing"),
        ("DELETE FROM gap", 10, "is missing"),
    ],
)
def test_the_first_bad_record_is_named(folder: Path, statement: str, seq: int, says: str) -> None:
    damage(folder, statement, "UPDATE event SET body = zeroblob(3) WHERE seq = 22")
    found = check(folder)
    assert found.first_bad == seq
    assert says in found.defects[0].message
    assert str(seq) in found.defects[0].message


@pytest.mark.parametrize(
    "events",
    [
        (e.TaskSettled(1, 7, "succeeded"),),
        (e.PlanClosed(9),),
        (e.RunPaused(1, "me"),),
        (e.EpochStarted(2, "another"),),
    ],
)
def test_a_fact_that_cannot_follow_is_named(folder: Path, events: tuple[e.Event, ...]) -> None:
    body, run = encode_events(events), e.run_of(events[0])
    with sqlite3.connect(folder / "journal.db") as file:
        last = file.execute("SELECT MAX(seq) FROM event").fetchone()[0] + 1
        crc = checksum(last, run, "X", 1, 1.0, body)
        file.execute("INSERT INTO event VALUES (?, ?, 'X', 1, 1.0, ?, ?)", (last, run, crc, body))
    file.close()
    found = check(folder)
    assert not found.sound
    assert found.first_bad == (last if run else 1)


def test_a_snapshot_that_tells_another_story_is_found(folder: Path) -> None:
    with sqlite3.connect(folder / "journal.db") as file:
        seq, body = file.execute("SELECT seq, body FROM snapshot WHERE part = 1").fetchone()
        other = body.replace(b"a request", b"a bequest")
        file.execute("UPDATE snapshot SET body = ?, crc = ? WHERE part = 1", (other, part_checksum(1, seq, other)))
    file.close()
    found = check(folder)
    assert [one.message for one in found.defects if "run r1" in one.message]
    damage(folder, "UPDATE snapshot SET crc = 1 WHERE part = 1")
    assert "is damaged" in check(folder).defects[0].message


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b'"other"')])
def test_an_artifact_that_a_run_needs_and_that_is_not_right_is_named(
    folder: Path, harm: Callable[[Path], object]
) -> None:
    harm(folder / "artifacts" / DIGEST[7:9] / DIGEST[9:])
    assert check(folder, artifacts=False).sound
    (defect,) = check(folder).defects
    assert defect.code == "Artifact"
    assert DIGEST in defect.message
    assert "r1/t" in defect.message


def test_pages_that_sqlite_finds_broken_are_told(folder: Path) -> None:
    path = folder / "journal.db"
    raw = bytearray(path.read_bytes())
    at = raw.index(b"RunSubmitted")
    raw[at - at % 4096 : at - at % 4096 + 8] = zlib.crc32(b"noise").to_bytes(8, "big")
    path.write_bytes(raw)
    with pytest.raises(AsterismError, match="damaged"):
        assert not check(folder).sound


def test_there_is_no_journal_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no journal"):
        Archive(tmp_path / "journal.db")
