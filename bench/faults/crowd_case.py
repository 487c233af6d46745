"""Five hundred workers at once: the orchestrator is killed and started again, and all of them dial it.

The workers are simulated, two processes of them; their streams, and the orchestrator, are real. It must not know what
runs on them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from orchestrator.client.client import AsyncClient
from protocol.errors import TimedOut
from protocol.link import HEALTHY_S

from ..scenario import Scenario
from ..workload import fan_out
from .account import Account
from .case import Tally
from .process import Told, told

CROWD: Final = 500
PROCESSES: Final = 2
_ENROL_AT_ONCE: Final = 32
_LOOK_S: Final = 0.05
_PATIENCE_S: Final = 60.0
_TASKS: Final = 2000

Credentials = list[tuple[str, str]]


class Crowd:
    """The simulated workers of one fleet, spread over processes."""

    def __init__(self, fleet: Scenario, processes: Sequence[Told]) -> None:
        self.fleet = fleet
        self._processes = processes

    @property
    def pids(self) -> list[int]:
        return [one.pid for one in self._processes]

    async def enrol(self, client: AsyncClient, count: int, prefix: str = "crowd") -> Credentials:
        """Buy so many identities."""
        found: Credentials = []
        limit = anyio.CapacityLimiter(_ENROL_AT_ONCE)

        async def one(name: str) -> None:
            async with limit:
                found.append((name, (await client.connection.call("enroll", name=name))["secret"]))

        async with anyio.create_task_group() as group:
            for number in range(count):
                group.start_soon(one, f"{prefix}-{number}")
        return found

    async def join(self, client: AsyncClient, workers: Credentials) -> None:
        address = client.connection.endpoint.address
        share = -(-len(workers) // len(self._processes))
        for at, process in enumerate(self._processes):
            some = workers[at * share : (at + 1) * share]
            await _ask(process, {"do": "join", "address": address, "workers": some})

    async def leave(self, names: Sequence[str]) -> None:
        """Those that are there of these go without a word."""
        for process in self._processes:
            await _ask(process, {"do": "leave", "workers": list(names)})

    async def welcomed(self, count: int, after: float = 0.0) -> float:
        """Wait until so many were welcomed after that time; when the last of them was. Raises: TimedOut."""
        with anyio.move_on_after(_PATIENCE_S):
            while True:
                answers = [await _ask(process, {"do": "tell"}) for process in self._processes]
                times = sorted(at for answer in answers for at in answer["welcomed"] if at > after)
                if len(times) >= count:
                    return float(times[count - 1])
                await anyio.sleep(_LOOK_S)
        raise TimedOut(f"{count} workers were not welcomed in {_PATIENCE_S:g} s")


async def _ask(process: Told, what: dict[str, Any]) -> Any:
    return msgspec.json.decode(await process.say(msgspec.json.encode(what).decode()))


@asynccontextmanager
async def crowded(folder: Path) -> AsyncIterator[Crowd]:
    """A server and empty processes for a crowd."""
    async with Scenario(folder) as fleet, AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(told("bench.faults.simulated_crowd")) for _ in range(PROCESSES)]
        yield Crowd(fleet, processes)


async def reconnect(folder: Path, tally: Tally, times: int) -> None:
    """All were there, the orchestrator dies and is back: `recover_s` is from when it listens to the last Welcome."""
    async with crowded(folder) as crowd:
        fleet = crowd.fleet
        async with fleet.client() as client:
            await crowd.join(client, await crowd.enrol(client, CROWD))
            await crowd.welcomed(CROWD)
        for number in range(times):
            if number:
                await anyio.sleep(HEALTHY_S + 1)  # a worker whose stream was short waits longer, as if that had failed
            fleet.kill_server()
            killed = time.time()
            await fleet.start_server()
            listening = time.time()
            last = await crowd.welcomed(CROWD, killed)
            tally.note(recover_s=last - listening)
            tally.figure("since_kill_s", last - killed)
            async with fleet.client() as client:
                tally.add(await _work(client))


async def _work(client: AsyncClient) -> Account:
    """The crowd does something, and all of it is right."""
    live = await client.submit(fan_out(_TASKS), detach=True)
    await live.wait(_PATIENCE_S)
    return await rows_account(client, live.run, _TASKS)


async def rows_account(client: AsyncClient, run: int, tasks: int) -> Account:
    """Of a run of tasks that sign no ledger, by its journal alone: each settled once, as succeeded."""
    rows = [row async for row in client.events(run, follow=False, kinds=["task_settled"])]
    good = {row["task"] for row in rows if row["state"] == "succeeded"}
    why = [f"r{run}/{row['task']} is {row['state']}: {row.get('code')}" for row in rows if row["task"] not in good]
    return Account(tasks - len(good), len(rows) - len({row["task"] for row in rows}), why=tuple(why))
