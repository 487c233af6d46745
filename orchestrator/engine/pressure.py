"""How far the disk is behind what was decided, and what has to wait until it has caught up.

Invariant: what is decided and not on disk is bounded. While the disk is full, or the queue to it is over HOLD_EVENTS,
nothing new is dispatched, requests that would have to be written down are refused at once, and log lines are let go and
counted; what workers report is still taken, since they keep it anyway. It must not know what is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from protocol.errors import Overloaded, Unavailable

from ..core.stimulus import DiskState
from ..instrument import Instrument

HOLD_EVENTS: Final = 100_000
"""A second or two of a healthy disk's work."""
LOG_LINES: Final = 20_000
"""Lines that may wait for a disk that is behind."""


class Pressure:
    """`waiting` counts events that were appended and are not on disk; `full` is what the journal said last."""

    def __init__(self, post: Callable[[DiskState], None], instrument: Instrument, hold: int = 0) -> None:
        self.full = False
        self.waiting = 0
        self._post = post
        self._instrument = instrument
        self._hold = hold or HOLD_EVENTS
        self._held = False

    def appended(self, events: int) -> None:
        self.waiting += events
        self._weigh()

    def committed(self, events: int) -> None:
        self.waiting -= events
        self._weigh()

    def disk_full(self, full: bool) -> None:
        self._instrument.count("disk_full" if full else "disk_has_room")
        self.full = full
        self._weigh()

    def admit(self) -> None:
        """Raises: Unavailable while the disk is full, Overloaded while it is too far behind."""
        if self.full:
            raise Unavailable(
                "the disk of the server is full: nothing new can be written down",
                hint="make room there (asterism gc removes what no run needs); what was accepted is kept and goes on",
            )
        if self._held:
            raise Overloaded(
                f"the disk of the server is {self.waiting:,} events behind", hint="try again in a few seconds"
            )

    def takes_line(self, queued: int) -> bool:
        """Whether one more log line may wait."""
        if queued < LOG_LINES and not (self.full or self._held):
            return True
        self._instrument.count("log_lines_let_go")
        return False

    def warnings(self) -> tuple[str, ...]:
        if self.full:
            return ("the disk is full: nothing is acknowledged or started until there is room",)
        if self._held:
            return (f"the disk is {self.waiting:,} events behind: nothing new is started until it has caught up",)
        return ()

    def _weigh(self) -> None:
        held = self.full or self.waiting > (self._hold // 2 if self._held else self._hold)
        if held != self._held:
            self._held = held
            self._post(DiskState(held))
