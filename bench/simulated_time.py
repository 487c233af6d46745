"""Virtual time: what is due, in order, and one source of luck. Nothing here waits and nothing reads a real clock.

Invariant: two things due at the same instant happen in the order in which they were asked for, so a seed repeats
exactly.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any


class SimulatedTime:
    """The clock and the agenda of one simulated world."""

    def __init__(self, seed: int) -> None:
        self.luck = random.Random(seed)
        self.now = 100.0
        self.happenings = 0
        self._queue: list[tuple[float, int, Callable[[], Any]]] = []
        self._ordered = 0

    def at(self, when: float, act: Callable[[], Any]) -> None:
        """Do it then; at once, but after everything that is due already, when `when` is not later than now."""
        self._ordered += 1
        heapq.heappush(self._queue, (when, self._ordered, act))

    def advance(self, seconds: float) -> None:
        """Let this much virtual time pass."""
        self.run_until(self.now + seconds, lambda: False)

    def run_until(self, until: float, enough: Callable[[], bool]) -> bool:
        """Let time pass until `enough`, at most until `until`; whether it was enough."""
        queue = self._queue
        while queue and queue[0][0] <= until:
            if enough():
                return True
            at, _, act = heapq.heappop(queue)
            if at > self.now:
                self.now = at
            self.happenings += 1
            act()
        if enough():
            return True
        self.now = until
        return False
