"""Where a run has state that is warm: what a skill has loaded or cached on a worker, for as long as the skill says.

A session of a run and a skill is with one task at a time: whoever is sent there takes it, and leaves it when it has
succeeded. So tasks that follow each other stay together, and those that are ready at once spread as ever. It is a
preference, fleet knowledge, gone when the worker's daemon has started anew.
"""

from __future__ import annotations

from typing import Final

from .fleet import Session
from .graph import Run
from .turn import Turn

MOST: Final = 64
"""Workers that a session is remembered of."""


def taken(turn: Turn, run: Run, skill: str, session: Session) -> None:
    """A task goes to that worker."""
    turn.warm.get(run.ix, {}).get(skill, {}).pop(session.worker, None)


def left(turn: Turn, run: Run, skill: str, session: Session, warm_s: float) -> None:
    """A task has succeeded there."""
    there = turn.warm.setdefault(run.ix, {}).setdefault(skill, {})
    there.pop(session.worker, None)
    there[session.worker] = turn.now + warm_s, session.boot_id
    if len(there) > MOST:
        del there[next(iter(there))]


def warm_at(turn: Turn, run: Run, skill: str) -> frozenset[int]:
    """Workers that have what the run has loaded for this skill."""
    there = turn.warm.get(run.ix, {}).get(skill, {})
    sessions = turn.fleet.sessions
    return frozenset(
        worker
        for worker, (until, boot) in there.items()
        if until > turn.now and (session := sessions.get(worker)) is not None and session.boot_id == boot
    )
