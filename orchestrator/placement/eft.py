"""Earliest finish time: each task to the device that is expected to finish it first (Topcuoglu et al., TPDS 2002).

Binding is late: a device without room may still win, and then the task waits for it in the orchestrator's queue
rather than at the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .policy import WAIT, Offer

SPARE: Final = 0.3
"""So much of its run time may a task end later where that moves fewer bytes: on recorded workflows it costs nothing."""


class Eft:
    """`finish = max(start, transfer) + run`; ties go to the lighter load, then to the order of the offers. Of those
    that have room and end a little later the one wins to which the fewest bytes move."""

    name = "eft"
    wide = False

    def choose(self, offers: Sequence[Offer]) -> int:
        """See Policy."""
        best, chosen = (float("inf"), 0.0, 0), WAIT
        for index, offer in enumerate(offers):
            key = (max(offer.start_s, offer.transfer_s) + offer.run_s, 0.0 if offer.room else 1.0, offer.load)
            if key < best:
                best, chosen = key, index
        if chosen != WAIT and (least := offers[chosen].bytes):
            last = best[0] + SPARE * offers[chosen].run_s
            for index, offer in enumerate(offers):
                if offer.bytes < least and offer.room and max(offer.start_s, offer.transfer_s) + offer.run_s <= last:
                    least, chosen = offer.bytes, index
        return chosen if chosen != WAIT and offers[chosen].room else WAIT

    def why(self, offers: Sequence[Offer], chosen: int) -> str:
        """See Policy."""
        offer = offers[chosen]
        finish = max(offer.start_s, offer.transfer_s) + offer.run_s
        return f"eft: finish in {finish:.3g} s, first of {len(offers)}"
