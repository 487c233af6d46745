"""`asterism bench faults`: real processes, broken again and again; which cases there are, and in what groups they run.

A group shares one fleet and may measure several cases at once. Invariant: whatever happens, every process, namespace
and mount that a group made is gone when it ends. It must not know how a fault is made, nor how its numbers are shown.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import anyio
import msgspec

from orchestrator.runtime import alone
from protocol.errors import UsageError

from ..guard import Guard, guarded
from . import namespace, small_disk
from .answer import Answer, Skipped
from .case import Tally
from .crowd_case import reconnect
from .disk_case import server_disk_full, worker_disk_full
from .lanes import lanes
from .replay_case import LONG, QUICK, replay
from .server_case import server_killed
from .silence_case import Blow, Way, silence
from .soak_case import soak
from .watcher_case import slow_watcher
from .worker_case import skill_killed, twins, worker_killed

Say = Callable[[str], None]
KILLS: Final = 100
FEW: Final = 5
"""How often the whole form does each fault: kills and cuts, and what takes long."""

SOAK_S: Final = 300.0
QUICK_SOAK_S: Final = 15.0

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
    "cut-down-once": ("partition, server to worker: once", {"reassign_s": 7.75}),
    "twins": ("two daemons with one identity", {"daemons_that_stay": 1}),
    "reconnect": ("500 workers reconnect at once", {"recover_s": 3.0}),
    "server-killed": ("orchestrator killed in a run", {"reassign_s": 2.0, "finished_ran_again": 0}),
    "disk-full": ("no room for the journal", {"shown_while_full": 0}),
    "worker-disk-full": ("no room at a worker", {}),
    "slow-watcher": ("a watcher that doesn't read", {"recover_s": 1.0}),
    "replay": ("replay of a long journal", {"replay_10k_s": 1.0, "replay_1m_s": 30.0}),
    "soak": (
        "50 workers join and leave",
        {"more_mib": 10.0, "more_descriptors": 2, "more_threads": 2, "more_loop_tasks": 2},
    ),
}
"""By name: in words, and the promised bounds."""
_WAYS: Final[Mapping[str, Way]] = {
    "worker-gone": "kill", "frozen": "freeze", "cut": "both", "cut-up": "up", "cut-down": "down",
}  # fmt: skip

Tallies = dict[str, Tally]


class Plan(msgspec.Struct, frozen=True):
    """What every group is told."""

    guard: Guard
    quick: bool
    soak_s: float


async def _workers(plan: Plan, tallies: Tallies, times: int) -> None:
    acts = {"skill-killed": skill_killed, "worker-killed": worker_killed, "twins": twins}
    async with lanes(plan.guard, 2) as place:
        for name, tally in tallies.items():
            await acts[name](place, tally, times if name != "twins" else min(times, FEW))


async def _silence(plan: Plan, tallies: Tallies, times: int) -> None:
    """Two victims for each way where there are many rounds to do: a round takes as long as a lease."""
    blows = []
    for name, way in _WAYS.items():
        found = {kind: tallies[key] for kind, key in (("pure", name), ("once", f"{name}-once")) if key in tallies}
        blows += [Blow(way, found)] * min(2, times) if found else []
    async with lanes(plan.guard, len(blows), spaces=not namespace.missing()) as place:
        await silence(place, blows, -(-times // min(2, times)))


async def _server(plan: Plan, tallies: Tallies, times: int) -> None:
    await server_killed(plan.guard.folder, tallies["server-killed"], times)


async def _reconnect(plan: Plan, tallies: Tallies, times: int) -> None:
    await reconnect(plan.guard.folder, tallies["reconnect"], times)


async def _server_disk(plan: Plan, tallies: Tallies, times: int) -> None:
    await server_disk_full(plan.guard, tallies["disk-full"], times)


async def _worker_disk(plan: Plan, tallies: Tallies, times: int) -> None:
    await worker_disk_full(plan.guard, tallies["worker-disk-full"], times)


async def _watcher(plan: Plan, tallies: Tallies, times: int) -> None:
    await slow_watcher(plan.guard.folder, tallies["slow-watcher"], times)


async def _replay(plan: Plan, tallies: Tallies, times: int) -> None:
    await replay(plan.guard.folder, tallies["replay"], times, QUICK if plan.quick else LONG)


async def _soak(plan: Plan, tallies: Tallies, times: int) -> None:
    await soak(plan.guard.folder, tallies["soak"], plan.soak_s)


class Group(msgspec.Struct, frozen=True):
    """Cases that run together; `quick` and `full` are how often each fault is done."""

    cases: tuple[str, ...]
    run: Callable[[Plan, Tallies, int], Awaitable[None]]
    quick: int = 1
    full: int = KILLS
    aside: bool = False
    """In the quick form it runs beside the others: it takes long and is not timed."""
    missing: Callable[[], str] = lambda: ""
    """Why this machine can't show it; "" if it can."""


GROUPS: Final = (
    Group(("skill-killed", "worker-killed", "twins"), _workers),
    Group(tuple(key for name in _WAYS for key in (name, f"{name}-once")), _silence),
    Group(("server-killed",), _server),
    Group(("reconnect",), _reconnect, full=FEW),
    Group(("disk-full",), _server_disk, full=FEW, missing=small_disk.missing),
    Group(("worker-disk-full",), _worker_disk, full=FEW, missing=small_disk.missing),
    Group(("slow-watcher",), _watcher, full=FEW),
    Group(("replay",), _replay, full=FEW),
    Group(("soak",), _soak, full=1, aside=True),
)


async def faults(
    cases: Sequence[str], repeat: int | None, quick: bool, say: Say, soak_s: float | None = None
) -> Answer:
    """Do them all, or those of `cases`. Raises: UsageError for one that there is not."""
    if unknown := [name for name in cases if name not in FAULTS]:
        raise UsageError(f"there is no case {', '.join(unknown)}", hint=f"the cases are: {' '.join(FAULTS)}")
    began = time.monotonic()
    wanted = {group: [name for name in group.cases if not cases or name in cases] for group in GROUPS}
    skipped = [Skipped(name, why) for group, names in wanted.items() if (why := group.missing()) for name in names]
    tallies = {name: Tally(name, *FAULTS[name]) for name in FAULTS if name not in {one.case for one in skipped}}
    done: Tallies = {}

    async def do(group: Group, plan: Plan) -> None:
        found = {name: tallies[name] for name in wanted[group] if name in tallies}
        if found:
            times = repeat or (group.quick if quick else group.full)
            say(f"{', '.join(found)}: {times} times")
            await group.run(plan, found, times)
            done.update(found)

    with guarded("asterism-faults-") as guard:
        plan = Plan(guard, quick, soak_s or (QUICK_SOAK_S if quick else SOAK_S))
        try:
            async with anyio.create_task_group() as beside:
                for group in GROUPS:
                    if quick and group.aside:
                        beside.start_soon(do, group, plan)
                for group in GROUPS:
                    if not (quick and group.aside):
                        await do(group, plan)
        except BaseExceptionGroup as error:
            raise alone(error) from None
    return Answer(
        tuple(done[name].of() for name in FAULTS if name in done),
        tuple(skipped),
        os.cpu_count() or 1,
        round(time.monotonic() - began, 1),
        f"simulated by a forwarding process ({why})" if (why := namespace.missing()) else "network namespaces, TLS",
    )
