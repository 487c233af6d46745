"""What waits for room on this worker, and what must have ended by when.

Parents that may go on come before what is queued; what is queued starts in order, as far as it fits. Invariant: an
attempt is started only with its whole need taken from the capacity. Pure: it returns what may go, the machine acts.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from protocol.ids import AttemptId

from .attempt import Live
from .capacity import Capacity


class Agenda:
    """Attempts are known by id; their state is read from `attempts`, which belongs to the machine."""

    def __init__(self, capacity: Capacity, attempts: Mapping[AttemptId, Live]) -> None:
        self._capacity = capacity
        self._attempts = attempts
        self._queue: deque[AttemptId] = deque()
        self._resuming: deque[AttemptId] = deque()
        self._limits: list[tuple[float, AttemptId]] = []

    @property
    def is_empty(self) -> bool:
        return not self._queue and not self._resuming

    @property
    def next_limit(self) -> float | None:
        return self._limits[0][0] if self._limits else None

    def queue(self, attempt: AttemptId) -> None:
        self._queue.append(attempt)

    def clear(self) -> tuple[AttemptId, ...]:
        """Empty the queue; what was still in it."""
        found = tuple(attempt for attempt in self._queue if attempt in self._attempts)
        self._queue.clear()
        return found

    def pause(self, live: Live, now: float) -> None:
        """It waits for others: slot and cpu are free meanwhile, and its time stands still."""
        live.move("asked")
        self._capacity.pause(live.work.need)
        live.grip = "paused"
        live.waits_since = now

    def resume(self, attempt: AttemptId, live: Live) -> None:
        """What it waited for is there; it goes on as soon as there is room."""
        live.move("answered")
        self._resuming.append(attempt)

    def release(self, live: Live) -> None:
        """Its process is idle or gone."""
        if live.grip == "full":
            self._capacity.give(live.work.need, live.dealt)
        elif live.grip == "paused":
            self._capacity.give_paused(live.work.need, live.dealt)
        live.grip = "none"

    def going_on(self, now: float) -> Iterator[tuple[AttemptId, Live]]:
        """Parents that got their slot again."""
        for attempt in list(self._resuming):
            live = self._attempts.get(attempt)
            if live is None or live.phase != "resuming":
                self._resuming.remove(attempt)
            elif self._capacity.resume(live.work.need):
                self._resuming.remove(attempt)
                live.grip = "full"
                live.move("resumed")
                live.stops_at += now - live.waits_since
                heapq.heappush(self._limits, (live.stops_at, attempt))
                yield attempt, live

    def starting(self, may_start: Callable[[Live], bool]) -> Iterator[tuple[AttemptId, Live]]:
        """Queued attempts whose need is taken now. Those that may not start yet wait on, in order."""
        waiting: deque[AttemptId] = deque()
        while self._queue:
            attempt = self._queue.popleft()
            live = self._attempts.get(attempt)
            if live is None or live.phase != "queued":
                continue
            dealt = self._capacity.take(live.work.need) if may_start(live) else None
            if dealt is not None:
                live.grip, live.dealt = "full", dealt
                yield attempt, live
            else:
                waiting.append(attempt)
        self._queue = waiting

    def stranded(self, gone: frozenset[int]) -> list[tuple[AttemptId, Live]]:
        """What lies on these cards, which are no more, and what waits for more than is left."""
        return [
            (attempt, live)
            for attempt, live in self._attempts.items()
            if gone.intersection(live.dealt)
            or (live.phase == "queued" and not self._capacity.could_ever_hold(live.work.need))
        ]

    def limit(self, attempt: AttemptId, live: Live, now: float) -> None:
        """From now its time runs: the skill's timeout, or what its deadline leaves."""
        limit = live.work.spec.timeout_s
        if live.assign.deadline_s > 0:
            limit = min(limit, live.assign.deadline_s)
        live.stops_at = now + limit
        heapq.heappush(self._limits, (live.stops_at, attempt))
        if len(self._limits) > 2 * len(self._attempts) + 256:
            self._limits = [(one.stops_at, key) for key, one in self._attempts.items() if one.stops_at]
            heapq.heapify(self._limits)

    def shift(self, seconds: float) -> None:
        """All that runs may run so much longer."""
        self._limits = []
        for attempt, live in self._attempts.items():
            if live.stops_at:
                live.stops_at += seconds
                live.waits_since += seconds
                self._limits.append((live.stops_at, attempt))
        heapq.heapify(self._limits)

    def overdue(self, now: float) -> Iterator[tuple[AttemptId, Live]]:
        """Running attempts whose time is over, each once."""
        while self._limits and self._limits[0][0] <= now:
            _, attempt = heapq.heappop(self._limits)
            live = self._attempts.get(attempt)
            if live is None or live.phase != "running":
                continue
            if live.stops_at > now:
                heapq.heappush(self._limits, (live.stops_at, attempt))
            else:
                yield attempt, live
