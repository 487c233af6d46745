"""What is going on, as the reports of protocol/report: pure reading of state and fleet, nothing is awaited or changed.

Long lists are built in slices by generators, so that the caller can let the loop turn in between.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Final

from protocol.builtin import BUILTINS
from protocol.builtin_model import MODEL_SKILLS
from protocol.errors import NotFound
from protocol.event_row import asked
from protocol.ids import task_name
from protocol.report import (
    PlannerUse,
    Recovered,
    RunRow,
    RunStatus,
    ShareRow,
    SkillList,
    SkillRow,
    SpendRow,
    TaskRow,
    WorkerList,
    WorkerRow,
    graph_report,
)
from protocol.spend_row import Used

from ..core.fleet import Fleet
from ..core.graph import Attempt, Run, Task
from ..core.lifecycle import AwaitingApproval, Closed, Ready, Settled, Unknown, Waiting
from ..core.planner_call import Wish
from ..core.state import State
from ..core.steering import specs_at
from ..core.subplan import standing
from ..core.trust import barred
from .lookup import run_state, task_state, worker_name

SLICE_TASKS: Final = 2000
WAITING_SHOWN: Final = 50
CLOCK_APART_S: Final = 60.0


def started_at(attempt: Attempt) -> float:
    """When its user code began, as far as its report says; else when it was dispatched."""
    if attempt.run_s >= 0 and attempt.ended == "succeeded":
        return max(attempt.at, attempt.ended_at - attempt.run_s)
    return attempt.at


def task_row(state: State, run: Run, task: Task) -> TaskRow:
    attempt = task.winner()
    since = run.submitted_at
    settled = task.state if isinstance(task.state, Settled) else None
    return TaskRow(
        state=task_state(task),
        skill=task.skill,
        worker=worker_name(state, run, attempt.worker) if attempt else None,
        device=attempt.device if attempt else None,
        attempts=len(task.attempts),
        queued_s=task.ready_at - since if task.ready_at >= 0 else None,
        started_s=started_at(attempt) - since if attempt else None,
        finished_s=settled.at - since if settled and settled.at else None,
        error=task_error(run, task),
        children=children_of(run, task),
    )


def task_error(run: Run, task: Task) -> dict[str, Any] | None:
    settled = task.state
    if not isinstance(settled, Settled) or settled.state != "failed":
        return None
    name = run.name_of(task)
    return {
        "code": settled.code or "Failed",
        "ref": task_name(run.ix, name, settled.winner),
        "message": settled.message,
        "hint": f"asterism explain {run.name}/{name}",
    }


def run_error(run: Run) -> dict[str, Any] | None:
    if run.aside:
        return {
            "code": "InternalError",
            "ref": run.aside,
            "message": "the server failed to decide on this run and set it aside",
            "hint": f"asterism resume {run.name}, or asterism cancel {run.name}",
        }
    if not isinstance(run.state, Closed) or not run.state.code:
        return None
    message, _, fix = run.state.message.partition("\nfix: ")  # as a planner's end is put into words
    hint = fix or f"asterism tasks {run.name}"
    if run.state.code == "BudgetSpent":
        hint = f"asterism retry {run.name} --from-failed (with the same budget once more), or run it with a larger one"
    return {"code": run.state.code, "ref": run.name, "message": message, "hint": hint}


def children_of(run: Run, task: Task) -> dict[str, int] | None:
    """Children of a map, `all` or spawn by state; None without any."""
    indices: list[int] = [*run.children(task)]
    if task.spawned is not None:
        indices.extend(task.spawned.children.values())
    if not indices and task.spread is None:
        return None
    return count_states(run.tasks[ix] for ix in indices)


def count_states(tasks: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for task in tasks:
        word = task_state(task)
        found[word] = found.get(word, 0) + 1
    return found


def task_rows(state: State, run: Run, children: bool) -> Iterator[dict[str, TaskRow]]:
    """Rows by name in slices; with `children` those of maps and spawns too."""
    rows: dict[str, TaskRow] = {}
    for task in list(run.tasks):
        if task.parent < 0 or children:
            rows[run.name_of(task)] = task_row(state, run, task)
            if len(rows) >= SLICE_TASKS:
                yield rows
                rows = {}
    yield rows


def spans(run: Run) -> Iterator[list[tuple[float, float]]]:
    """(started_s, finished_s) of every winning attempt, children included, in slices."""
    found: list[tuple[float, float]] = []
    for task in list(run.tasks):
        settled = task.state
        if isinstance(settled, Settled) and settled.winner and settled.state == "succeeded":
            attempt = task.attempt(settled.winner)
            if attempt is not None:
                found.append((started_at(attempt) - run.submitted_at, attempt.ended_at - run.submitted_at))
        if len(found) >= SLICE_TASKS:
            yield found
            found = []
    yield found


def recovered(run: Run) -> Recovered:
    retries = lost = hedges = 0
    for task in run.tasks:
        if not task.attempts:
            continue
        hedged = sum(attempt.hedge for attempt in task.attempts)
        hedges += hedged
        retries += len(task.attempts) - 1 - hedged
        lost += sum(attempt.ended == "lost" for attempt in task.attempts)
    replans = sum(1 for version in run.versions[1:] if version.author == "planner")
    return Recovered(retries=retries, lost=lost, hedges=hedges, replans=replans)


def planner_use(run: Run) -> PlannerUse:
    spend = run.spend
    return PlannerUse(
        kind=run.planner or "none",
        calls=spend.calls,
        tokens_in=spend.planner_in,
        tokens_out=spend.planner_out,
        first_task_s=spend.first_task_s if spend.first_task_s >= 0 else None,
    )


def spend_row(run: Run) -> SpendRow:
    spend, budget = run.spend, run.settings.budget
    caps = {name: getattr(budget, name) for name in ("tokens", "price", "calls", "attempts", "tasks")}
    return SpendRow(
        planner=Used(spend.calls, spend.planner_in, spend.planner_out, spend.planner_price),
        skills=Used(
            spend.uses,
            spend.tokens_in - spend.planner_in,
            spend.tokens_out - spend.planner_out,
            max(0.0, spend.price - spend.planner_price),
        ),
        tokens=spend.tokens,
        price=spend.price,
        lent_tokens=sum(spend.reserved.values()) + spend.lent_tokens,
        lent_price=sum(spend.priced.values()) + spend.lent_price,
        budget={name: cap for name, cap in caps.items() if cap},
        spent=spend.spent(budget, calls=True),
    )


def makespan_s(run: Run, now: float) -> float | None:
    """From submission to the end, or so far; None before the first task."""
    if isinstance(run.state, Closed):
        return max(0.0, run.settled_at - run.submitted_at)
    return max(0.0, now - run.submitted_at) if run.tasks else None


def run_row(run: Run, now: float) -> RunRow:
    return RunRow(
        run=run.name,
        state=run_state(run),
        request=run.request,
        submitted_at=run.submitted_at,
        makespan_s=makespan_s(run, now),
        tasks=count_states(run.roots()),
        version=run.version,
        labels=run.labels,
        tokens=run.spend.tokens,
        price=run.spend.price,
    )


def run_status(state: State, run: Run, now: float, share: ShareRow | None = None) -> RunStatus:
    waiting: dict[str, str] = {}
    for task in run.tasks:
        why = waits_for(state, run, task)
        if why:
            waiting[run.name_of(task)] = why
            if len(waiting) >= WAITING_SHOWN:
                break
    return RunStatus(
        run=run.name,
        state=run_state(run),
        request=run.request,
        submitted_at=run.submitted_at,
        makespan_s=makespan_s(run, now),
        version=run.version,
        tasks=count_states(run.roots()),
        waiting=waiting,
        error=run_error(run),
        spend=spend_row(run),
        share=share,
    )


def waits_for(state: State, run: Run, task: Task) -> str:
    """What a task that is not running waits for, in words; empty when it waits for nothing but its turn."""
    found = task.state
    name = run.name_of(task)
    if isinstance(found, AwaitingApproval):
        return f"approval: {found.why} (asterism approve {run.name}/{name})"
    if isinstance(found, Waiting):
        if found.what == "ask":
            question, choices = asked(found.detail)
            offered = f" ({', '.join(map(str, choices))})" if choices else ""
            return f"an answer: {question}{offered} (asterism answer {run.name}/{name} VALUE)"
        if found.what == "propose":
            return f"the planner, for more work: {Wish.read(found.detail).goal}"
        return standing(run, task) or (f"{found.what}: {found.detail}" if found.detail else found.what)
    if isinstance(found, Unknown):
        how = f"asterism resolve {run.name}/{name} --succeeded VALUE, --retry or --fail"
        return f"a person: whether its effect happened is unknown ({how})"
    if isinstance(found, Ready):
        spec = state.skill(task.skill)
        if spec is not None and barred(run, task, spec):
            return "the rest of the plan: it acts once"
        return f"a worker{': ' + found.why if found.why else ''}"
    return ""


# The fleet


def workers(state: State, fleet: Fleet, now: float) -> WorkerList:
    rows: list[WorkerRow] = []
    for record in state.workers.values():
        if record.gone:
            continue
        session = fleet.sessions.get(record.ix)
        if session is None:
            rows.append(
                WorkerRow(
                    worker=record.name,
                    state="away",
                    slots=0,
                    running=len(state.live.get(record.ix, ())),
                    devices=record.devices,
                    labels=record.labels,
                    skills=len(record.skills),
                    capacity=record.capacity.amounts(),
                    serves=record.serves or None,
                    model=not MODEL_SKILLS.isdisjoint(record.skills),
                )
            )
            continue
        profile = session.profile
        capacity = profile.capacity.amounts()
        rows.append(
            WorkerRow(
                worker=record.name,
                state=session.phase if session.phase != "up" else "quarantine" if session.sick else "connected",
                slots=profile.slots,
                running=sum(load.started for load in session.loads.values()),
                devices=tuple(f"{device.kind} {device.name}".strip() for device in profile.devices),
                labels=profile.labels,
                skills=len(record.skills),
                capacity=capacity,
                in_use={name: amount - session.free.get(name, 0.0) for name, amount in capacity.items()},
                serves=record.serves or profile.serves or None,
                silent_s=max(0.0, now - session.heard_at),
                sandbox=profile.sandbox,
                short=session.short or session.sick,
                hardware=profile.devices,
                link=profile.link,
                model=not MODEL_SKILLS.isdisjoint(record.skills),
            )
        )
    return WorkerList(workers=tuple(rows))


def skills(state: State, fleet: Fleet) -> SkillList:
    """Built-ins and everything announced, with the workers that offer each now."""
    offered: dict[str, list[str]] = {}
    for record in state.workers.values():
        if record.ix in fleet.sessions:
            for name in record.skills:
                offered.setdefault(name, []).append(record.name)
    known = {spec.name: spec for spec in BUILTINS}
    for name in state.digests:
        announced = state.skill(name)
        if announced is not None:
            known[name] = announced
    rows = [
        SkillRow(
            name=spec.name,
            doc=spec.doc,
            effect=spec.effect,
            place=spec.place,
            devices=tuple(variant.device for variant in spec.variants),
            workers=tuple(offered.get(spec.name, ())),
            params=spec.params,
            result=spec.result,
        )
        for _, spec in sorted(known.items())
    ]
    return SkillList(skills=tuple(rows))


def count_runs(state: State) -> dict[str, int]:
    found: dict[str, int] = {}
    for run in state.runs.values():
        word = run_state(run)
        found[word] = found.get(word, 0) + 1
    return found


def warnings(home: str, state: State) -> tuple[str, ...]:
    """What a person should know about this server's place and its journal."""
    found: list[str] = []
    if state.restored:
        found.append(
            f"this journal is a copy: {state.restored} knew a later epoch of it, and what came after the copy is gone"
        )
    room = os.statvfs(home)
    free = room.f_bavail * room.f_frsize
    if free < 512 * 1024 * 1024:
        found.append(f"{home} has {free // 1024 // 1024} MiB left")
    return tuple(found)


