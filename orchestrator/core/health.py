"""What is known of one worker's health: how often things go wrong there, and how late its word comes. Numbers only.

Outlives its streams, not the server. An event weighs a tenth of the rate it enters, so the last twenty decide. What
is late is late against the earliest of the last beats: that takes two clocks that nobody compares for one.
"""

from __future__ import annotations

from collections import deque
from typing import Final

WEIGHT: Final = 0.1
_BEATS: Final = 20
"""Beats after which what was usual is forgotten: a link may be slow for good, and a clock may have stood still."""
_BREAKS: Final = 8


class Health:
    """See the module. Run times; `why` is set while the worker is in quarantine."""

    def __init__(self) -> None:
        self.rate = 0.0
        """The share of its last attempts that went wrong in a way that others' did not."""
        self.good = 0
        """Attempts that went well since the last that did not."""
        self.delay_s = 0.0
        """How much later than usual its heartbeats come, on average."""
        self.late = 0
        """Heartbeats in a row that came too late."""
        self.breaks: deque[float] = deque(maxlen=_BREAKS)
        """When its stream broke."""
        self.why = ""
        self.until = 0.0
        """When it is tried again."""
        self.probes = 0
        """Attempts that it has to do well yet, one at a time, to be let back in."""
        self.times = 0
        """How often in a row it was put in quarantine."""
        self.cleared_at = 0.0
        self._least = self._last_least = float("inf")
        self._beats = 0

    def worse(self) -> float:
        """Something went wrong there; the rate that it now has."""
        self.rate = self.rate * (1.0 - WEIGHT) ** (self.good + 1) + WEIGHT
        self.good = 0
        return self.rate

    def beat(self, lag_s: float) -> float:
        """A heartbeat was read `lag_s` after it was written, by two clocks; how late its beats are on average."""
        if self._beats % _BEATS == 0:
            self._last_least, self._least = self._least, lag_s
        self._beats += 1
        self._least = min(self._least, lag_s)
        late_s = lag_s - min(self._least, self._last_least)
        self.delay_s += 0.3 * (late_s - self.delay_s)
        return self.delay_s

    def new_clock(self) -> None:
        """Another stream: what was usual on the last one says nothing."""
        self._least = self._last_least = float("inf")
        self._beats, self.delay_s, self.late = 0, 0.0, 0

    def broken(self, since: float) -> int:
        """How often its stream broke since then."""
        return sum(at > since for at in self.breaks)
