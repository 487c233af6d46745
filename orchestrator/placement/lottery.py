"""Random: each task to any device with room. For comparison, and the least that a policy has to be better than."""

from __future__ import annotations

from collections.abc import Sequence

from .dice import Dice
from .policy import WAIT, Offer


class Random:
    """Repeats with its seed."""

    name = "random"
    wide = True

    def __init__(self, seed: int = 0) -> None:
        self._dice = Dice(seed)

    def choose(self, offers: Sequence[Offer]) -> int:
        """See Policy."""
        room = [n for n, offer in enumerate(offers) if offer.room]
        return room[self._dice.below(len(room))] if room else WAIT

    def why(self, offers: Sequence[Offer], chosen: int) -> str:
        """See Policy."""
        return "random: any with room"
