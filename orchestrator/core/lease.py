"""Who may speak of an attempt, and what becomes of one the orchestrator has forgotten. Pure predicates."""

from __future__ import annotations

from protocol.frame import Held, Report, Verdict
from protocol.ids import Fence

from .binding import Binder, RefMissing
from .graph import Attempt, Run, Task, is_map
from .lifecycle import Pending, Ready, Running, Settled, Unknown
from .state import State


def admissible(worker: int, task: Task, attempt: Attempt | None, report: Report, effect: str) -> str:
    """Whether this report may end the task: "" if so, else why not (wire.md section 2).

    The sender is the attempt's worker, the task has no winner, fence and pin are equal, and the attempt is live or
    (pure / idempotent) lost, but neither cancelled nor superseded; `effect` matters for a lost one alone. A lost `once`
    attempt may still say what became of its effect while its task is Unknown for its sake: nothing else of that task
    ran since, or can.
    """
    if attempt is None:
        return "unknown_attempt"
    if attempt.worker != worker:
        return "foreign_worker"
    if attempt.fence != report.fence:
        return "stale_fence"
    if attempt.pin != report.pin:
        return "other_pin"
    if type(task.state) is Settled:
        return "already_settled"
    if attempt.live:
        return ""
    if attempt.ended == "lost" and (effect != "once" or unknown_for(task, attempt)):
        return ""
    return "superseded"


def unknown_for(task: Task, attempt: Attempt) -> bool:
    """Whether the task waits to learn what became of this attempt's effect."""
    return type(task.state) is Unknown and task.state.number == attempt.number


def verdict(
    state: State, binder: Binder, worker: int, held: Held, refused: set[tuple[int, int, int, Fence]]
) -> Verdict:
    """What a worker shall do with something it has (wire.md section 3d). `adopt` is keep or resend of an unknown one.

    Known and live here: keep (resend if finished). Lost here but running there: keep, as far as it may still win.
    Unknown: keep iff its task exists, has no winner and no live attempt, and its pin is the one the core would dispatch
    now; hold while that can't be known; else drop or kill.
    """
    goon: Verdict = "resend" if held.digest else "keep"
    stop: Verdict = "drop" if held.digest else "kill"
    ident = held.attempt
    if (ident.run, ident.task, ident.number, held.fence) in refused:
        return stop
    run = state.runs.get(ident.run)
    if run is None or not 0 <= ident.task < len(run.tasks):
        # A part of a graph that never reached the disk: a planner, or a map yet to expand, could bring it back.
        return "hold" if run is not None and _may_grow(run) else stop
    task = run.tasks[ident.task]
    attempt = task.attempt(ident.number)
    if attempt is not None and attempt.fence == held.fence:
        if attempt.worker != worker or attempt.pin != held.pin or type(task.state) is Settled:
            return stop
        if attempt.live:
            return goon
        if attempt.ended != "lost":
            return stop
        return goon if held.digest else _regainable(state, binder, run, task, held, goon, stop)
    if attempt is not None or task.live() or ident.number < run.next_attempt(task):
        return stop
    if held.fence.epoch >= state.epoch or any(one.fence == held.fence for one in task.attempts):
        return stop  # made up: what this epoch has issued is known, and no fence is issued twice
    return adoptable(state, binder, run, task, held, goon, stop)


def _regainable(
    state: State, binder: Binder, run: Run, task: Task, held: Held, goon: Verdict, stop: Verdict
) -> Verdict:
    """The verdict on an attempt that was given up and runs on: silence kills nothing.

    Alone, it goes on whatever its effect; beside another live one only if both may run, and do the same.
    """
    if run.cancelled or task.cancelling:
        return stop
    if isinstance(task.state, Unknown):
        return goon if task.state.number == held.attempt.number else stop
    if type(task.state) is not Running:
        return adoptable(state, binder, run, task, held, goon, stop)
    spec = state.skill(task.skill)
    stated = task.spec.effect
    once = spec is None or "once" in (spec.effect, stated)
    return goon if not once and all(one.pin == held.pin for one in task.live()) else stop


def _may_grow(run: Run) -> bool:
    return bool(run.calls) or not run.planned or any(type(task.state) is Pending and is_map(task) for task in run.tasks)


def adoptable(state: State, binder: Binder, run: Run, task: Task, held: Held, goon: Verdict, stop: Verdict) -> Verdict:
    """The verdict on an attempt the journal doesn't know, of a task that exists and is free."""
    if type(task.state) is Pending:
        return "hold"
    if type(task.state) is not Ready:
        return stop
    if run.held(task.ix):
        return "hold"
    try:
        bound = binder.bind(run, task, state.journal, state.digests.get(task.skill, ""))
    except RefMissing:
        return "hold" if run.calls else stop
    return goon if bound.pin == held.pin else stop
