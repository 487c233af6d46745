"""Asking a planner: what every call has in common, from its opening to its end. What it is about others know.

Invariant: one open call is one `PlannerCallOpened` without its end in the journal; its claim, its reservation and its
objections go with it. Bounds and money are looked at before it is opened.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from protocol.digest import Digest, Fact, Kind
from protocol.errors import Problem
from protocol.patch import Patch
from protocol.task import ReplanBounds

from . import command as c
from . import event as e
from .budget import reserve, settle_call
from .digest import trusted
from .graph import Run, Task
from .growth import edits_in
from .lifecycle import Settled, Waiting
from .planner_call import PlannerCall, Wish
from .stagnation import failure_digest, graph_digest
from .turn import Turn

CODES: Final = {
    "abstained": "PlannerAbstained", "refused": "PlanRefused", "failed": "PlannerFailed", "truncated": "PlanTruncated",
    "unaffordable": "BudgetSpent",
}  # fmt: skip
"""How a call ends that is not complete, and what that is called."""
_ALONE: Final = ("plan", "replan", "review")


def bounds(turn: Turn, run: Run) -> ReplanBounds:
    """The run's own bounds, else the server's."""
    own, ours = run.settings.replan, turn.settings
    return ReplanBounds(
        own.rounds if own.rounds >= 0 else ours.replan_rounds,
        own.edits if own.edits >= 0 else ours.edits_a_round,
        own.tasks if own.tasks >= 0 else ours.tasks_a_round,
        own.proposals if own.proposals >= 0 else ours.proposals,
    )


def open_call(
    turn: Turn, run: Run, kind: Kind, request: str, told: Digest | None, *, why: str = "", planner: str = "",
    claim: Iterable[int] = (), failed: Iterable[Task] = (), task: int = -1, number: int = 0, k: int = 0,
    goal: str = "", facts: tuple[Fact, ...] = (),
) -> None:  # fmt: skip
    """Ask the planner; `claim` is held back meanwhile. For the rest see PlannerCallOpened and StartPlanner."""
    call = run.called + 1
    deadline = turn.now + turn.settings.planner_s
    held = tuple(sorted(claim))
    if held:
        until = turn.now + turn.settings.claim_s
        turn.emit(e.ClaimTaken(run.ix, call, held, until))
        turn.wake(until, "claim", run.ix, call)
    turn.emit(
        e.PlannerCallOpened(
            run.ix, call, kind, call if held else 0, deadline, why, planner or run.planner, turn.now, task, number, k,
            _signatures(failed), len(run.tasks) - run.unsettled, b"" if kind == "plan" else graph_digest(run),
        )
    )  # fmt: skip
    reserve(turn, run, call)
    turn.command(c.StartPlanner(run.ix, call, request, deadline, told, goal, trusted(run), facts))
    turn.wake(deadline, "planner", run.ix, call)


def wishes(turn: Turn, run: Run, what: str) -> list[tuple[int, Wish]]:
    """The tasks that wait for a call which may be opened now, each once; the others stay on the list."""
    wanted = turn.wants.get(run.ix, {})
    found: list[tuple[int, Wish]] = []
    if not run.planned or run.cancelled:
        return found
    served = {call.task for call in run.calls.values()}
    for ix in list(wanted):
        state = run.tasks[ix].state
        if not isinstance(state, Waiting) or state.what != what:
            if not isinstance(state, Waiting):
                del wanted[ix]
            continue
        if ix in served:
            del wanted[ix]
        elif len(run.calls) + len(found) < turn.settings.calls_at_once:
            del wanted[ix]
            found.append((ix, Wish.read(state.detail)))
    return found


def busy(run: Run) -> bool:
    """Whether its plan, a re-plan or a review is open: one of those at a time."""
    return any(call.kind in _ALONE for call in run.calls.values())


def causes(run: Run, failed: Iterable[Task]) -> str:
    """For people: what the call is about."""
    return "; ".join(f"{run.name_of(task)} {task.state.code}" for task in failed if type(task.state) is Settled)


def is_open(task: Task) -> bool:
    """It has failed, and its run has not dealt with that yet."""
    return type(task.state) is Settled and task.state.open


def unaffordable(run: Run) -> str:
    """Why no further call may be made; "" if one may."""
    return run.spend.spent(run.settings.budget, calls=True)


def excess(turn: Turn, run: Run, call: PlannerCall, patch: Patch) -> list[Problem]:
    """What of the patch is more than one call may change."""
    if call.kind == "plan":
        return []
    most = bounds(turn, run)
    new = sum(spec.id not in run.names for spec in patch.tasks)
    edits = call.edits + edits_in(patch, len(patch.tasks) - new)
    found = []
    if edits > most.edits:
        found.append(Problem("PlanTooLarge", "edits", f"{edits} edits, a re-plan may make {most.edits}"))
    if call.kind != "next" and len(call.added) + new > most.tasks:
        found.append(
            Problem("PlanTooLarge", "tasks", f"{len(call.added) + new} new tasks, a re-plan may add {most.tasks}")
        )
    return found


def end_call(turn: Turn, run: Run, call: PlannerCall, outcome: str, message: str, planner: str = "") -> tuple[str, str]:
    """The call is over: journal it and release its claim. What came of it: a call all of whose patches were refused has
    given nothing, and a plan of which one was is not whole."""
    objection = turn.objections.pop((run.ix, call.call), None)
    useless = call.kind == "plan" or not (call.edits or call.added)
    if objection is not None and useless and outcome in ("complete", "truncated"):
        outcome, message = objection
    first = run.versions[0].at - run.submitted_at if call.kind == "plan" and run.versions else -1.0
    settle_call(turn, run, call.call)
    graph = graph_digest(run) if call.changed else b""
    turn.emit(e.PlannerCallClosed(run.ix, call.call, outcome, message, first, planner, graph))
    release(turn, run, call.claim)
    turn.asking[run.ix] = None
    return outcome, message


def release(turn: Turn, run: Run, claim: int) -> None:
    """Nothing is held back any more; a call may outlive its claim."""
    if claim in run.claims:
        turn.emit(e.ClaimReleased(run.ix, claim))


def serves(run: Run, call: PlannerCall) -> bool:
    """Whether the task that this call is for still waits for it."""
    state = run.tasks[call.task].state
    return isinstance(state, Waiting) and state.what in ("propose", "plan") and state.number == call.number


def _signatures(failed: Iterable[Task]) -> dict[int, bytes]:
    """By task what makes its failure the same one again."""
    return {task.ix: failure_digest(task, task.state.code) for task in failed if type(task.state) is Settled}
