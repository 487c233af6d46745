"""What core.preemption and core.reservation remember between their looks. Fleet knowledge: lost with a restart."""

from __future__ import annotations

from .queue import Kind


class Room:
    """Run times."""

    def __init__(self) -> None:
        self.next_look = 0.0
        """Not before."""
        self.wakes_at = 0.0
        """A timer comes then at the latest, if that is to come."""
        self.keepers: frozenset[str] = frozenset()
        """The skills that keep checkpoints, as of `seen` changes of the fleet."""
        self.seen = -1
        self.next_reserve = 0.0
        self.kept: dict[tuple[int, int], tuple[int, Kind, float]] = {}
        """(run, task) -> the worker that is kept for it, what it waits as, and until when."""
