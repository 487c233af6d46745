"""The port of placement: who gets a ready task. Pure; settings come as frozen values in the constructor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

WAIT: Final = -1


class Offer(msgspec.Struct, frozen=True, gc=False):
    """One device that may run the task. Times in seconds from now.

    `room`: it can take the task at once. `start_s`: when it expects to be free (0 with room). `run_s`: how long the
    task is expected to run there. `transfer_s`: moving its inputs. `load`: attempts it holds.
    """

    worker: int
    device: str
    room: bool
    start_s: float
    run_s: float
    transfer_s: float = 0.0
    load: int = 0


class Policy(Protocol):
    """Chooses among offers, or waits for a better one."""

    name: str

    def choose(self, offers: Sequence[Offer]) -> int:
        """Index of the offer to take now, or WAIT. Deterministic: equal offers give equal answers."""
        ...

    def why(self, offers: Sequence[Offer], chosen: int) -> str:
        """The choice in words, for `explain`."""
        ...
