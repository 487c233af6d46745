"""Earliest finish time: each task to the device that is expected to finish it first (Topcuoglu et al., TPDS 2002).

Binding is late: a device without room may still win, and then the task waits for it in the orchestrator's queue
rather than at the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .policy import WAIT, Offer

SPARE: Final = 0.3
"""So much of its run time may a task end later where that finds a warm state or moves fewer bytes: by bytes it costs
nothing on recorded workflows."""


class Eft:
    """`finish = max(start, transfer) + run`; ties go to the lighter load, then to the order of the offers. Of those
    that have room and end a little later one wins that has the run's state warm, then the one to which the fewest bytes
    move."""

    name = "eft"
    wide = False

    def choose(self, offers: Sequence[Offer]) -> int:
        """See Policy."""
        best, chosen = (float("inf"), 0.0, 0), WAIT
        for index, offer in enumerate(offers):
            key = (max(offer.start_s, offer.transfer_s) + offer.run_s, 0.0 if offer.room else 1.0, offer.load)
            if key < best:
                best, chosen = key, index
        if chosen != WAIT and (offers[chosen].bytes or offers[chosen].cold):
            least = offers[chosen].cold, offers[chosen].bytes
            last = best[0] + SPARE * offers[chosen].run_s
            for index, offer in enumerate(offers):
                has = offer.cold, offer.bytes
                if has < least and offer.room and max(offer.start_s, offer.transfer_s) + offer.run_s <= last:
                    least, chosen = has, index
        return chosen if chosen != WAIT and offers[chosen].room else WAIT

    def why(self, offers: Sequence[Offer], chosen: int) -> str:
        """See Policy."""
        offer = offers[chosen]
        finish = max(offer.start_s, offer.transfer_s) + offer.run_s
        return f"eft: finish in {finish:.3g} s, first of {len(offers)}"
