"""One play of one case on the fleet: fixtures laid, the request handed in, its end awaited, the outcome looked at.

Invariant: a `Play` is plain data that can be written as JSON and read back, and afterwards nothing of the case lies on
any machine. Whatever goes wrong is named in it. It must not know other plays.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import msgspec

from orchestrator.client.live import AsyncLive
from protocol.errors import AsterismError, PlannerAbstained

from .case import Case
from .check import OUTPUT, Finding, Outcome, check, place
from .content import Content, content_of
from .fixture import dice_of, make
from .script import Script
from .sequence import sequential as made_sequential
from .site import FiveMachines
from .tamper import unfailing
from .trace import Trace, trace
from .warm import warm

LIMIT_S: Final = 60.0
"""No play takes longer, whatever is done to it."""
PLANNERS: Final = {"gold": "llm", "catalog": "catalog", "llm": "llm"}
_ASKS: Final = ("approval_asked", "task_waited", "task_unknown", "run_settled")


class Play(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: the run's, "" if there was none; `problem`: why it couldn't be played or looked at, "" otherwise.

    `sequential`: the same graph, one task after the other. `latency_s`: from the request to the end of its run, by the
    client's clock. `report`: the run's, as `asterism result -o json` prints it. `trace`: what its time went by.
    `recovery_s`: how long each blow of the fault took to make good. `partial` names what is missing of a result that
    can't be whole. `unfailing`: checks that would not have noticed another outcome.
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

    @property
    def succeeded(self) -> bool:
        """Every check of the real outcome holds."""
        checks = [one for one in self.findings if one.kind == "check"]
        return not self.problem and bool(checks) and all(one.ok for one in checks)


async def play(
    stage: FiveMachines, case: Case, *, mode: str, seed: int, sequential: bool = False, repeat: int = 0
) -> Play:
    """Play it once, from its fixtures to its traces' end."""
    begun = Play(case=case.name, category=case.category, mode=mode, sequential=sequential, seed=seed, repeat=repeat)
    away = [f"{name}: {stage.missing[name]}" for name in case.needs if name in stage.missing]
    if away:
        return msgspec.structs.replace(begun, problem=f"a machine that it needs is not there: {'; '.join(away)}")
    placed = case.placed({name: stage.root(name) for name in stage.machines})
    script = Script(made_sequential(placed) if sequential else placed)
    try:
        async with _laid(stage, placed, begun) as truths:
            stage.answer = script.turn
            return await _played(stage, placed, script, begun, truths)
    except AsterismError as error:
        return msgspec.structs.replace(begun, problem=str(error))


@asynccontextmanager
async def _laid(stage: FiveMachines, case: Case, play: Play) -> AsyncIterator[Mapping[str, Any]]:
    """The fixtures on their machines, and who is to be absent is away; in the end all is as before."""
    folders = [stage.root(name) / case.name for name in stage.machines]
    gone = [name for name in case.absent if name in stage.machines]
    try:
        truths = await anyio.to_thread.run_sync(_lay, stage, case, play)
        for name in gone:
            await stage.leave(name)
        yield truths
    finally:
        with anyio.CancelScope(shield=True):
            if gone:
                await stage.back(*gone)
                await warm(stage, gone)
            await anyio.to_thread.run_sync(_clear, folders)


def _lay(stage: FiveMachines, case: Case, play: Play) -> dict[str, Any]:
    """Other content for each play: what a machine still knows of the last one must not help the next."""
    truths: dict[str, Any] = {}
    salt = f"{play.repeat}{'s' if play.sequential else 'p'}{play.fault}"
    for folder in {stage.root(name) / case.name for name in stage.machines}:
        folder.mkdir(parents=True, exist_ok=True)
    for one in case.fixtures:
        found = {}
        for machine in one.on:
            if machine in stage.missing:
                continue
            words = (one.draw,) if one.draw else (one.name, machine)
            folder = stage.root(machine) / case.name / one.path
            found[machine] = make(one.make, folder, one.args, dice_of(play.seed, salt, case.name, *words))
        truths[one.name] = found if len(one.on) > 1 else next(iter(found.values()), None)
    return truths


