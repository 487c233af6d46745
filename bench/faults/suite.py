"""`asterism bench faults`: real processes, broken again and again; which cases there are, and in what groups they run.

A group shares one fleet and may measure several cases at once. Invariant: whatever happens, every process, namespace
and mount that a group made is gone when it ends. It must not know how a fault is made, nor how its numbers are shown.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

from protocol.errors import UsageError

from ..guard import Guard, guarded
from .answer import Answer, Skipped
from .case import Tally
from .lanes import lanes
from .server_case import server_killed
from .silence_case import Blow, Way, silence
from .worker_case import skill_killed, worker_killed

Say = Callable[[str], None]
KILLS: Final = 100
"""How often the whole form does each fault."""

FAULTS: Final[Mapping[str, tuple[str, Mapping[str, float]]]] = {
    "skill-killed": ("skill process killed", {"detect_s": 0.1}),
    "worker-killed": ("worker killed, back as the same", {"reassign_s": 0.5}),
    "worker-gone": ("worker killed, stays away", {"reassign_s": 0.5}),
    "worker-gone-once": ("worker killed, stays away: once", {"reassign_s": 6.0}),
    "frozen": ("worker frozen", {"reassign_s": 3.0}),
    "frozen-once": ("worker frozen: once", {"reassign_s": 6.0}),
    "cut": ("partition, both ways", {"reassign_s": 3.5}),
    "cut-once": ("partition, both ways: once", {"reassign_s": 6.0}),
    "cut-up": ("partition, worker to server", {"reassign_s": 3.5}),
    "cut-up-once": ("partition, worker to server: once", {"reassign_s": 6.0}),
    "cut-down": ("partition, server to worker", {"reassign_s": 3.5}),
    "cut-down-once": ("partition, server to worker: once", {"reassign_s": 6.0}),
    "server-killed": ("orchestrator killed in a run", {"reassign_s": 2.0, "finished_ran_again": 0}),
}
"""By name: in words, and the promised bounds."""
_WAYS: Final[Mapping[str, Way]] = {
    "worker-gone": "kill", "frozen": "freeze", "cut": "both", "cut-up": "up", "cut-down": "down",
}  # fmt: skip

Tallies = dict[str, Tally]


async def _workers(guard: Guard, tallies: Tallies, times: int) -> None:
    async with lanes(guard.folder, 2) as place:
        if "skill-killed" in tallies:
            await skill_killed(place, tallies["skill-killed"], times)
        if "worker-killed" in tallies:
            await worker_killed(place, tallies["worker-killed"], times)


async def _silence(guard: Guard, tallies: Tallies, times: int) -> None:
    """Two victims for each way where there are many rounds to do: a round takes as long as a lease."""
    blows = []
    for name, way in _WAYS.items():
        found = {kind: tallies[key] for kind, key in (("pure", name), ("once", f"{name}-once")) if key in tallies}
        blows += [Blow(way, found)] * min(2, times) if found else []
    async with lanes(guard.folder, len(blows)) as place:
        await silence(place, blows, -(-times // min(2, times)))


async def _server(guard: Guard, tallies: Tallies, times: int) -> None:
    await server_killed(guard.folder, tallies["server-killed"], times)


class Group(msgspec.Struct, frozen=True):
    """Cases that run together; `quick` and `full` are how often each fault is done."""

    cases: tuple[str, ...]
    run: Callable[[Guard, Tallies, int], Awaitable[None]]
    quick: int = 1
    full: int = KILLS
    missing: Callable[[], str] = lambda: ""
    """Why this machine can't show it; "" if it can."""


GROUPS: Final = (
    Group(("skill-killed", "worker-killed"), _workers, quick=2),
    Group(tuple(key for name in _WAYS for key in (name, f"{name}-once")), _silence),
    Group(("server-killed",), _server),
)


async def faults(cases: Sequence[str], repeat: int | None, quick: bool, say: Say) -> Answer:
    """Do them all, or those of `cases`. Raises: UsageError for one that there is not."""
    if unknown := [name for name in cases if name not in FAULTS]:
        raise UsageError(f"there is no case {', '.join(unknown)}", hint=f"the cases are: {' '.join(FAULTS)}")
    began = time.monotonic()
    tallies: Tallies = {}
    skipped: list[Skipped] = []
    with guarded("asterism-faults-") as guard:
        for group in GROUPS:
            wanted = [name for name in group.cases if not cases or name in cases]
            why = group.missing()
            if why:
                skipped += [Skipped(name, why) for name in wanted]
            elif wanted:
                found = {name: Tally(name, *FAULTS[name]) for name in wanted}
                times = repeat or (group.quick if quick else group.full)
                say(f"{', '.join(wanted)}: {times} times")
                await group.run(guard, found, times)
                tallies |= found
    return Answer(
        tuple(tally.of() for tally in tallies.values()),
        tuple(skipped),
        os.cpu_count() or 1,
        round(time.monotonic() - began, 1),
    )