def clock_warnings(ahead_s: float) -> tuple[str, ...]:
    """`ahead_s`: run time less wall clock."""
    if abs(ahead_s) < CLOCK_APART_S:
        return ()
    which = "ahead of" if ahead_s > 0 else "behind"
    return (f"run time is {abs(ahead_s):,.0f} s {which} the wall clock, which was set meanwhile; it never goes back",)


# The graph


def graph(run: Run, version: int) -> dict[str, Any]:
    """Version `version` of the graph (negative: the last one), each task with its state now. Raises: NotFound."""
    if version > run.version:
        raise NotFound(f"{run.name} has versions 1 to {run.version}, not {version}")
    if version < 0 or version == run.version:
        tasks = [(task.spec, task_state(task)) for task in run.roots() if not _is_removed(task)]
        return graph_report(run.ix, run.version, tasks, run.outputs)
    specs, patch = specs_at(run, version)
    rows = []
    for spec in specs.values():
        task = run.find(spec.id)
        rows.append((spec, task_state(task) if task is not None else "removed"))
    return graph_report(run.ix, version, rows, patch.outputs or ())


def _is_removed(task: Task) -> bool:
    """Taken out of the graph by an edit or an undo; its id stays used."""
    return isinstance(task.state, Settled) and task.state.code == "Removed"
