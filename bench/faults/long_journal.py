"""A long journal, made by the real core, engine and SQLite journal; and how long it takes to read it again.

`python -m bench.faults.long_journal make PATH EVENTS` runs tasks until so many events are on disk, and stops as a crash
would, without a last snapshot. `read PATH [whole]` is a fresh process that recovers the state and says how long that
took; `whole`: from the events alone. The one worker is simulated: it reports every task at once.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel
import msgspec

from orchestrator.core import stimulus as s
from orchestrator.core.graph import Run
from orchestrator.core.lifecycle import Closed
from orchestrator.core.machine import Machine
from orchestrator.core.state import State
from orchestrator.engine.engine import Engine
from orchestrator.journal.recovery import recover
from orchestrator.journal.snapshot import Snapshots
from orchestrator.journal.sqlite import SqliteJournal
from protocol.builtin import BUILTINS
from protocol.clock import RunClock
from protocol.frame import Assign, Heartbeat, Hello, Report, ToWorker
from protocol.outcome import Success
from protocol.patch import Patch
from protocol.plan import parse_plan
from protocol.profile import DeviceProfile, WorkerProfile
from protocol.resource import Resources

from ..workload import fan_out

EVENTS_A_TASK: Final = 3
TASKS_A_RUN: Final = 10_000
_LOOK_S: Final = 0.005


class SimulatedLink:
    """The engine's gateway, with one worker behind it that reports whatever it is assigned."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def send(self, conn: int, item: ToWorker) -> None:
        if isinstance(item, Assign):
            report = Report(item.attempt, item.fence, item.pin, Success(b'"done"'))
            self._engine.post(s.WorkerSent(conn, conn, (report,)))

    def close(self, conn: int) -> None:
        """There is no stream to end."""


async def make(path: Path, events: int) -> dict[str, int]:
    """How many events are on disk, and how many tasks succeeded."""
    journal = SqliteJournal(path)
    state = State(journal=journal.id)
    clock = RunClock(0.0)
    engine = Engine(Machine(state), journal, clock.now, snapshots=Snapshots(journal, state, {}, {}))
    engine.connect(SimulatedLink(engine))
    journal.open_epoch(1)
    journal.start(engine)
    async with anyio.create_task_group() as group:
        await engine.begin(1)
        await group.start(engine.run)
        worker = (await engine.ask(lambda reply: s.Enrolled(reply, "worker1", "0" * 64)))["worker"]
        profile = WorkerProfile(slots=4, capacity=Resources(cpu=4.0), devices=(DeviceProfile("cpu"),), skills=BUILTINS)
        engine.post(s.WorkerJoined(worker, worker, Hello("worker1", "boot", profile)))
        engine.post(s.WorkerSent(worker, worker, (Heartbeat(clock.now()),)))
        while (left := events - engine.seq) > 0:
            run = await _submit(engine, min(TASKS_A_RUN, max(1, left // EVENTS_A_TASK)))
            await _closed(run)
        await engine.on_disk()
        group.cancel_scope.cancel()
    await journal.aclose()
    succeeded = sum(task.succeeded for run in state.runs.values() for task in run.tasks)
    return {"events": engine.seq, "succeeded": succeeded}


async def _submit(engine: Engine, tasks: int) -> Run:
    plan = parse_plan(fan_out(tasks))
    patch = Patch("person:bench", plan.tasks, outputs=plan.outputs or None)
    made = await engine.ask(
        lambda reply: s.Submitted(reply, "", "", "person:bench", plan.settings, home="worker1", patch=patch)
    )
    return engine.machine.state.runs[int(made["run"])]


async def _closed(run: Run) -> None:
    while True:
        if type(run.state) is Closed:
            return
        await anyio.sleep(_LOOK_S)


def read(path: Path, whole: bool) -> dict[str, Any]:
    """Recover, as a starting server does."""
    journal = SqliteJournal(path)
    began = time.perf_counter()
    found = recover(journal, snapshot=not whole)
    took = time.perf_counter() - began
    succeeded = sum(task.succeeded for run in found.state.runs.values() for task in run.tasks)
    anyio.run(journal.aclose)
    return {"seconds": took, "events": found.seq, "replayed": sum(found.tail.values()), "succeeded": succeeded}


def main() -> None:
    what, path = sys.argv[1], Path(sys.argv[2])
    if what == "make":
        answer: dict[str, Any] = anyio.run(make, path, int(sys.argv[3]))
    else:
        answer = read(path, "whole" in sys.argv[3:])
    sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")


if __name__ == "__main__":
    main()
