"""Planner calls: the first plan and re-plans after failures no rule could recover. The rest of the graph keeps running.

A re-plan claims what hangs on the failure until its deadline; when its call ends, what is still open is continued.
"""

from __future__ import annotations

from . import command as c
from . import event as e
from .budget import reserve, settle_call
from .digest import Room, digest, trusted
from .graph import Run, Task
from .lifecycle import Settled
from .turn import Turn


def open_call(turn: Turn, run: Run, planner: str) -> None:
    """Ask the planner for the first plan."""
    call = run.spend.calls + 1
    deadline = turn.now + turn.settings.planner_s
    turn.emit(e.PlannerCallOpened(run.ix, call, "plan", 0, deadline, "", planner, turn.now))
    reserve(turn, run, call)
    turn.command(c.StartPlanner(run.ix, call, run.request, deadline))
    turn.wake(deadline, "planner", run.ix, call)


def replan(turn: Turn) -> None:
    """Open a call for each run with open failures that has none: one claim over everything that hangs on them."""
    wanted, turn.replans = turn.replans, []
    for number in dict.fromkeys(run for run, _ in wanted):
        run = turn.state.runs[number]
        failed = [run.tasks[ix] for n, ix in wanted if n == number and _is_open(run.tasks[ix])]
        if not failed:
            continue
        if run.cancelled or run.spend.spent(run.settings.budget, calls=True):
            for task in failed:
                how = "stopped" if run.cancelled else "unaffordable"
                turn.emit(e.FailureSettled(run.ix, task.ix, how, turn.now))
            continue
        if run.calls:
            turn.replans.extend((number, task.ix) for task in failed)
            continue
        _open_replan(turn, run, failed)


def _is_open(task: Task) -> bool:
    return type(task.state) is Settled and task.state.open


def _open_replan(turn: Turn, run: Run, failed: list[Task]) -> None:
    call = run.spend.calls + 1
    closure = tuple(sorted(_closure(run, failed)))
    until = turn.now + turn.settings.claim_s
    why = "; ".join(f"{run.name_of(task)} {task.state.code}" for task in failed if type(task.state) is Settled)
    deadline = turn.now + turn.settings.planner_s
    turn.emit(e.ClaimTaken(run.ix, call, closure, until))
    turn.emit(e.PlannerCallOpened(run.ix, call, "replan", call, deadline, why, run.planner, turn.now))
    reserve(turn, run, call)
    room = Room(turn.settings.replan_rounds - run.rounds, turn.settings.edits_a_round, turn.settings.tasks_a_round)
    found = digest(turn, run, "replan", closure, failed=failed, held=closure, room=room)
    turn.command(c.StartPlanner(run.ix, call, run.request, deadline, found, trusted=trusted(run)))
    turn.wake(deadline, "planner", run.ix, call)


def _closure(run: Run, failed: list[Task]) -> set[int]:
    stack, seen = [task.ix for task in failed], {task.ix for task in failed}
    while stack:
        task = run.tasks[stack.pop()]
        for ix in (*(task.down or ()), *(task.chained or ())):
            if ix not in seen:
                seen.add(ix)
                stack.append(ix)
    return seen


def close_call(turn: Turn, run: Run, number: int, outcome: str, message: str, planner: str = "") -> None:
    """A planner call ended: release its claim; a first plan is closed, open failures that it left are continued."""
    call = run.calls.get(number)
    if call is None:
        turn.count("planner_call_stale")
        return
    first = -1.0
    if run.tasks and call.kind == "plan":
        first = run.versions[0].at - run.submitted_at if run.versions else -1.0
    settle_call(turn, run, number)
    turn.emit(e.PlannerCallClosed(run.ix, number, outcome, message, first, planner))
    if call.claim in run.claims:
        turn.emit(e.ClaimReleased(run.ix, call.claim))
    if call.kind == "plan":
        codes = {
            "abstained": "PlannerAbstained", "refused": "PlanRefused", "failed": "PlannerFailed",
            "truncated": "PlanTruncated",
        }  # fmt: skip
        code = codes.get(outcome, "")
        if not run.tasks and not code:
            code, message = "PlanRefused", message or "the plan is empty"
        turn.emit(e.PlanClosed(run.ix, code, message, bool(run.tasks) and outcome != "complete"))
    else:
        for task in run.roots():
            if _is_open(task) and (run.ix, task.ix) not in turn.replans:
                turn.emit(e.FailureSettled(run.ix, task.ix, "continued", turn.now))


def planner_timed_out(turn: Turn, number: int, call: int) -> None:
    """Timer: the planner call is over its deadline."""
    run = turn.state.runs.get(number)
    if run is not None and call in run.calls:
        turn.command(c.StopPlanner(number, call))
        close_call(turn, run, call, "failed", f"the planner took longer than {turn.settings.planner_s:g} s")
