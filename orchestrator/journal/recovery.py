"""From a journal to the state it tells: the last snapshot, then every record behind it through `State.apply`.

The same events in the same order as when they were live, so the state is equal to the one that was lost. Reads only;
the new epoch it names is made durable by the caller before anything is dispatched.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ..core.event_codec import decode_events
from ..core.state import State
from .journal import Journal
from .schema import corrupt

PAGE_RECORDS: Final = 5000


class Recovered(msgspec.Struct):
    """`seq` and `at` are of the last event. `behind` and `tail` count records by part, for the snapshot rule."""

    state: State
    seq: int
    at: float
    epoch: int
    behind: dict[int, int]
    tail: dict[int, int]


def recover(journal: Journal) -> Recovered:
    """Blocks; 10,000 events take less than a second. `epoch` is the one to open next.

    Raises: JournalCorrupt naming the damaged record, VersionMismatch for a journal of a newer build.
    """
    snapshot = journal.load_snapshot()
    if snapshot is None:
        state, seq, at, behind = State(journal=journal.id), 0, 0.0, {}
    else:
        try:
            state = State.restore(snapshot.parts)
        except msgspec.DecodeError as error:
            raise corrupt(f"the snapshot as of event {snapshot.seq}") from error
        seq, at, behind = snapshot.seq, snapshot.at, dict(snapshot.records)
    state.changed.clear()
    tail: dict[int, int] = {}
    page = journal.read(after=seq, limit=PAGE_RECORDS)
    while page:
        before = seq
        for record in page:
            if record.seq <= seq:
                continue
            try:
                events = decode_events(record.body)
            except msgspec.DecodeError as error:
                raise corrupt(f"the body of journal record {record.seq}") from error
            for event in events:
                state.apply(event)
            seq, at = record.seq + len(events) - 1, record.at
            tail[record.run] = tail.get(record.run, 0) + 1
        if seq == before:
            break
        page = journal.read(after=seq, limit=PAGE_RECORDS)
    return Recovered(state, seq, at, max(state.epoch, journal.epoch) + 1, behind, tail)
