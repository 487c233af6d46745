"""The answer to a call that an attempt waits in: journaled, its cpu taken back, sent to its worker."""

from __future__ import annotations

from protocol.frame import Return
from protocol.ids import AttemptId

from . import event as e
from .graph import Run, Task
from .turn import Turn


def give(turn: Turn, run: Run, task: Task, number: int, k: int, value: bytes, error: bytes = b"") -> None:
    """Answer the k-th call of attempt `number`, and let it go on."""
    turn.joins.pop((run.ix, task.ix), None)
    turn.emit(e.CallAnswered(run.ix, task.ix, number, k, value, error))
    turn.emit(e.TaskResumed(run.ix, task.ix, number))
    attempt = task.attempt(number)
    session = turn.fleet.sessions.get(attempt.worker) if attempt is not None else None
    if session is not None:
        session.reclaim_cpu((run.ix, task.ix, number))
        turn.send(session, Return(AttemptId(run.ix, task.ix, number), k, value, error), after_commit=True)
