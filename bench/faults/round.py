"""One run of the bench's own tasks: handed in, watched through its ledger, and settled up at the end.

Invariant: what is measured comes from outside: when code began from the ledger, what the server says of a worker from
the server's own answers, what happened to a task from the journal after the run. It must not know what the fault is.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import anyio
import msgspec

from orchestrator.client.client import AsyncClient
from protocol.errors import TimedOut
from protocol.plan_form import SCHEMA

from ..scenario import Scenario
from .account import Account, account
from .ledger import Execution, Ledger

ASK_S: Final = 0.02
"""How often the server is asked what it thinks of a worker: what `detect_s` can be off by."""
PATIENCE_S: Final = 30.0
_NUMBERS: Final = itertools.count(1)


class Job(msgspec.Struct, frozen=True):
    """One task. `args` besides `n` and `ledger`; `on` as in a plan; `needs` are counters."""

    name: str
    n: int
    args: dict[str, Any]
    skill: str = "faults.work"
    on: tuple[str, ...] = ()
    needs: dict[str, float] = {}

    def plan(self, ledger: str) -> dict[str, Any]:
        row: dict[str, Any] = {"id": self.name, "skill": self.skill}
        row["args"] = {"n": self.n, "ledger": ledger, **self.args}
        return (
            row
            | ({"on": list(self.on)} if self.on else {})
            | ({"needs": {"counters": self.needs}} if self.needs else {})
        )


def jobs(count: int, seconds: float, **more: Any) -> list[Job]:
    """So many tasks that need nothing of each other."""
    return [Job(f"t{n}", n, {"seconds": seconds}, **more) for n in range(1, count + 1)]


class Round:
    """`submit`, then do harm, then `finish`."""

    def __init__(self, fleet: Scenario, work: Sequence[Job]) -> None:
        self.work = list(work)
        self.ledger = Ledger(fleet.folder / f"ledger-{next(_NUMBERS)}")
        self.tasks = {job.name: job.n for job in self.work}
        self.run = 0
        self.rows: list[Mapping[str, Any]] = []
        self.values: Mapping[str, Any] = {}
        """The journal's events and the outputs, once it is finished."""

    async def submit(self, client: AsyncClient) -> None:
        ledger = str(self.ledger.path)
        plan = {"schema": SCHEMA, "tasks": [job.plan(ledger) for job in self.work]}
        self.run = (await client.submit(plan, detach=True)).run

    async def begun(self) -> dict[str, Execution]:
        """Wait until every task runs. Raises: TimedOut."""
        with anyio.move_on_after(PATIENCE_S):
            return await self.ledger.begun(self.tasks)
        raise TimedOut(f"not all tasks of r{self.run} began in {PATIENCE_S:g} s")

    async def begun_again(self, lost: Mapping[str, Execution]) -> float:
        """Wait until each of these executions has been followed by another of its task; when the last one began.

        Raises: TimedOut.
        """

        def after(by: Mapping[str, list[Execution]]) -> float:
            times = [min((o.began for o in by[name] if o.began > one.began), default=0) for name, one in lost.items()]
            return max(times) if times and all(times) else 0.0

        with anyio.move_on_after(PATIENCE_S):
            return await self.ledger.until(after)
        raise TimedOut(f"{', '.join(lost)} of r{self.run} did not begin again in {PATIENCE_S:g} s")

    async def finish(self, client: AsyncClient) -> None:
        """Wait until the run is settled, then read its journal and its result. Raises: TimedOut."""
        await (await client.live(self.run)).wait(PATIENCE_S)
        self.rows = [row async for row in client.events(self.run, follow=False)]
        self.values = (await client.report(self.run))["outputs"]

    def account(self, tasks: Iterable[str] = (), shown: Iterable[str] = ()) -> Account:
        """What was lost and done twice, of these tasks (else all), after `finish`."""
        names = set(tasks) or set(self.tasks)
        return account(
            {name: n for name, n in self.tasks.items() if name in names},
            [row for row in self.rows if row.get("task") in names or row["kind"] == "run_settled"],
            self.values,
            [one for one in self.ledger.executions() if one.task in names],
            shown,
        )

    def settled_at(self, tasks: Iterable[str] = ()) -> float:
        """When the last of these tasks (else the run) was settled, after `finish`."""
        wanted = set(tasks)
        kind = "task_settled" if wanted else "run_settled"
        rows = [row for row in self.rows if row["kind"] == kind and (not wanted or row["task"] in wanted)]
        return max(float(row["at"]) for row in rows)


async def states(client: AsyncClient) -> dict[str, str]:
    """What the server says of each worker."""
    return {row["worker"]: row["state"] for row in (await client.connection.call("workers"))["workers"]}


async def noticed(client: AsyncClient, worker: str) -> float:
    """Wait until the server doubts that the worker is there; when it said so first."""
    with anyio.move_on_after(PATIENCE_S):
        while True:
            if (await states(client)).get(worker) != "connected":
                return time.time()
            await anyio.sleep(ASK_S)
    raise TimedOut(f"the server did not doubt {worker} in {PATIENCE_S:g} s")
