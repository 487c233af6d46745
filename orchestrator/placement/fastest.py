"""Fastest device only: each task where it runs in the least time, however long it waits for that. For comparison, and
one of a portfolio: where work can't be split it is the best there is."""

from __future__ import annotations

from collections.abc import Sequence

from .policy import WAIT, Offer


class Fastest:
    """Ties go to who has room, then to the lighter load."""

    name = "fastest"
    wide = False

    def choose(self, offers: Sequence[Offer]) -> int:
        """See Policy."""
        chosen = min(range(len(offers)), key=lambda n: (offers[n].run_s, not offers[n].room, offers[n].load))
        return chosen if offers[chosen].room else WAIT

    def why(self, offers: Sequence[Offer], chosen: int) -> str:
        """See Policy."""
        return f"fastest: runs {offers[chosen].run_s:.3g} s there"
