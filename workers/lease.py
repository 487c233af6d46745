"""This worker's lease: how long it may believe that the orchestrator waits for it, and when it heartbeats.

Invariant: the lease runs from the *sending* of what was acknowledged last (Hello or a heartbeat), so it ends here
before it ends at the orchestrator. Pure: `now` is an argument, and it runs on while the machine sleeps.
"""

from __future__ import annotations

from typing import Final

from protocol.frame import Welcome
from protocol.link import NORMAL, Timing, worker_fence

SILENCE_LEASES: Final = 3.0
"""Without any frame for so many leases the stream is given up, whatever the transport believes."""


class Lease:
    """One per machine, over all its streams."""

    def __init__(self) -> None:
        self._times = NORMAL
        self._hello_at = self._heard_at = 0.0
        self.greeting = False
        """Hello is said and no Welcome has come."""
        self._next_beat = 0.0
        self._until = float("-inf")

    def hasten(self, now: float) -> None:
        """Something that the orchestrator should know soon: the next beat is due."""
        self._next_beat = now

    @property
    def next_beat(self) -> float:
        return self._next_beat

    def over(self, now: float) -> bool:
        return now >= self._until

    def greeted(self, now: float) -> None:
        """Hello is said now."""
        self.greeting = True
        self._hello_at = self._heard_at = now

    def ended(self) -> None:
        """The stream is over."""
        self.greeting = False

    def heard(self, now: float) -> None:
        self._heard_at = now

    def welcomed(self, item: Welcome, now: float) -> None:
        self.greeting = False
        self._times = Timing(heartbeat_s=item.heartbeat_s, lease_s=item.lease_s)
        self._until = worker_fence(self._hello_at, self._times)
        self._next_beat = now + item.heartbeat_s

    def acknowledged(self, at: float, now: float) -> None:
        """A heartbeat that was sent at `at` was answered; one from the future was never sent."""
        if at <= now:
            self._until = max(self._until, worker_fence(at, self._times))

    @property
    def silent_at(self) -> float:
        """When the stream is given up unless something is heard."""
        return self._heard_at + SILENCE_LEASES * self._times.lease_s

    def silent(self, now: float) -> bool:
        return now >= self.silent_at

    def beats(self, now: float) -> bool:
        """Whether a heartbeat is due; the next is a period from now."""
        if now < self._next_beat:
            return False
        self._next_beat = now + self._times.heartbeat_s
        return True
