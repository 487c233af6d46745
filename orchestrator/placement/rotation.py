"""Round robin: each task to the next worker with room, whatever it is. For comparison."""

from __future__ import annotations

from collections.abc import Sequence

from .policy import WAIT, Offer


class RoundRobin:
    """Remembers who had the last task."""

    name = "round_robin"
    wide = True

    def __init__(self) -> None:
        self._last = -1

    def choose(self, offers: Sequence[Offer]) -> int:
        """See Policy."""
        room = [(offer.worker <= self._last, offer.worker, n) for n, offer in enumerate(offers) if offer.room]
        if not room:
            return WAIT
        _, self._last, chosen = min(room)
        return chosen

    def why(self, offers: Sequence[Offer], chosen: int) -> str:
        """See Policy."""
        return "round robin: the next with room"
