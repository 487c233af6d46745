"""Where worker streams come in: a few a turn of the loop, so that a fleet that comes back at once starves nobody.

A stream waits here before its Hello is read. Who would wait too long is told when to come again instead; who comes
again and again is told so, too. Invariant: a turn of the loop lets at most `WIDTH` in, and no more than `MOST` wait,
whatever happens outside. It must not know what a Hello says.
"""

from __future__ import annotations

from typing import Final

import anyio
import anyio.lowlevel

from .pace import HELLOS, Bucket

WIDTH: Final = 4
PATIENCE_S: Final = 2.0
"""Who would wait longer goes, and comes again; what a worker's own lease leaves of the time until its Welcome."""
MOST: Final = 2_000
REMEMBERED: Final = 4_096


class Door:
    """`enter` and `leave` around the reading of a Hello. `luck` spreads those who are told to come again."""

    def __init__(self) -> None:
        self._turnstile = anyio.Semaphore(WIDTH, fast_acquire=False)
        self._waiting = 0
        self._a_turn_s = 0.002
        """What letting one in takes of late, with all that the loop does besides."""
        self._left_at = 0.0
        self._visits: dict[int, Bucket] = {}

    def often(self, worker: int, now: float) -> float:
        """How long this worker must stay away, as it has come too often; 0: it may come."""
        bucket = self._visits.get(worker)
        if bucket is None:
            if len(self._visits) >= REMEMBERED:
                self._visits = {key: one for key, one in self._visits.items() if not one.full(now)}
            bucket = self._visits[worker] = Bucket(*HELLOS, now)
        return 0.0 if bucket.take(now) else bucket.wait_s(now)

    def busy(self, luck: float) -> float:
        """When to come again, as too many wait already; 0: come in."""
        wait_s = self._waiting * self._a_turn_s
        if wait_s <= PATIENCE_S and self._waiting < MOST:
            return 0.0
        return wait_s * (0.5 + luck)

    async def enter(self) -> None:
        """Wait for a turn of the loop that has room."""
        self._waiting += 1
        crowded = self._waiting > WIDTH
        try:
            async with self._turnstile:
                await anyio.lowlevel.checkpoint()
        finally:
            self._waiting -= 1
        now = anyio.current_time()
        if crowded:
            self._a_turn_s += 0.1 * (min(0.1, max(0.0, now - self._left_at)) - self._a_turn_s)
        self._left_at = now
