"""How much one worker stream may say, and how often one worker may come: token buckets, on a clock that is handed in.

Whatever is over the rate may be dropped, because everything on the link is said again while it is owed (calls), or was
lossy to begin with (progress), or says nothing new (heartbeats). Frames are not dropped: their stream is read more
slowly, and its sender waits. Invariant: what a stream makes the core do is bounded by time, not by its sender. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from protocol.frame import Call, Heartbeat, Progress

FRAMES: Final = (2_000.0, 4_000.0)
"""Frames a second, and at once; at 64 items each that is more than a core can settle."""
RATES: Final[Mapping[type, tuple[float, float]]] = MappingProxyType(
    {
        Heartbeat: (4.0, 16.0),
        Call: (2_000.0, 8_000.0),
        Progress: (4_000.0, 16_000.0),
    }
)
"""(items a second, and at once) of a stream. Reports are bounded by what was assigned, and by what the core forgives:
`orchestrator.core.reconcile.JUNK_MOST`."""
HELLOS: Final = (1.0, 6.0)
"""(a second, at once) of one worker, whatever becomes of the streams."""


class Bucket:
    """Full at first; `rate` a second flow in, at most `burst` are in it."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._at = now

    def take(self, now: float) -> bool:
        """Take one, if there is one."""
        self._fill(now)
        if self._level < 1.0:
            return False
        self._level -= 1.0
        return True

    def owe(self, now: float) -> float:
        """Take one in any case; how long to wait until it was there."""
        self._fill(now)
        self._level -= 1.0
        return max(0.0, -self._level / self._rate)

    def wait_s(self, now: float) -> float:
        """How long until one can be taken."""
        self._fill(now)
        return max(0.0, (1.0 - self._level) / self._rate)

    def full(self, now: float) -> bool:
        self._fill(now)
        return self._level >= self._burst

    def _fill(self, now: float) -> None:
        self._level = min(self._burst, self._level + max(0.0, now - self._at) * self._rate)
        self._at = now


class Pace:
    """One stream."""

    def __init__(self, now: float) -> None:
        self._frames = Bucket(*FRAMES, now)
        self._items = {kind: Bucket(*rate, now) for kind, rate in RATES.items()}

    def frame(self, now: float) -> float:
        """A frame has come; how long to wait before the next is read."""
        return self._frames.owe(now)

    def admits(self, kind: type, now: float) -> bool:
        """Whether one more item of this kind is heard."""
        bucket = self._items.get(kind)
        return bucket is None or bucket.take(now)
