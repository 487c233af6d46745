"""What a simulated world does to a run: frames lost, daemons killed, lines cut, disks full, the orchestrator crashed.

Data only, in virtual seconds from the start of the run; `bench.simulator` carries it out.
"""

from __future__ import annotations

import msgspec


class Faults(msgspec.Struct, frozen=True):
    """What goes wrong, until `until_s`. Workers are given by their place.

    `loss`, `duplicate`, `reorder`: shares of frames. `crashes`: the orchestrator dies at these decisions; `effects`:
    just before these effects (a command carried out, a commit begun or told); `aheads`: when these of the Assigns that
    ran ahead of their commit have arrived. It is back after `away_s`. `torn`: of a commit that a crash meets, any part
    may have reached the disk. `slips`: as if the core had raised on these decisions. `snapshots`: one taken then.
    `kills`: (at, worker, away for, how): "boot" the daemon is killed and keeps its disk, "power" the machine loses the
    unsynced tail of it, "stream" only its stream breaks, "half" only its end of that.
    `cuts`: (at, worker, for): nothing passes in either direction; `one_way`: (at, worker, for, "up" or "down").
    `freezes`: (at, worker, for): no progress of the daemon. `outboxes`: (at, worker, for): its disk is full.
    `disks`: (at, for, "stall" or "full") of the orchestrator. `hostile`: (at, worker, what): an authenticated worker
    speaks of another's live attempt: "report", "rejected", "call", "held", or of its own under another "fence" or
    "pin"; carried out by `bench.simulation`.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay_s: tuple[float, float] = (0.0002, 0.002)
    crashes: tuple[int, ...] = ()
    effects: tuple[int, ...] = ()
    aheads: tuple[int, ...] = ()
    away_s: float = 0.2
    torn: bool = False
    kills: tuple[tuple[float, int, float, str], ...] = ()
    cuts: tuple[tuple[float, int, float], ...] = ()
    one_way: tuple[tuple[float, int, float, str], ...] = ()
    freezes: tuple[tuple[float, int, float], ...] = ()
    outboxes: tuple[tuple[float, int, float], ...] = ()
    disks: tuple[tuple[float, float, str], ...] = ()
    snapshots: tuple[int, ...] = ()
    slips: tuple[int, ...] = ()
    hostile: tuple[tuple[float, int, str], ...] = ()
    until_s: float = 1e9
