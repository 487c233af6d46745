"""When a snapshot is taken, and what goes into it: the parts that changed, once the tail is worth it.

Rule: the tail exceeds max(10,000 records, twice the records behind the parts that would have to be encoded), so the
cost of snapshots stays linear in the records for one huge run and for many small ones alike; and at a clean stop.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..core.state import State
from .journal import Commit, Journal, Snapshot

TAIL_RECORDS: Final = 10_000


class Snapshots:
    """Counts what was appended since the last snapshot. `behind` and `tail` come from recovery."""

    def __init__(self, journal: Journal, state: State, behind: Mapping[int, int], tail: Mapping[int, int]) -> None:
        self._journal = journal
        self._state = state
        self._behind = dict(behind)
        self._tail = dict(tail)
        self._tail_records = sum(tail.values())

    @property
    def tail(self) -> int:
        """Records that a recovery would have to replay."""
        return self._tail_records

    def note(self, run: int) -> None:
        """A record of `run` (0: of none) was appended."""
        self._tail[run] = self._tail.get(run, 0) + 1
        self._tail_records += 1

    def due(self) -> bool:
        if self._tail_records <= TAIL_RECORDS:
            return False
        return self._tail_records > 2 * sum(self._behind.get(part, 0) for part in self._state.changed)

    def take(self, seq: int, at: float) -> Commit:
        """Copy the changed parts as of event `seq`, the last one applied and appended. Costs the loop the encoding."""
        state = self._state
        changed, state.changed = state.changed, set()
        parts = {part: state.part(part) for part in sorted(changed | {0}) if part == 0 or part in state.runs}
        for part, records in self._tail.items():
            self._behind[part] = self._behind.get(part, 0) + records
        self._tail.clear()
        self._tail_records = 0
        counts = {part: self._behind.get(part, 0) for part in parts}
        return self._journal.write_snapshot(Snapshot(seq, at, parts, counts, state.layout()))
