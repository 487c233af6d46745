"""The simulated disk of the orchestrator: records in groups, snapshots, and how a crash finds them.

Invariant: what was committed stays; of what a crash meets on its way, appends survive in order, whole or not at all.
Records are the real encoding of the real events. It must not know what they mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from orchestrator.core.event import AttemptDispatched
from orchestrator.core.event_codec import decode_events, encode_events
from orchestrator.core.state import State


class Append:
    """The events of one decision on their way to the disk, and the commands that wait for them."""

    __slots__ = ("body", "events", "later", "parts")

    def __init__(self, events: tuple[Any, ...], later: tuple[Any, ...], parts: dict[int, bytes] | None = None) -> None:
        self.events = events
        self.later = later
        self.parts = parts
        """A snapshot instead: the parts that changed."""
        self.body = encode_events(events) if events else b""


class SimulatedDisk:
    """`records` are on disk; `waiting` are not, the first `in_flight` of them are being written."""

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.waiting: list[Append] = []
        self.in_flight = 0
        self.full = False
        self.stalled_until = 0.0
        self._parts: dict[int, bytes] = {}
        self._snapshot_at = 0

    @property
    def unwritten(self) -> Iterator[Append]:
        """Appends whose events are not on disk."""
        return (one for one in self.waiting if one.events)

    def holds(self, run: int, task: int, number: int) -> bool:
        """Whether the dispatch of this attempt still waits."""
        key = (run, task, number)
        return any(
            isinstance(event, AttemptDispatched) and (event.run, event.task, event.number) == key
            for one in self.waiting
            for event in one.events
        )

    def begin(self) -> bool:
        """Start to write what waits; False when there is nothing, no room, or a write on its way."""
        if self.in_flight or self.full or not self.waiting:
            return False
        self.in_flight = len(self.waiting)
        return True

    def end(self) -> list[Append]:
        """What was being written is on disk."""
        done, self.waiting = self.waiting[: self.in_flight], self.waiting[self.in_flight :]
        self.in_flight = 0
        for one in done:
            if one.events:
                self.records.append(one.body)
            elif one.parts is not None:
                self._parts.update(one.parts)
                self._snapshot_at = len(self.records)
        return done

    def crash(self, luck: Random, *, torn: bool) -> list[Append]:
        """The process is gone. What of the write on its way reached the disk after all."""
        self.in_flight = luck.randint(0, self.in_flight) if torn else 0
        done = self.end()
        self.waiting.clear()
        return done

    def replay(self, unwritten: bool = False) -> State:
        """The state that the journal tells, from its first record; with `unwritten`, once all of it were written."""
        state = State()
        _apply(state, self.records)
        if unwritten:
            _apply(state, [one.body for one in self.unwritten])
        return state

    def restore(self) -> State | None:
        """The last snapshot and its tail; None while there is no snapshot."""
        if not self._parts:
            return None
        state = State.restore(self._parts)
        _apply(state, self.records[self._snapshot_at :])
        return state


def _apply(state: State, records: list[bytes]) -> None:
    for record in records:
        for event in decode_events(record):
            state.apply(event)
