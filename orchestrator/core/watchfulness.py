"""What core.straggler remembers between its looks: when it looks again, and what each run has spent on copies.

Known to no journal: after a restart the first copy of a run is free once more, and nothing else is different.
"""

from __future__ import annotations


class Watchfulness:
    """Run times, and seconds of work."""

    def __init__(self) -> None:
        self.next_look = 0.0
        """Not before."""
        self.looked_at = float("-inf")
        """When the last look was, if it has found nothing late among all that was live."""
        self.next_move = 0.0
        """Not before is looked for attempts that are only slow."""
        self.place = 0
        """Where in the list of those that are late the next look begins, if it can't weigh them all."""
        self.wakes_at = 0.0
        """A timer comes then at the latest, if that is to come."""
        self.done_s: dict[int, float] = {}
        """Run -> seconds that its successful attempts took."""
        self.copied_s: dict[int, float] = {}
        """Run -> seconds that copies of its attempts took in vain, or are expected to take."""

    def charge(self, run: int, seconds: float) -> None:
        """A copy is to take so long; or it took so much longer or less, or won and cost nothing."""
        self.copied_s[run] = self.copied_s.get(run, 0.0) + seconds
