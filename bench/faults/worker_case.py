"""What befalls one worker's processes: its daemon is killed, or the process in which its skill runs.

Each round: work on the victim has begun, it is struck, its work begins elsewhere, the run ends; then the victim is
brought back under its own identity. It must not know networks.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from typing import Final

import anyio

from protocol.errors import TimedOut

from .case import Tally
from .lanes import Lanes
from .ledger import Execution
from .round import PATIENCE_S, Round, jobs, noticed

TASK_S: Final = 0.4
LEAVE_S: Final = 5.0
"""How long a daemon that was superseded may take to end: it stops what it runs."""


async def skill_killed(place: Lanes, tally: Tally, times: int) -> None:
    """SIGKILL to the process that runs the skill; its daemon reports it, the task is tried again."""
    victim = place.victims[0]
    for _ in range(times):
        run = Round(place.fleet, jobs(1, TASK_S, on=(victim,)))
        await run.submit(place.client)
        struck = (await run.begun())["t1"]
        at = time.time()
        os.kill(struck.pid, signal.SIGKILL)
        again = await run.begun_again({"t1": struck})
        await run.finish(place.client)
        tally.add(run.account())
        ended = next(row for row in run.rows if row["kind"] == "attempt_ended")
        tally.note(detect_s=float(ended["at"]) - at, reassign_s=again - at, recover_s=run.settled_at() - at)


async def worker_killed(place: Lanes, tally: Tally, times: int) -> None:
    """SIGKILL to the daemon with two tasks; it is started again once the run has gone on without it."""
    for number in range(times):
        victim = place.victims[number % len(place.victims)]
        work = [place.job(victim, f"t{n}", n, seconds=TASK_S) for n in (1, 2)]
        run, held = await place.begin(work)
        at = time.time()
        place.fleet.kill_worker(victim)
        seen, again = await gone_on(place, run, victim, held)
        await run.finish(place.client)
        tally.add(run.account())
        tally.note(detect_s=seen - at, reassign_s=again - at, recover_s=run.settled_at() - at)
        await place.fleet.restart_worker(place.client, victim)
        await place.back(victim)


async def gone_on(place: Lanes, run: Round, victim: str, held: Mapping[str, Execution]) -> tuple[float, float]:
    """Wait until the server has noticed, and until the victim's work has begun elsewhere; when that was."""
    seen: list[float] = []

    async def look() -> None:
        seen.append(await noticed(place.client, victim))

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        again = await run.begun_again(held)
    return seen[0], again


async def twins(place: Lanes, tally: Tally, times: int) -> None:
    """A second daemon with the victim's identity starts, as on a copied machine, and is the worker from then on.

    What the older one held and the newer knows nothing of is given out again; spans count from the start of its
    process, which takes most of them. At last, but not in the quick form, each is started again whenever the other took
    over, as a service manager would: `detect_s` is until the orchestrator names the two.
    """
    victim = place.victims[0]
    for _ in range(times):
        gate = place.gate()
        run, held = await place.begin([place.job(victim, f"t{n}", n, until=str(gate)) for n in (1, 2)])
        at = time.time()
        copy = await place.fleet.start_copy(place.client, victim)
        again = await run.begun_again(held)
        gate.touch()
        await run.finish(place.client)
        tally.add(run.account())
        tally.note(reassign_s=again - at, recover_s=run.settled_at() - at)
        stays = not await place.fleet.ended(victim, LEAVE_S)
        tally.figure("daemons_that_stay", stays + (not await place.fleet.ended(copy, 0.0)))
        place.fleet.kill_worker(copy)
        await place.fleet.restart_worker(place.client, victim)
        await place.back(victim)
    if times > 1:
        tally.note(detect_s=await _flap(place, victim))
        await place.back(victim)


async def _flap(place: Lanes, worker: str) -> float:
    """Two daemons take over from each other until they are named; seconds until then."""
    began, named = time.time(), 0.0

    async def again() -> None:
        while True:
            copy = await place.fleet.start_copy(place.client, worker)
            await place.fleet.ended(worker, LEAVE_S)
            await place.fleet.restart_worker(place.client, worker)
            await place.fleet.ended(copy, LEAVE_S)

    async with anyio.create_task_group() as group:
        group.start_soon(again)
        named = await _named(place, worker, began)
        group.cancel_scope.cancel()
    for one in (worker, f"{worker}-copy"):
        place.fleet.kill_worker(one)
    await place.fleet.restart_worker(place.client, worker)
    return named - began


async def _named(place: Lanes, worker: str, after: float) -> float:
    """Wait until the fleet's events say that two daemons are this worker; when they do. Raises: TimedOut."""
    with anyio.move_on_after(PATIENCE_S):
        async for row in place.client.fleet_events():
            if row.get("code") == "TwoDaemons" and row["source"] == f"worker:{worker}" and row["at"] > after:
                return float(row["at"])
    raise TimedOut(f"nobody was told of the two daemons of {worker} in {PATIENCE_S:g} s")
