"""What core.preemption remembers between its looks. Fleet knowledge: after a restart it looks at once."""

from __future__ import annotations


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
