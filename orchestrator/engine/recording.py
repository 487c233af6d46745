"""A turn's events as journal records: what happens to tasks by the thousand goes many events a record.

A row costs the journal's thread far more than the bytes in it, and that thread takes the interpreter from the loop.
Invariant: the numbers of the events are those of their order, one record holds events of one run that follow each
other, and an attempt's end is in one record with what it settled. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..core.event import AttemptDispatched, AttemptEnded, Event, TaskSettled, run_of
from ..core.event_codec import encode_events
from ..journal.journal import Record

TOGETHER: Final = frozenset((AttemptDispatched, AttemptEnded, TaskSettled))
"""Kinds that share records; nobody reads the journal for one of these alone."""
MOST: Final = 64
"""Events of one record, give or take the last one's company."""


def records_of(events: Sequence[Event], first: int, at: float) -> list[Record]:
    """The records of these events, of which the first has the number `first`."""
    records: list[Record] = []
    start, count = 0, len(events)
    while start < count:
        event = events[start]
        run, end = run_of(event), start + 1
        if type(event) in TOGETHER:
            while end < count and type(events[end]) in TOGETHER and events[end].run == run:  # type: ignore[union-attr]
                if end - start >= MOST and type(events[end]) is not TaskSettled:
                    break
                end += 1
        body = encode_events(tuple(events[start:end]))
        records.append(Record(first + start, run, type(event).__name__, at, body))
        start = end
    return records
