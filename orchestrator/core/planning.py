"""When planners are asked, and what becomes of their calls: plans, re-plans, reviews, goals and sub-plans together.

Invariants: one of a run's open calls at most is its plan, a re-plan or a review; the others serve tasks that wait for
them, so many at once. While a first plan is written nothing else is asked. No call outlives what it is for.
"""

from __future__ import annotations

from typing import Final

import msgspec

from protocol.patch import Patch

from . import command as c
from . import event as e
from .consult import CODES, end_call, open_call, release, serves, unaffordable
from .digest import digest
from .foresight import foresee
from .graph import Run
from .lifecycle import Closed
from .proposal import answer_goal, ask_goals
from .replan import leave, replan, review
from .subplan import go_on
from .turn import Turn

TOO_DEAR: Final = "BudgetSpent: "
"""How the message of a planner begins that had not enough left to ask."""


def ask(turn: Turn) -> None:
    """Open the calls that are wanted, as far as they may be open at once."""
    while turn.asking:
        numbers, turn.asking = turn.asking, {}
        for number in numbers:
            run = turn.state.runs.get(number)
            if run is None or run.aside or type(run.state) is Closed:
                turn.failures.pop(number, None)
                continue
            turn.focus = number
            replan(turn, run)
            ask_goals(turn, run)
            go_on(turn, run)
            review(turn, run)


def plan(turn: Turn, run: Run, planner: str) -> None:
    """Ask for the first plan. One that a restart cut off is gone on with: what it has is told, and no result."""
    told = digest(turn, run, "plan", (task.ix for task in run.roots()), results=False) if run.tasks else None
    open_call(turn, run, "plan", run.request, told, planner=planner)


def without_known(run: Run, patch: Patch) -> Patch:
    """The patch without tasks that are there just so: a plan that is asked for again may say them again."""
    fresh = tuple(one for one in patch.tasks if one.id not in run.names or run.tasks[run.names[one.id]].spec != one)
    return patch if len(fresh) == len(patch.tasks) else msgspec.structs.replace(patch, tasks=fresh)


def without_outdated(run: Run, patch: Patch) -> Patch:
    """The part of a first plan without its outputs, if somebody else has said meanwhile what they are."""
    parts = [one for version in run.versions for one in version.patches if one.outputs is not None and not one.parent]
    outdated = patch.outputs is not None and any(one.author != patch.author for one in parts)
    return msgspec.structs.replace(patch, outputs=None) if outdated else patch


def lost(turn: Turn, run: Run) -> None:
    """After a restart: nobody knows how far its calls came. What they were about is asked again, by what is open."""
    for call in list(run.calls.values()):
        turn.emit(e.PlannerCallLost(run.ix, call.call))
        release(turn, run, call.claim)
        if call.kind != "plan" or run.planned:
            continue
        if run.lost_plans <= turn.settings.lost_plans and not run.cancelled and not unaffordable(run):
            plan(turn, run, run.planner)
        else:
            why = "the orchestrator stopped while the plan was written"
            turn.emit(e.PlanClosed(run.ix, "PlannerLost", why, bool(run.tasks)))


def close_call(turn: Turn, run: Run, number: int, outcome: str, message: str, planner: str = "") -> None:
    """A planner call ended: release its claim, and deal with what it leaves open."""
    call = run.calls.get(number)
    if call is None:
        turn.count("planner_call_stale")
        return
    outcome, message = end_call(turn, run, call, outcome, message, planner)
    leave(turn, run, call, outcome)
    if call.kind == "plan":
        code = "BudgetSpent" if message.startswith(TOO_DEAR) else CODES.get(outcome, "")
        if not run.tasks and not code:
            code, message = "PlanRefused", message or "the plan is empty"
        turn.emit(e.PlanClosed(run.ix, code, message, bool(run.tasks) and outcome != "complete"))
        if not code:
            foresee(turn, run)
    elif call.kind == "propose":
        answer_goal(turn, run, call, outcome, message)
    elif call.kind == "next":
        turn.want(run.ix, call.task)


def stop_call(turn: Turn, run: Run, call: int, outcome: str, why: str) -> None:
    """End an open call: whatever its planner says from now on counts no more."""
    turn.command(c.StopPlanner(run.ix, call))
    close_call(turn, run, call, outcome, why)


def drop_moot(turn: Turn, run: Run) -> None:
    """Stop calls whose answer nobody needs any more: the task that asked is over, or nothing is left to review."""
    over = run.planned and not run.unsettled
    for call in list(run.calls.values()):
        if (over and call.kind == "review") or (call.task >= 0 and not serves(run, call)):
            stop_call(turn, run, call.call, "failed", "nobody waits for it any more")


def planner_timed_out(turn: Turn, number: int, call: int) -> None:
    """Timer: the planner call is over its deadline."""
    run = turn.state.runs.get(number)
    if run is not None and call in run.calls:
        stop_call(turn, run, call, "failed", f"the planner took longer than {turn.settings.planner_s:g} s")


def claim_over(turn: Turn, number: int, call: int) -> None:
    """Timer: a claim has come to its deadline; its call may go on without it."""
    run = turn.state.runs.get(number)
    if run is not None:
        release(turn, run, call)
