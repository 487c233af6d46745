"""Minutes of workers that join and leave under load: the orchestrator holds afterwards what it held before.

Fifty simulated workers on real streams; some leave without a word and come back as other daemons, while runs are
handed in, end and are removed. Base and end are measured alike: all workers there, nothing to do. It must not know what
the orchestrator keeps where.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio
import msgspec
import psutil

from orchestrator.client.client import AsyncClient
from protocol.errors import Conflict

from ..metric import MIB
from ..workload import fan_out
from .case import Tally
from .crowd_case import Credentials, Crowd, crowded, rows_account
from .round import PATIENCE_S

MEMBERS: Final = 50
STAY: Final = 10
"""So many never leave: there is always somebody."""
TASKS: Final = 300
PACE_S: Final = 0.1
WARM_SHARE: Final = 0.25
IDLE_S: Final = 2.0


class Held(msgspec.Struct, frozen=True):
    """What the orchestrator's process holds."""

    mib: float
    descriptors: int
    threads: int
    loop_tasks: int


async def soak(folder: Path, tally: Tally, seconds: float) -> None:
    """Figures are what it holds more at the end than after the first quarter."""
    async with crowded(folder) as crowd, crowd.fleet.client() as client:
        workers = await crowd.enrol(client, MEMBERS)
        await crowd.join(client, workers)
        await crowd.welcomed(MEMBERS)
        await _load(crowd, client, tally, workers, seconds * WARM_SHARE)
        base = await _held(crowd, client)
        await _load(crowd, client, tally, workers, seconds * (1 - WARM_SHARE))
        end = await _held(crowd, client)
    tally.figure("seconds", seconds)
    tally.figure("base_mib", base.mib)
    for name in Held.__struct_fields__:
        tally.figure(f"more_{name}", getattr(end, name) - getattr(base, name))


async def _load(crowd: Crowd, client: AsyncClient, tally: Tally, workers: Credentials, seconds: float) -> None:
    """Runs one after the other, workers coming and going, for so long; then all are there."""
    until = time.monotonic() + seconds
    done: list[int] = []
    async with anyio.create_task_group() as group:
        group.start_soon(_come_and_go, crowd, client, workers)
        while time.monotonic() < until:
            live = await client.submit(fan_out(TASKS), detach=True)
            await live.wait()
            tally.add(await rows_account(client, live.run, TASKS))
            done = await _removed(client, [*done, live.run])
            await anyio.sleep(PACE_S)
        group.cancel_scope.cancel()
    names = [name for name, _ in workers]
    await crowd.leave(names[STAY:])
    await crowd.join(client, workers[STAY:])
    await crowd.welcomed(MEMBERS)
    with anyio.fail_after(PATIENCE_S):
        while True:
            done = await _removed(client, done)
            if not done:
                return
            await anyio.sleep(PACE_S)


async def _removed(client: AsyncClient, runs: Sequence[int]) -> list[int]:
    """Remove these runs; those that can't be yet: a worker that is away may still hold an attempt."""
    left: list[int] = []
    for run in runs:
        try:
            await client.ask("rm", run)
        except Conflict:
            left.append(run)
    return left


async def _come_and_go(crowd: Crowd, client: AsyncClient, workers: Credentials) -> None:
    luck = random.Random(0)
    away: Credentials = []
    while True:
        here = [one for one in workers[STAY:] if one not in away]
        if away and (luck.random() < 0.5 or not here):
            back = away.pop(luck.randrange(len(away)))
            await crowd.join(client, [back])
        else:
            gone = luck.choice(here)
            await crowd.leave([gone[0]])
            away.append(gone)
        await anyio.sleep(luck.uniform(0.0, 2 * PACE_S))


async def _held(crowd: Crowd, client: AsyncClient) -> Held:
    await anyio.sleep(IDLE_S)
    process = psutil.Process(crowd.fleet.server_pid)
    tasks = int((await client.connection.call("info"))["loop_tasks"])
    return Held(process.memory_info().rss / MIB, process.num_fds(), process.num_threads(), tasks)