def _clear(folders: Sequence[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


async def _played(stage: FiveMachines, case: Case, script: Script, play: Play, truths: Mapping[str, Any]) -> Play:
    loose = play.mode != "gold"
    began = time.monotonic()
    try:
        live = await stage.client.submit(case.request, planner=PLANNERS[play.mode], **case.run)
    except PlannerAbstained as error:
        findings = check(case, Outcome("abstained"), truths, loose=loose)
        return msgspec.structs.replace(play, state="abstained", partial=error.message, findings=tuple(findings))
    with anyio.move_on_after(LIMIT_S):
        await _attend(live, script, loose)
    latency_s = time.monotonic() - began
    report = await stage.client.report(live.run)
    if report["state"] not in ("succeeded", "failed", "cancelled"):
        await live.cancel()
        said = ", ".join(f"{name} {row['state']}" for name, row in report["tasks"].items() if _open(row))
        problem = f"{live.name} is not settled after {LIMIT_S:g} s: {said or 'no task is open'}"
        return msgspec.structs.replace(play, problem=problem, state="running", report=report, latency_s=latency_s)
    outcome = await _outcome(stage, case, live, report, loose)
    findings = check(case, outcome, truths, loose=loose)
    rows = [row async for row in stage.client.events(live.run, follow=False)]
    graph = await stage.client.ask("graph", live.run)
    return msgspec.structs.replace(
        play,
        state=report["state"],
        findings=tuple(findings),
        latency_s=latency_s,
        report=report,
        trace=trace(rows, graph, stage.latencies, stage.slots),
        partial=_missing(report) if report["state"] != "succeeded" else "",
        unfailing=() if loose else tuple(unfailing(case, outcome, truths)),
    )


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


async def _outcome(stage: FiveMachines, case: Case, live: AsyncLive, report: Mapping[str, Any], loose: bool) -> Outcome:
    succeeded = [name for name, row in report["tasks"].items() if row["state"] == "succeeded"]
    wanted = succeeded if loose else {one.id for one in case.subtasks}
    values = {}
    for name in wanted:
        try:
            values[name] = await stage.client.value(live.run, name)
        except AsterismError:
            continue  # it has no value: the claim about it will say so
    files: dict[str, Content | None] = {}
    for one in case.checks:
        if one.file:
            machine, _, path = one.file.partition(":")
            files[place(one)] = await anyio.to_thread.run_sync(content_of, stage.root(machine) / path)
        elif one.form and not loose:
            files[place(one)] = await _fetched(stage, live, report["outputs"].get(one.output))
    if loose:
        for name, value in report["outputs"].items():
            content = await _fetched(stage, live, value)
            if content is not None:
                files[OUTPUT + name] = content
    state = "partial" if report["state"] == "failed" and succeeded else report["state"]
    return Outcome(state, values, dict(report["outputs"]), files)


async def _fetched(stage: FiveMachines, live: AsyncLive, value: Any) -> bytes | None:
    """The content of the file that an output is, or names as its `file`."""
    uri = value.get("file") if isinstance(value, dict) else value
    if not isinstance(uri, str):
        return None
    target = stage.fleet.folder / "fetched"
    try:
        await stage.client.fetch(live.run, uri, target)
        return await anyio.to_thread.run_sync(target.read_bytes)
    except AsterismError:
        return None


def _open(row: Mapping[str, Any]) -> bool:
    return row["state"] not in ("succeeded", "failed", "skipped", "cancelled")


def _missing(report: Mapping[str, Any]) -> str:
    """What was not reached, by name, and why."""
    failed = {name: row for name, row in report["tasks"].items() if row["state"] == "failed"}
    why = "; ".join(f"{name}: {(row.get('error') or {}).get('message', '')}" for name, row in failed.items())
    return why or str((report.get("error") or {}).get("message", ""))
