"""The cheapest device that still ends in time: price or energy first, once the deadline allows it.

Of the offers that end by the task's latest end, the one that costs least, of equals the one that ends first; where none
does, the one that ends first, as if nothing were preferred. Without a deadline every offer ends in time. So a run is
slowed as far as its deadline lets it, and no further (row S10: a deadline at least cost).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from .policy import WAIT, Offer

Prefer = Literal["time", "price", "energy"]
SPARED: Final = 0.9
"""Of the time that a deadline leaves, the part that is used: predictions err."""


class Thrift:
    """One task's choice. `due_s`: seconds from now by which it must end, so that what hangs on it ends in time."""

    wide = False

    def __init__(self, prefer: Prefer, due_s: float) -> None:
        self.name: str = prefer
        self._due_s = due_s

    def best(self, offers: Sequence[Offer]) -> int:
        """The offer it wants, with room or without."""
        chosen, least = WAIT, (2, 0.0, 0.0)
        for n, offer in enumerate(offers):
            end_s = _end_s(offer)
            cost = offer.energy_j if self.name == "energy" else offer.price
            key = (0, cost, end_s) if end_s <= self._due_s else (1, end_s, cost)
            if key < least:
                chosen, least = n, key
        return chosen

    def choose(self, offers: Sequence[Offer]) -> int:
        """See Policy."""
        best = self.best(offers)
        return best if best != WAIT and offers[best].room else WAIT

    def why(self, offers: Sequence[Offer], chosen: int) -> str:
        """See Policy."""
        offer = offers[chosen]
        end_s = _end_s(offer)
        if end_s > self._due_s:
            return f"{self.name}: none ends within {max(0.0, self._due_s):.3g} s, this one first: in {end_s:.3g} s"
        cost = f"{offer.energy_j:.3g} J" if self.name == "energy" else f"{offer.price:.3g}"
        return f"{self.name}: {cost}, the least of {len(offers)}, ends in {end_s:.3g} s"


def _end_s(offer: Offer) -> float:
    return max(offer.start_s, offer.transfer_s) + offer.run_s
