"""Re-plans of failures that no rule could recover, and reviews. The rest of the graph keeps running.

A re-plan claims what hangs on its failures until it ends or its claim is over; what it leaves open is continued. It is
bounded: rounds, edits and tasks of a round, and it must get somewhere (core.stagnation).
"""

from __future__ import annotations

from collections.abc import Iterable

from . import event as e
from .consult import bounds, busy, causes, is_open, open_call, unaffordable
from .digest import Room, digest
from .graph import Run, Task
from .planner_call import PlannerCall
from .turn import Turn


def replan(turn: Turn, run: Run) -> None:
    """One call, and one claim, for all open failures; those of a sub-plan are its own affair."""
    failed = [task for ix in turn.failures.get(run.ix, ()) if is_open(task := run.tasks[ix]) and task.owner < 0]
    if not failed or busy(run):
        return
    for task in failed:
        del turn.failures[run.ix][task.ix]
    spent = unaffordable(run)
    if spent or run.cancelled or run.stuck:
        how = "stopped" if run.cancelled else "unaffordable" if spent else "continued"
        for task in failed:
            turn.emit(e.FailureSettled(run.ix, task.ix, how, turn.now))
        return
    most, held = bounds(turn, run), closure(run, failed)
    room = Room(max(0, most.rounds - run.rounds - 1), most.edits, most.tasks)
    told = digest(turn, run, "replan", held, failed=failed, held=held, room=room)
    open_call(turn, run, "replan", run.request, told, why=causes(run, failed), claim=held, failed=failed)


def review(turn: Turn, run: Run) -> None:
    """Every so many settled tasks, off the critical path: nothing is held back, and nobody waits for it."""
    every, settled = run.settings.review, len(run.tasks) - run.unsettled
    if (
        not every
        or settled - run.reviewed < every
        or not run.unsettled
        or run.cancelled
        or not run.planned
        or busy(run)
    ):
        return
    most = bounds(turn, run)
    if run.rounds >= most.rounds or run.stuck or unaffordable(run):
        return
    active = [task.ix for task in run.roots() if not task.final]
    done = sorted((task for task in run.roots() if task.final), key=lambda task: -task.state.at)  # type: ignore[union-attr]
    room = Room(most.rounds - run.rounds, most.edits, most.tasks)
    told = digest(turn, run, "review", [*active, *(task.ix for task in done)], room=room)
    open_call(turn, run, "review", run.request, told, why=f"{settled} tasks are settled")


def closure(run: Run, failed: Iterable[Task]) -> list[int]:
    """The failures and everything that hangs on them."""
    stack = [task.ix for task in failed]
    seen = set(stack)
    while stack:
        task = run.tasks[stack.pop()]
        for ix in (*(task.down or ()), *(task.chained or ())):
            if ix not in seen:
                seen.add(ix)
                stack.append(ix)
    return sorted(seen, key=lambda ix: run.order[ix])


def leave(turn: Turn, run: Run, call: PlannerCall, outcome: str) -> None:
    """The call is over: what it was about and is still open is continued, unless it is to be asked about once more."""
    how = "unaffordable" if outcome == "unaffordable" else "continued"
    for ix in call.failed:
        if is_open(run.tasks[ix]) and ix not in turn.failures.get(run.ix, {}):
            turn.emit(e.FailureSettled(run.ix, ix, how, turn.now))
