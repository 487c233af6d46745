"""A disk without room: the orchestrator's journal stands still and says so, a worker's outbox waits; then it has room.

Nothing may be lost meanwhile, nothing may be shown that is not on disk, and all goes on by itself. It must not know how
a disk is made small.
"""

from __future__ import annotations

import time
from typing import Final

import anyio

from orchestrator.client.client import AsyncClient
from protocol.errors import TimedOut

from ..guard import Guard
from ..scenario import Machine, Scenario
from .account import Account
from .case import Tally
from .lanes import SKILLS
from .round import ASK_S, PATIENCE_S, Job, Round, jobs
from .small_disk import SmallDisk, small_disk

TASKS: Final = 100
TASK_S: Final = 0.06
FULL_AFTER: Final = 20
"""So many tasks have ended when the disk is filled."""
FULL_S: Final = 1.0
LARGE: Final = 200_000
"""Bytes of a result that a worker keeps in a file of its own until it is fetched."""


async def server_disk_full(guard: Guard, tally: Tally, times: int) -> None:
    """`detect_s`: until the server says that there is no room; `recover_s`: from room until something is settled."""
    for _ in range(times):
        fleet = Scenario(guard.folder)
        with small_disk(guard, fleet.journal_folder) as disk:
            async with fleet, fleet.client() as client:
                for name in ("worker1", "worker2"):
                    await fleet.start_worker(client, Machine(name, 2, resources=("cpu=2",), skills=(SKILLS,)))
                await fleet.joined(client, "worker1", "worker2")
                await _fill(fleet, client, disk, tally)


async def _fill(fleet: Scenario, client: AsyncClient, disk: SmallDisk, tally: Tally) -> None:
    run = Round(fleet, jobs(TASKS, TASK_S))
    await run.submit(client)
    shown: dict[str, float] = {}

    async def watch() -> None:
        async for row in client.events(run.run, kinds=["task_settled", "run_settled"]):
            shown[row.get("task", "")] = time.time()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await run.ledger.until(lambda by: len(by) > FULL_AFTER)
        disk.fill()
        full = time.time()
        await _said(client, "disk_full")
        said = time.time()
        await anyio.sleep(FULL_S)
        ended = sum(full < one.ended for one in run.ledger.executions())
        room = time.time()
        disk.make_room()
        await run.finish(client)
    tally.note(detect_s=said - full, recover_s=min(at for at in shown.values() if at > room) - room)
    tally.figure("shown_while_full", sum(said < at < room for at in shown.values()))
    tally.figure("ended_while_full", ended)
    tally.add(run.account(shown=set(shown) - {""}))


async def _said(client: AsyncClient, what: str) -> None:
    """Wait until the server counts it. Raises: TimedOut."""
    with anyio.move_on_after(PATIENCE_S):
        while True:
            if (await client.connection.call("info"))["dropped"].get(what):
                return
            await anyio.sleep(ASK_S)
    raise TimedOut(f"the server did not say {what} in {PATIENCE_S:g} s")


async def worker_disk_full(guard: Guard, tally: Tally, times: int) -> None:
    """One of two workers has no room for its reports and large results; the other one can bring the run to its end.

    `recover_s`: from the fault until then."""
    for _ in range(times):
        fleet = Scenario(guard.folder)
        with small_disk(guard, fleet.folder / "home" / "workers" / "tight") as disk:
            async with fleet, fleet.client() as client:
                for name in ("tight", "roomy"):
                    await fleet.start_worker(client, Machine(name, 2, resources=("cpu=2",), skills=(SKILLS,)))
                await fleet.joined(client, "tight", "roomy")
                run = Round(fleet, _mixed())
                await run.submit(client)
                await run.ledger.until(lambda by: len(by) > FULL_AFTER)
                disk.fill()
                full = time.time()
                await anyio.sleep(FULL_S)
                disk.make_room()
                await run.finish(client)
                tally.note(recover_s=run.settled_at() - full)
                tally.add(run.account())
                tally.add(await _still_there(fleet, client), times=0)


def _mixed() -> list[Job]:
    return [
        *jobs(TASKS // 2, TASK_S),
        *(Job(f"large{n}", n, {"size": LARGE}, "faults.fill") for n in range(TASKS // 2)),
    ]


async def _still_there(fleet: Scenario, client: AsyncClient) -> Account:
    """The worker that had no room does its work again."""
    await fleet.joined(client, "tight")
    run = Round(fleet, jobs(2, TASK_S, on=("tight",)))
    await run.submit(client)
    await run.finish(client)
    return run.account()
