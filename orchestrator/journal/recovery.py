"""From a journal to the state it tells: the last snapshot, then every record behind it through `State.apply`.

The same events in the same order as when they were live, so the state is equal to the one that was lost. A snapshot is
only a shorter way: one that is damaged, or made by a build that keeps its state otherwise, is left aside for the
events, which are all there. Reads only; the new epoch it names is made durable by the caller before any dispatch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Final

import msgspec

from protocol.collector import at_rest
from protocol.errors import AsterismError, JournalCorrupt

from ..core.event_codec import decode_events
from ..core.lifecycle import InvalidTransition
from ..core.state import State
from .journal import Record, Snapshot, Source

PAGE_RECORDS: Final = 1000
_MISFITS: Final = (
    AsterismError, InvalidTransition, AssertionError, AttributeError, LookupError, TypeError, ValueError,
)  # fmt: skip
"""How an applier says that a fact can't be."""


class Recovered(msgspec.Struct):
    """`seq` and `at` are of the last event. `behind` and `tail` count events by part, for the snapshot rule. `note`
    says why the snapshot that is there was not used, "" if it was."""

    state: State
    seq: int
    at: float
    epoch: int
    behind: dict[int, int]
    tail: dict[int, int]
    note: str = ""


def recover(journal: Source, until: int = sys.maxsize, *, snapshot: bool = True) -> Recovered:
    """Blocks; 10,000 events take less than a second. `epoch` is the one to open next.

    `until` stops before records above that number; without `snapshot` every event is replayed.
    Raises: JournalCorrupt naming the damaged record, VersionMismatch for a journal of a newer build.
    """
    with at_rest():  # what is replayed lives on: to look for garbage among it took a third of the time
        removed = journal.removed()
        found = _from_snapshot(journal, removed) if snapshot else None
        if found is None or found.note:
            note = found.note if found is not None else ""
            found = Recovered(State.restore({}, removed), 0, 0.0, 1, {}, {}, note)
            found.state.journal = journal.id
        for record in records(journal, found.seq, until):
            replay(found, record, removed)
        if found.note:
            found.state.changed = {0, *found.state.runs}
    if found.state.journal != journal.id:
        raise JournalCorrupt(
            f"the journal {journal.id} holds the events of {found.state.journal}",
            hint="its files were mixed with those of another: restore them from one copy",
        )
    found.epoch = max(found.state.epoch, journal.epoch) + 1
    return found


def _from_snapshot(journal: Source, removed: frozenset[int]) -> Recovered | None:
    try:
        held = journal.load_snapshot()
        if held is None:
            return None
        note = "" if held.layout == State.layout() else "was made by another build"
        if not note:
            return _restored(held, removed)
    except JournalCorrupt as error:
        note = f"is damaged ({error.message})"
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError):
        note = "can't be read"
    return Recovered(State(), 0, 0.0, 1, {}, {}, f"the snapshot {note}: every event was replayed")


def _restored(held: Snapshot, removed: frozenset[int]) -> Recovered:
    state = State.restore(held.parts, removed)
    state.changed.clear()
    return Recovered(state, held.seq, held.at, 1, dict(held.records), {})


def records(journal: Source, after: int = 0, until: int = sys.maxsize) -> Iterator[Record]:
    """Every record that begins above `after` and at `until` or below, in order."""
    while page := journal.read(after=after, limit=PAGE_RECORDS):
        before = after
        for record in page:
            if record.seq > until:
                return
            if record.seq > before:
                yield record
                after = record.seq
        if after == before:
            return


def replay(found: Recovered, record: Record, removed: frozenset[int]) -> None:
    """Apply one record, the next. Raises: JournalCorrupt naming it, for a body or a fact that can't be."""
    try:
        events = decode_events(record.body)
    except msgspec.DecodeError as error:
        raise _impossible(record, "has a body that no event makes") from error
    if record.run not in removed:
        try:
            for event in events:
                found.state.apply(event)
        except (
            AsterismError,
            InvalidTransition,
            AssertionError,
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
        ) as error:
            raise _impossible(record, f"can't follow what is before it ({type(error).__name__}: {error})") from error
        found.tail[record.run] = found.tail.get(record.run, 0) + len(events)
    found.seq, found.at = record.seq + len(events) - 1, record.at


def _impossible(record: Record, why: str) -> JournalCorrupt:
    return JournalCorrupt(
        f"journal record {record.seq} ({record.kind}) {why}",
        hint="asterism journal verify says more; restore the journal from a copy",
        where=str(record.seq),
    )
