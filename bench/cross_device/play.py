"""One play of one case on the fleet: its ground laid, the request handed in, its end awaited, the outcome looked at.

Invariant: a `Play` is plain data that can be written as JSON and read back. What goes wrong is named there, and costs
no other play. It must not know other plays.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import anyio
import msgspec

from orchestrator.client.live import AsyncLive
from protocol.collector import at_rest
from protocol.errors import AsterismError, PlannerAbstained
from protocol.report import FINAL_RUN, FINAL_TASK

from .case import Case
from .check import Finding, Outcome, check
from .fault import Fault, fault_of
from .gather import gather
from .ground import ground
from .script import Script
from .sequence import in_turn
from .sequence import sequential as made_sequential
from .site import FiveMachines
from .tamper import unfailing
from .trace import Trace, trace

LIMIT_S: Final = 60.0
"""No play takes longer, whatever is done to it."""
GRACE_S: Final = 1.0
"""How long a run waits for a machine that is gone for good, where its case says nothing else."""
PLANNERS: Final = {"gold": "llm", "catalog": "catalog", "llm": "llm"}
_ASKS: Final = ("approval_asked", "task_waited", "task_unknown", "run_settled")


class Play(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: the run's, "" if there was none; `problem`: why it couldn't be played or looked at, "" otherwise.

    `sequential`: the same graph, one task after the other. `latency_s`: from the request to the end of its run, by the
    client's clock. `report`: the run's, as `asterism result -o json` prints it. `trace`: what its time went by.
    `recovery_s`: how long each blow of the fault took to make good. `partial` names what is missing of a result that
    can't be whole. `unfailing`: checks that would not have noticed another outcome. `graph`: what another planner than
    the gold one made of it. Of the fault: `struck` says what it did ("": its moment never came), `lost` which machine
    was gone until the end, `bound_s` how long recovery may take.
    """

    case: str
    category: str
    mode: str = "gold"
    sequential: bool = False
    fault: str = ""
    seed: int = 0
    repeat: int = 0
    state: str = ""
    problem: str = ""
    findings: tuple[Finding, ...] = ()
    latency_s: float = 0.0
    report: dict[str, Any] = {}
    trace: Trace = Trace()
    recovery_s: tuple[float, ...] = ()
    partial: str = ""
    unfailing: tuple[str, ...] = ()
    struck: str = ""
    lost: str = ""
    bound_s: float | None = None
    graph: dict[str, Any] = {}

    @property
    def succeeded(self) -> bool:
        """Every check of the real outcome holds."""
        checks = [one for one in self.findings if one.kind == "check"]
        return not self.problem and bool(checks) and all(one.ok for one in checks)

    @property
    def unjudged(self) -> tuple[str, ...]:
        """Why nothing, or not all, can be said of it."""
        broken = (f"{one.kind} {one.id}: {one.why}" for one in self.findings if one.broken)
        return (*filter(None, (self.problem,)), *self.unfailing, *broken)


async def play(stage: FiveMachines, case: Case, wanted: Play, graph: Mapping[str, Any] | None = None) -> Play:
    """Play it as `wanted` says, from its fixtures to its traces' end.

    `graph`: the plan that is to be played one task after the other, where that is not the gold one.
    """
    try:
        async with AsyncExitStack() as stack:
            placed = case.placed({name: stage.root(name) for name in stage.machines})
            truths = await stack.enter_async_context(ground(stage, placed, _salt(wanted), wanted.seed))
            script = Script(made_sequential(placed) if wanted.sequential else placed)
            stage.answer = script.turn
            fault = fault_of(wanted.fault, stage, placed, wanted.seed) if wanted.fault else None
            if fault is not None:
                await stack.enter_async_context(fault)
            with at_rest():  # all plays are kept: to look through them takes up to 120 ms
                return await _played(stage, placed, wanted, truths, script, fault, graph)
    except Exception as found:  # noqa: BLE001 - a case that breaks the bench is named, and the rest goes on
        error: BaseException = found
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        words = str(error) if isinstance(error, AsterismError) else f"the bench broke: {type(error).__name__}: {error}"
        return msgspec.structs.replace(wanted, problem=words)


