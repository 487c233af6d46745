"""Ready tasks, grouped by what decides where they may run, so that one look serves all of a kind.

A bucket has a lane for each run; a lane is a heap by (priority, latest start, urgency, arrival). Which lane goes
first when several runs wait is core.round's affair. Entries are never searched for: one whose task is no longer ready
is dropped when it comes up.
"""

from __future__ import annotations

import heapq
from typing import Final

import msgspec

from protocol.resource import Resources
from protocol.skill import SkillSpec
from protocol.task import TaskSpec

from .graph import Run, Task
from .roster import NOBODY, Roster

Entry = tuple[float, float, float, int, int, int, TaskSpec]
"""(priority, latest start, urgency, arrival, run, task, its spec when queued): stale once the task has another."""
_AGAIN: Final = 1 << 48
PATIENCE: Final = 40
"""Tasks of one lane that may wait for a better device before the rest of it is left for the next flush: as many as a
device that is so many times faster is given before a slow one gets any."""
HOPELESS: Final = 8
"""The same when not even the last of the lane would take what has room."""
EVER: Final = float("inf")


class Kind(msgspec.Struct, frozen=True):
    """What a bucket's tasks have in common. `on`: words, or `#N` for worker N; `needs` None: the variant's own."""

    skill: str
    on: tuple[str, ...]
    home: str
    needs: Resources | None = None

    def __hash__(self) -> int:
        return hash((self.skill, self.on, self.home))  # needs hold dicts; they only have to be equal


class Lane:
    """The ready tasks of one run in a bucket."""

    __slots__ = ("aside", "bucket", "heap", "passed", "patience", "run")

    def __init__(self, bucket: Bucket, run: int) -> None:
        self.bucket = bucket
        self.run = run
        self.heap: list[Entry] = []
        self.aside: list[Entry] = []
        """Entries that wait for a better device, until the end of this flush."""
        self.patience = PATIENCE
        self.passed = False
        """It has had its turn in this look, whatever it has got."""

    @property
    def over(self) -> bool:
        """Nothing more of it can go in this flush."""
        return self.passed or self.bucket.full or len(self.aside) >= self.patience

    def restore(self) -> None:
        """What was set aside is in the queue again."""
        for entry in self.aside:
            heapq.heappush(self.heap, entry)
        self.aside.clear()
        self.patience = PATIENCE


class Bucket:
    """The ready tasks of one kind, by run."""

    def __init__(self, kind: Kind, spec: SkillSpec) -> None:
        self.kind = kind
        self.spec = spec
        self.lanes: dict[int, Lane] = {}
        self.roster = NOBODY
        """Who may run these."""
        self.window = 0
        """How many of them a session may hold in its prefetch."""
        self.full = False
        """Nobody has room for it any more in this flush."""
        self.stuck_since = -1.0
        self.wakes_at = -1.0

    @property
    def waiting(self) -> int:
        """Entries of all its lanes, but for those that are set aside."""
        return sum(len(lane.heap) for lane in self.lanes.values())


class Queue:
    """All buckets."""

    def __init__(self) -> None:
        self.buckets: dict[Kind, Bucket] = {}
        self.rosters: dict[Kind, Roster] = {}
        """Of the fleet as it is, also of kinds of which nothing waits now."""
        self._arrivals = 0

    def push(self, kind: Kind, spec: SkillSpec, run: Run, task: Task, urgency_s: float, latest: float = EVER) -> None:
        """The task is ready, or a hedge of it is wanted. `latest`: when it must start to meet a deadline."""
        bucket = self.buckets.get(kind)
        if bucket is None:
            bucket = self.buckets[kind] = Bucket(kind, spec)
        lane = bucket.lanes.get(run.ix)
        if lane is None:
            lane = bucket.lanes[run.ix] = Lane(bucket, run.ix)
        self._arrivals += 1
        # What was lost or failed goes before its equals; every arrival is unique, so that specs are never compared.
        arrival = self._arrivals - _AGAIN if task.attempts else self._arrivals
        heapq.heappush(lane.heap, (-task.spec.priority, latest, -urgency_s, arrival, run.ix, task.ix, task.spec))

    def waits(self, run: int) -> bool:
        """Whether something of the run is in the queue."""
        return any(run in bucket.lanes and bucket.lanes[run].heap for bucket in self.buckets.values())

    def waiting(self) -> list[Bucket]:
        """Buckets with entries, the most urgent head first; empty lanes and buckets are forgotten."""
        found: list[tuple[Entry, Bucket]] = []
        for kind, bucket in list(self.buckets.items()):
            for run in [run for run, lane in bucket.lanes.items() if not lane.heap]:
                del bucket.lanes[run]
            if bucket.lanes:
                found.append((min(lane.heap[0] for lane in bucket.lanes.values()), bucket))
            else:
                del self.buckets[kind]
        found.sort(key=_head)
        return [bucket for _, bucket in found]


def _head(found: tuple[Entry, Bucket]) -> Entry:
    return found[0]
