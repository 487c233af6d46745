"""A task that was there when daemons died. Once it was at so many deaths, it is tried alone: one worker is kept empty
for it, so that it takes nothing with it. If that daemon dies too, the task fails, with the evidence.

A worker that was lost and did not come back counts as dead: nobody can tell the two apart. Attempts that turn out to
have lived are taken off the count. Pure reading, but for the worker that is kept (`Session.kept_for`, fleet state).
"""

from __future__ import annotations

from collections.abc import Sequence

from .fleet import Session
from .graph import Run, Task
from .turn import Turn

Offered = tuple[Session, str, dict[str, float]]


def suspect(turn: Turn, task: Task) -> bool:
    """Whether the task may only run alone."""
    deadly = turn.settings.poison_deaths
    return len(task.attempts) >= deadly and task.deaths >= deadly


def evidence(turn: Turn, run: Run, task: Task) -> str:
    """Each death: attempt, worker, time since the run's submission."""
    seen = [
        f"#{one.number} on {turn.state.workers[one.worker].name} at {one.ended_at - run.submitted_at:.1f} s"
        for one in task.attempts
        if one.death
    ]
    return f"it was there when {len(seen)} daemons died, the last time alone: {', '.join(seen)}"


def cell(turn: Turn, run: Run, task: Task, offered: Sequence[Offered]) -> Offered | None:
    """The worker to run it on, once that is empty; until then it is kept free of new work."""
    key = (run.ix, task.ix)
    free = [one for one in offered if one[0].phase == "up" and one[0].kept_for in (None, key)]
    # A parent that only waits counts as nothing; but no worker is kept from what such a parent may wait for.
    empty = [one for one in free if len(one[0].loads) == one[0].paused]
    free = empty or [one for one in free if not one[0].paused]
    if not free:
        return None
    avoid = task.attempts[-1].worker
    best = min(free, key=lambda one: (len(one[0].loads), one[0].kept_for != key, one[0].worker == avoid))
    for session in turn.fleet.sessions.values():
        if session.kept_for == key and session is not best[0]:
            session.keep_for(None)
    best[0].keep_for(key)
    return best if empty else None


def release(turn: Turn, key: tuple[int, int]) -> None:
    """No worker is kept for it any more."""
    turn.suspects.pop(key, None)
    for session in turn.fleet.sessions.values():
        if session.kept_for == key:
            session.keep_for(None)
