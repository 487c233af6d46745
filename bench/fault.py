"""What a simulated world does to a run: frames lost, daemons killed, links cut, the orchestrator crashed. Data only."""

from __future__ import annotations

import msgspec


class Faults(msgspec.Struct, frozen=True):
    """What goes wrong, until `until_s`. Times in virtual seconds from the start.

    `loss`: share of frames lost. `crashes`: the orchestrator dies at these decisions. `kills`: (at, worker index,
    away for, "boot" or "stream"): the daemon dies and comes back with another boot id, or only its stream breaks.
    `cuts`: (at, worker index, for): nothing passes in either direction.
    """

    loss: float = 0.0
    delay_s: tuple[float, float] = (0.0002, 0.002)
    crashes: tuple[int, ...] = ()
    kills: tuple[tuple[float, int, float, str], ...] = ()
    cuts: tuple[tuple[float, int, float], ...] = ()
    until_s: float = 1e9
