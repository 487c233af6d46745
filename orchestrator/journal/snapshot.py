"""When a snapshot is taken, and what goes into it: the parts that changed, once the tail is worth it.

Rule: the tail exceeds max(20,000 events, twice the events behind the parts that would have to be encoded), so the
cost of snapshots stays linear in the events for one huge run and for many small ones alike; and at a clean stop.

While the server runs, `draft` makes it elsewhere from the journal itself, as of an event that is on disk; the loop
only hands it to the journal. At the stop the live state is encoded, since nothing else wants the loop then. An older
snapshot never follows a newer one into the journal.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import anyio.to_thread

from protocol.errors import AsterismError

from ..core.state import State
from .journal import Commit, Journal, Snapshot

TAIL_EVENTS: Final = 20_000
_SHARE: Final = 10.0
"""A draft is followed by so many times its length without one."""


class Draft(Protocol):
    """Makes a snapshot elsewhere."""

    def __call__(self, until: int) -> Snapshot:
        """As of event `until`. Blocks. Raises: AsterismError, OSError."""

    def end(self) -> None:
        """Let the one under way come to nothing, soon."""


class Snapshots:
    """Counts what was appended since the last snapshot. `behind` and `tail` come from recovery. Without a `draft`
    every snapshot is of the live state."""

    def __init__(
        self,
        journal: Journal,
        state: State,
        behind: Mapping[int, int],
        tail: Mapping[int, int],
        draft: Draft | None = None,
    ) -> None:
        self._journal = journal
        self._state = state
        self._behind = dict(behind)
        self._tail = dict(tail)
        self._tail_events = sum(tail.values())
        self._draft = draft
        self._drafting: tuple[dict[int, int], set[int]] | None = None
        """The tail and the changed parts that a draft under way covers."""
        self._rest_until = 0.0
        self.failures = 0
        """Drafts that came to nothing since the last one that did not."""

    @property
    def tail(self) -> int:
        """Events that a recovery would have to replay."""
        return self._tail_events + (sum(self._drafting[0].values()) if self._drafting else 0)

    @property
    def apart(self) -> bool:
        """Whether `write` makes them, or `take`."""
        return self._draft is not None

    def note(self, run: int, events: int = 1) -> None:
        """So many events of `run` (0: of none) were appended."""
        self._tail[run] = self._tail.get(run, 0) + events
        self._tail_events += events

    def due(self) -> bool:
        if self._tail_events <= TAIL_EVENTS or self._drafting is not None:
            return False
        if self._draft is not None and time.monotonic() < self._rest_until:
            return False
        return self._tail_events > 2 * sum(self._behind.get(part, 0) for part in self._state.changed)

    def take(self, seq: int, at: float) -> Commit:
        """Copy the changed parts as of event `seq`, the last one applied and appended. Costs the loop the encoding."""
        self._give_up()
        state = self._state
        changed, state.changed = state.changed, set()
        parts = {part: state.part(part) for part in sorted(changed | {0}) if part == 0 or part in state.runs}
        for part, events in self._tail.items():
            self._behind[part] = self._behind.get(part, 0) + events
        self._tail.clear()
        self._tail_events = 0
        counts = {part: self._behind.get(part, 0) for part in parts}
        return self._journal.write_snapshot(Snapshot(seq, at, parts, counts, state.layout()))

    def begin(self) -> None:
        """What was counted up to now belongs to the `write` that follows."""
        self._drafting = (self._tail, self._state.changed)
        self._tail, self._tail_events, self._state.changed = {}, 0, set()

    async def write(self, seq: int, on_disk: Callable[[], Awaitable[None]]) -> None:
        """Have the snapshot as of event `seq`, the last at `begin`, made and stored. If it can't be had, the next one
        covers what this one would have."""
        assert self._draft is not None
        mine = self._drafting
        began = time.monotonic()
        try:
            await on_disk()
            found = await anyio.to_thread.run_sync(self._draft, seq, abandon_on_cancel=True)
            if self._drafting is not mine or mine is None:
                return  # one of the live state was taken meanwhile
            await self._journal.write_snapshot(found).wait()
            if self._drafting is mine:
                self._behind.update(found.records)
                self._drafting, self.failures = None, 0
        except (AsterismError, OSError):
            self.failures += 1
        finally:
            self._draft.end()
            if self._drafting is mine:
                self._give_up()
            now = time.monotonic()
            self._rest_until = now + _SHARE * (now - began)

    def _give_up(self) -> None:
        if self._drafting is None:
            return
        tail, changed = self._drafting
        self._drafting = None
        for part, events in tail.items():
            self._tail[part] = self._tail.get(part, 0) + events
            self._tail_events += events
        self._state.changed |= changed
