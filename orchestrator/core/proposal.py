"""`ctx.propose(goal)`: a running task asks the planner for more work, and waits for what came of it.

The goal is a worker's text: it reaches the planner as quoted data, capped, and what the planner makes of it is a patch
like any other. Nothing is held back. The answer names the tasks that were added, or says why there are none.
"""

from __future__ import annotations

from typing import Final

import msgspec

from protocol.errors import AsterismError, BudgetSpent, NotAllowed, PlannerAbstained, PlanRefused, UsageError

from .answer import give
from .consult import CODES, bounds, open_call, serves, unaffordable, wishes
from .digest import Room, digest
from .graph import Run
from .planner_call import PlannerCall
from .turn import Turn

MOST_GOAL: Final = 2000
"""Characters: it goes into a prompt."""


def check_goal(turn: Turn, run: Run, goal: object) -> str:
    """The goal. Raises: UsageError, NotAllowed when the run's tasks have asked for too many."""
    if not isinstance(goal, str) or not 0 < len(goal.strip()) <= MOST_GOAL:
        raise UsageError(f"a goal is a text of at most {MOST_GOAL:,} characters")
    most = bounds(turn, run).proposals
    if run.proposals >= most:
        raise NotAllowed(f"the tasks of {run.name} may ask for {most} goals, and have", hint="run.replan.proposals")
    return goal


def ask_goals(turn: Turn, run: Run) -> None:
    """Open a call for each goal that waits, as far as they may be open at once."""
    for ix, wish in wishes(turn, run, "propose"):
        waiting = turn.joins.get((run.ix, ix))
        if waiting is None:
            continue  # its attempt asks once more after a restart: then it is known which call to answer
        task, (number, k, _) = run.tasks[ix], waiting
        try:
            check_goal(turn, run, wish.goal)  # others may have asked since
            if why := unaffordable(run):
                raise BudgetSpent(why)
        except AsterismError as error:
            give(turn, run, task, number, k, b"null", msgspec.json.encode(error.to_wire()))
            continue
        most = bounds(turn, run)
        about = [ix, *(other.ix for other in run.roots() if other.ix != ix)]
        told = digest(turn, run, "propose", about, room=Room(0, most.edits, most.tasks))
        why = f"{run.name_of(task)} asks for more"
        open_call(turn, run, "propose", run.request, told, why=why, task=ix, number=number, k=k, goal=wish.goal)


def answer_goal(turn: Turn, run: Run, call: PlannerCall, outcome: str, message: str) -> None:
    """The call for a goal is over."""
    if not serves(run, call):
        return
    task = run.tasks[call.task]
    if outcome in CODES and not (call.added or call.edits):
        kind = {"abstained": PlannerAbstained, "refused": PlanRefused, "unaffordable": BudgetSpent}.get(
            outcome, AsterismError
        )
        error = kind(message or f"the planner has {outcome}").to_wire()
        give(turn, run, task, call.number, call.k, b"null", msgspec.json.encode(error))
    else:
        names = [run.name_of(run.tasks[ix]) for ix in call.added]
        value = msgspec.json.encode({"version": run.version, "tasks": names})
        give(turn, run, task, call.number, call.k, value)
