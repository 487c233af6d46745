"""Run time: what `now` is everywhere. One real clock, one that only moves when told.

Run time looks like wall-clock seconds, starts no earlier than the journal's last event and never goes back, whatever
happens to the wall clock; it goes on while the machine sleeps. It must not know who asks.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from typing import Final, Protocol

import anyio

_BOOT: Final = getattr(time, "CLOCK_BOOTTIME", None)


class Clock(Protocol):
    def now(self) -> float:
        """Run time in seconds; never less than it was."""
        ...

    async def sleep_until(self, at: float) -> None: ...


def elapsed() -> float:
    """Seconds since some fixed moment, time asleep included where the platform can tell."""
    return time.clock_gettime(_BOOT) if _BOOT is not None else time.monotonic()


class RunClock:
    """The clock of a server: starts at max(wall clock, last event of its journal) and then follows elapsed time."""

    def __init__(
        self,
        last_at: float = 0.0,
        wall: Callable[[], float] = time.time,
        since: Callable[[], float] = elapsed,
    ) -> None:
        self._since = since
        self._start = max(wall(), last_at)
        self._zero = since()
        self._latest = self._start

    def now(self) -> float:
        self._latest = max(self._latest, self._start + (self._since() - self._zero))
        return self._latest

    async def sleep_until(self, at: float) -> None:
        await anyio.sleep(max(0.0, at - self.now()))


class VirtualClock:
    """A clock that moves only in `step`, `run_until` and `advance`: events fire in time order, ties as scheduled.

    One and the same for the simulator, which runs callbacks, and for tests whose tasks `sleep_until`.
    """

    def __init__(self, start: float = 1_000_000.0) -> None:
        self._now = start
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._order = 0

    def now(self) -> float:
        return self._now

    def call_at(self, at: float, act: Callable[[], object]) -> None:
        """Run `act` when the clock gets there; a moment that has passed means now."""
        self._order += 1
        heapq.heappush(self._events, (max(at, self._now), self._order, act))

    def call_in(self, delay_s: float, act: Callable[[], object]) -> None:
        self.call_at(self._now + delay_s, act)

    @property
    def next_at(self) -> float | None:
        """When the next event is due; None when nothing is scheduled."""
        return self._events[0][0] if self._events else None

    def step(self) -> bool:
        """Move to the next event and run it; False when there is none."""
        if not self._events:
            return False
        self._now, _, act = heapq.heappop(self._events)
        act()
        return True

    def run_until(self, at: float) -> None:
        """Run everything due up to `at`, what that schedules included, and stand there."""
        while self._events and self._events[0][0] <= at:
            self.step()
        self._now = max(self._now, at)

    def advance(self, by_s: float) -> None:
        self.run_until(self._now + by_s)

    async def sleep_until(self, at: float) -> None:
        if at <= self._now:
            await anyio.lowlevel.checkpoint()
            return
        reached = anyio.Event()
        self.call_at(at, reached.set)
        await reached.wait()
