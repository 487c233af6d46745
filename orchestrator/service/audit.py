"""`journal verify`: whether a journal tells one story, whole and undamaged, and what its runs need is there.

Every record is read, its checksum and number checked, its body decoded and applied; then the state that all events make
is held against the one that the snapshot and its tail make, byte for byte. It stops at the first record that is bad:
what comes after has nothing to stand on. It must not know who runs the journal, and changes nothing.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from protocol.artifact import ArtifactRef
from protocol.collector import at_rest
from protocol.errors import AsterismError, JournalCorrupt

from ..artifacts.store import content_path
from ..core.graph import Run
from ..core.state import State
from ..journal.archive import Archive
from ..journal.journal import Record
from ..journal.recovery import PAGE_RECORDS, Recovered, recover, replay


class Defect(msgspec.Struct, frozen=True):
    """`seq`: the number of the record at fault, 0 where it is no one record's."""

    code: str
    message: str
    seq: int = 0


class Audit(msgspec.Struct):
    """`first_bad` is the number of the first bad record, null for none; `notes` are no defects."""

    journal: str
    records: int = 0
    events: int = 0
    runs: int = 0
    artifacts: int = 0
    first_bad: int | None = None
    defects: list[Defect] = []
    notes: list[str] = []

    @property
    def sound(self) -> bool:
        return not self.defects


def audit(archive: Archive, artifacts: Path | None = None) -> Audit:
    """Blocks, for as long as a replay takes. With `artifacts`, the folder of the store, contents are hashed too."""
    found = Audit(archive.id)
    damage = archive.damage()
    if damage:
        found.defects.append(Defect("Pages", damage))
    try:
        with at_rest():
            state = _replayed(archive, found)
    except AsterismError as error:
        found.first_bad = int(error.where) if error.where.isdecimal() else found.events + 1
        found.defects.append(Defect(error.code, error.message, found.first_bad))
        return found
    found.runs = len(state.runs)
    if artifacts is not None:
        for digest, where in _named(state):
            found.artifacts += 1
            _check_content(found, content_path(artifacts, digest), digest, where)
    told = _digests(state)
    del state
    gc.collect()  # its parts know each other, and the next one is as large
    _check_snapshot(archive, found, told)
    return found


def _replayed(archive: Archive, found: Audit) -> State:
    """The state that all events make, and their counts. Raises: JournalCorrupt, VersionMismatch."""
    removed, gaps = archive.removed(), archive.gaps()
    made = Recovered(State.restore({}, removed), 0, 0.0, 0, {}, {})
    made.state.journal = archive.id
    for record in _records(archive):
        expected = made.seq + 1
        while expected < record.seq and expected in gaps:
            expected = gaps[expected] + 1
        if record.seq != expected:
            missing = f"{expected} to {record.seq - 1}" if record.seq > expected else f"{record.seq}, a second time"
            what = f"journal record {expected} is missing: nothing accounts for the numbers {missing}"
            raise JournalCorrupt(what, where=str(expected))
        replay(made, record, removed)
        found.records += 1
        found.events += made.seq - record.seq + 1
    if made.state.journal != archive.id:
        raise JournalCorrupt(f"the events are those of the journal {made.state.journal}", where="1")
    return made.state


def _records(archive: Archive) -> Iterator[Record]:
    """As recovery.records; of a page with a damaged record those before it come first."""
    after, limit = 0, PAGE_RECORDS
    while True:
        try:
            page = archive.read(after=after, limit=limit)
        except AsterismError:
            if limit == 2:
                raise
            limit = 2
            continue
        fresh = [record for record in page if record.seq > after]
        if not fresh:
            return
        yield from fresh
        after = fresh[-1].seq


def _digests(state: State) -> dict[int, bytes]:
    return {part: hashlib.sha256(state.part(part)).digest() for part in (0, *state.runs)}


def _check_snapshot(archive: Archive, found: Audit, told: dict[int, bytes]) -> None:
    again = recover(archive)
    if again.note:
        if "another build" in again.note:
            found.notes.append(again.note)
        else:
            found.defects.append(Defect("Snapshot", again.note))
        return
    shortcut = _digests(again.state)
    for part in sorted(told.keys() | shortcut.keys()):
        if told.get(part) != shortcut.get(part):
            whose = f"run r{part}" if part else "the fleet"
            what = f"the snapshot and the events behind it tell another state of {whose} than all events"
            found.defects.append(Defect("Snapshot", what))


def _named(state: State) -> Iterator[tuple[str, str]]:
    """(digest, who needs it), each digest once: values, pinned files and reusable results of runs that are kept."""
    seen: set[str] = set()
    for run in state.runs.values():
        for ref, where in _refs(run):
            if ref.digest not in seen:
                seen.add(ref.digest)
                yield ref.digest, where


def _refs(run: Run) -> Iterator[tuple[ArtifactRef, str]]:
    for task in run.tasks:
        if isinstance(task.value, ArtifactRef):
            yield task.value, f"{run.name}/{run.name_of(task)}"
    for uri, ref in run.files.items():
        yield ref, f"{run.name} as {uri}"
    for value in run.reuse.values():
        if isinstance(value, ArtifactRef):
            yield value, f"{run.name}, to reuse"


def _check_content(found: Audit, path: Path, digest: str, where: str) -> None:
    try:
        with open(path, "rb") as file:
            real = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        found.defects.append(Defect("Artifact", f"{digest}, which {where} needs, can't be read: {error.strerror}"))
        return
    if real != digest:
        found.defects.append(Defect("Artifact", f"{digest}, which {where} needs, holds {real}"))