async def _played(
    stage: FiveMachines,
    case: Case,
    wanted: Play,
    truths: Mapping[str, Any],
    script: Script,
    fault: Fault | None,
    graph: Mapping[str, Any] | None,
) -> Play:
    client, loose = stage.client, wanted.mode != "gold"
    options = {"schedule_grace": GRACE_S, **case.run}
    began = time.monotonic()
    try:
        if graph is not None:
            live = await client.submit(in_turn(graph), request=case.request, **options)
        else:
            live = await client.submit(case.request, planner=PLANNERS[wanted.mode], **options)
    except PlannerAbstained as error:
        findings = check(case, Outcome("abstained"), truths, loose=loose)
        return msgspec.structs.replace(wanted, state="abstained", partial=error.message, findings=tuple(findings))
    latency_s = 0.0
    with anyio.move_on_after(LIMIT_S):
        async with anyio.create_task_group() as group:
            if fault is not None:
                group.start_soon(fault.follow, live)
            await _attend(live, script, loose)
            latency_s = time.monotonic() - began
    report = await client.report(live.run)
    if report["state"] not in FINAL_RUN:
        await live.cancel()
        said = ", ".join(f"{name} is {row['state']}" for name, row in report["tasks"].items() if _open(row))
        problem = f"{live.name} is not settled after {LIMIT_S:g} s: {said or 'no task is open'}"
        return msgspec.structs.replace(wanted, problem=problem, state=report["state"], report=report)
    outcome = await gather(stage, case, live, report, loose=loose)
    rows = [row async for row in client.events(live.run, follow=False)]
    there = await client.ask("graph", live.run)
    succeeded = report["state"] == "succeeded"
    return msgspec.structs.replace(
        wanted,
        state=report["state"],
        findings=tuple(check(case, outcome, truths, loose=loose)),
        latency_s=latency_s,
        report=report,
        trace=trace(rows, there, stage.latencies, stage.slots),
        partial="" if succeeded else _missing(report),
        unfailing=() if loose or fault is not None else tuple(unfailing(case, outcome, truths)),
        graph=_written(there) if loose and succeeded else {},
        **(_struck(fault) if fault is not None else {}),
    )


def _salt(wanted: Play) -> str:
    """Other content for each play: what a machine still knows of the last one must not help the next."""
    return f"{wanted.repeat}{'s' if wanted.sequential else 'p'}{wanted.fault}"


async def _attend(live: AsyncLive, script: Script, loose: bool) -> None:
    """Answer what a person is asked, until the run is settled."""
    async for row in live.events(kinds=_ASKS):
        kind, task = row["kind"], row.get("task", "")
        try:
            if kind == "approval_asked":
                said = script.answer(task, "approve", "reject", loose=loose)
                if said is not None and said.do == "approve":
                    await live.approve(task)
                else:
                    await live.reject(task, str(said.value or "") if said is not None else "nobody is asked for this")
            elif kind == "task_waited" and row["what"] == "ask":
                said = script.answer(task, "answer", loose=loose)
                await (live.answer(task, said.value) if said is not None else live.cancel(task))
            elif kind == "task_unknown":
                said = script.answer(task, "retry", "fail", loose=loose)
                await live.resolve(task, said.do if said is not None else "fail")
        except AsterismError:
            continue  # it was settled meanwhile, as after a fault


def _struck(fault: Fault) -> dict[str, Any]:
    return {
        "struck": fault.what,
        "lost": fault.lost,
        "recovery_s": fault.recovery_s,
        "bound_s": fault.bound_s,
    }


def _written(graph: Mapping[str, Any]) -> dict[str, Any]:
    """The plan that a graph is, without what the run added to it."""
    tasks = [{key: value for key, value in row.items() if key != "state"} for row in graph["tasks"]]
    return {"tasks": tasks, "outputs": graph["outputs"]}


def _open(row: Mapping[str, Any]) -> bool:
    return row["state"] not in FINAL_TASK


def _missing(report: Mapping[str, Any]) -> str:
    """What was not reached, by name, and why."""
    failed = {name: row for name, row in report["tasks"].items() if row["state"] == "failed"}
    why = "; ".join(f"{name}: {(row.get('error') or {}).get('message', '')}" for name, row in failed.items())
    return why or str((report.get("error") or {}).get("message", ""))
