"""Ready tasks, grouped by what decides where they may run, so that one look serves all of a kind.

A bucket is a heap by (priority, upward rank, arrival). Entries are never searched for: one whose task is no longer
ready is dropped when it comes up.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final

import msgspec

from protocol.resource import Resources
from protocol.skill import SkillSpec
from protocol.task import TaskSpec

from .graph import Run, Task
from .roster import NOBODY, Roster

Entry = tuple[float, float, int, int, int, TaskSpec]
"""(priority, rank, arrival, run, task, its spec when it was queued): stale once the task has another spec."""
_AGAIN: Final = 1 << 48


class Kind(msgspec.Struct, frozen=True):
    """What a bucket's tasks have in common. `on`: words, or `#N` for worker N; `needs` None: the variant's own."""

    skill: str
    on: tuple[str, ...]
    home: str
    needs: Resources | None = None

    def __hash__(self) -> int:
        return hash((self.skill, self.on, self.home))  # needs hold dicts; they only have to be equal


class Bucket:
    """The ready tasks of one kind."""

    def __init__(self, kind: Kind, spec: SkillSpec) -> None:
        self.kind = kind
        self.spec = spec
        self.heap: list[Entry] = []
        self.roster = NOBODY
        """Who may run these."""
        self.window = 0
        """How many of them a session may hold in its prefetch."""
        self.stuck_since = -1.0
        self.wakes_at = -1.0


class Queue:
    """All buckets."""

    def __init__(self) -> None:
        self.buckets: dict[Kind, Bucket] = {}
        self.rosters: dict[Kind, Roster] = {}
        """Of the fleet as it is, also of kinds of which nothing waits now."""
        self._arrivals = 0

    def push(self, kind: Kind, spec: SkillSpec, run: Run, task: Task) -> None:
        """The task is ready, or a hedge of it is wanted."""
        bucket = self.buckets.get(kind)
        if bucket is None:
            bucket = self.buckets[kind] = Bucket(kind, spec)
        self._arrivals += 1
        # What was lost or failed goes before its equals; every arrival is unique, so that specs are never compared.
        arrival = self._arrivals - _AGAIN if task.attempts else self._arrivals
        priority = task.spec.priority + run.settings.priority
        heapq.heappush(bucket.heap, (-priority, -run.rank[task.ix], arrival, run.ix, task.ix, task.spec))

    def waiting(self) -> Iterator[Bucket]:
        """Buckets with entries, the most urgent head first; empty ones are forgotten."""
        for kind in [kind for kind, bucket in self.buckets.items() if not bucket.heap]:
            del self.buckets[kind]
        yield from sorted(self.buckets.values(), key=lambda bucket: bucket.heap[0])
