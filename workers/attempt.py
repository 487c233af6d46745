"""One attempt on this worker: its life as a table, and what is known of it.

Invariant: an attempt is either live (in one phase of the table) or spooled (`spool`: ended, its report unacknowledged),
never both. Pure: no clock, no process.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from protocol.card import Dealt
from protocol.frame import Assign, Call
from protocol.outcome import Outcome

from .work import Work

Phase = Literal["queued", "running", "waiting", "resuming", "stopping", "ended"]
Fact = Literal["started", "asked", "answered", "resumed", "stopped", "ended"]
Grip = Literal["none", "full", "paused"]
"""What of the capacity the attempt holds: nothing, all of its need, or all but slot and cpu."""

LIFE: Final[dict[tuple[Phase, Fact], Phase]] = {
    ("queued", "started"): "running",
    ("queued", "ended"): "ended",  # cancelled, refused or handed back before it began
    ("running", "asked"): "waiting",  # join, ask, propose: others have to act first
    ("running", "stopped"): "stopping",
    ("running", "ended"): "ended",
    ("waiting", "answered"): "resuming",
    ("waiting", "stopped"): "stopping",
    ("waiting", "ended"): "ended",
    ("resuming", "resumed"): "running",
    ("resuming", "stopped"): "stopping",
    ("resuming", "ended"): "ended",
    ("stopping", "stopped"): "stopping",  # a second Cancel, or a timeout after one
    ("stopping", "answered"): "stopping",
    ("stopping", "ended"): "ended",
}


class Live(msgspec.Struct):
    """An attempt that has not ended. Times are the machine's `now`."""

    assign: Assign
    work: Work
    phase: Phase = "queued"
    grip: Grip = "none"
    dealt: Dealt = ()
    stops_at: float = 0.0
    waits_since: float = 0.0
    verdict: Outcome | None = None
    """Why it was stopped; becomes the outcome if the attempt did not end on its own."""
    on_hold: bool = False
    orphan: bool = False
    """Of another journal: it is being killed and nobody will ask for its report."""
    successor: Assign | None = None
    """The same attempt, assigned anew under a later fence: it runs when this one is gone."""
    calls: dict[int, Call] = {}
    answers: list[tuple[int, bytes, bytes]] = []
    """Answers that wait until the attempt has its slot again: (k, value, error)."""

    def move(self, fact: Fact) -> None:
        """Raises: KeyError for a move that the table does not have (a defect of the machine)."""
        self.phase = LIFE[self.phase, fact]
