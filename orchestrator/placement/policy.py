"""The port of placement: who gets a ready task. Pure; settings come as frozen values in the constructor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

WAIT: Final = -1


class Offer(msgspec.Struct, frozen=True, gc=False):
    """One device that may run the task. Times in seconds from now.

    `room`: it can take the task at once. `start_s`: when it expects to be free for it, behind those that wait for it
    already (0 with room). `run_s`: how long the task is expected to run there. `transfer_s`: moving its inputs, `bytes`
    of them. `load`: attempts it holds. `price` and `energy_j` (joules) are those of the whole run there. `cold`: what
    the run has loaded or cached for such tasks is on another device.
    """

    worker: int
    device: str
    room: bool
    start_s: float
    run_s: float
    transfer_s: float = 0.0
    load: int = 0
    bytes: int = 0
    price: float = 0.0
    energy_j: float = 0.0
    cold: bool = False


class Policy(Protocol):
    """Chooses among offers, or waits for a better one."""

    name: str
    wide: bool
    """It wants to see every device, not the candidates only: a decision costs more the more there are."""

    def choose(self, offers: Sequence[Offer]) -> int:
        """Index of the offer to take now, or WAIT. No clock and no luck but a seed: the same offers in the same order
        give the same answers."""
        ...

    def why(self, offers: Sequence[Offer], chosen: int) -> str:
        """The choice in words, for `explain`."""
        ...
