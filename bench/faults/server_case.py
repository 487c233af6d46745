"""The orchestrator is killed in the middle of a run and started again: workers go on, what had ended runs no more.

What a client was shown before the kill must be in the journal afterwards; what had ended on a worker by then, shown or
not, must not begin again. It must not know the other processes' faults.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import anyio

from ..scenario import Machine, Scenario
from .account import Account
from .case import Tally
from .lanes import SKILLS
from .ledger import Execution
from .round import Round, jobs

WORKERS: Final = ("worker1", "worker2")
TASKS: Final = 120
TASK_S: Final = 0.06
KILL_AFTER: Final = 30
"""So many tasks have ended when the orchestrator is killed."""


async def server_killed(folder: Path, tally: Tally, times: int) -> None:
    """SIGKILL to the orchestrator, started again at once. Spans count from that start."""
    async with Scenario(folder) as fleet:
        async with fleet.client() as client:
            for name in WORKERS:
                await fleet.start_worker(client, Machine(name, 2, resources=("cpu=2",), skills=(SKILLS,)))
            await fleet.joined(client, *WORKERS)
        for _ in range(times):
            await _round(fleet, tally)


async def _round(fleet: Scenario, tally: Tally) -> None:
    run = Round(fleet, jobs(TASKS, TASK_S))
    shown: set[str] = set()
    async with fleet.client() as client:
        await fleet.joined(client, *WORKERS)
        await run.submit(client)

        async def watch() -> None:
            async for row in client.events(run.run, kinds=["task_settled"], states=["succeeded"]):
                shown.add(row["task"])

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await run.ledger.until(lambda by: sum(any(o.ended for o in some) for some in by.values()) >= KILL_AFTER)
            group.cancel_scope.cancel()  # a client that misses its server would start one, too
        fleet.kill_server()
        killed = time.time()
    started = time.time()
    await fleet.start_server()
    async with fleet.client() as client:
        await run.finish(client)
    tally.add(run.account(shown=shown))
    executions = run.ledger.executions()
    again = _again(executions, killed)
    tally.add(Account(why=tuple(f"{name} had ended and ran again" for name in again)), times=0)
    tally.figure("finished_ran_again", len(again))
    dispatched = [float(row["at"]) for row in run.rows if row["kind"] == "attempt_dispatched"]
    late = run.settled_at()  # a worker that came back after the run had ended counts with that
    back = [
        min((o.began for o in executions if o.worker == name and o.began > started), default=late) for name in WORKERS
    ]
    first = min((at for at in dispatched if at > started), default=late)
    tally.note(reassign_s=first - started, recover_s=max(back) - started)


def _again(executions: list[Execution], killed: float) -> list[str]:
    ended = {one.task for one in executions if one.ended and one.ended < killed}
    return sorted({one.task for one in executions if one.began > killed and one.task in ended})
