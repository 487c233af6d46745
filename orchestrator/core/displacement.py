"""A running attempt is asked to make room: it is stopped behind its next checkpoint, and its task goes on elsewhere.

Nothing is lost: the Cancel leaves with the answer to that checkpoint. Who keeps none for the grace is stopped all
the same if something was kept before, and left alone otherwise. Invariant: a displacement costs its task no retry and
no loss. It stands on the session's books (`Load.displaced`): after a restart, or when the stream has broken meanwhile,
the attempt goes on, or its stop counts as a loss.
"""

from __future__ import annotations

from .fleet import Displacement, Load
from .graph import Attempt, Run, Task
from .lifecycle import Running
from .settlement import stop_attempt
from .turn import Turn


def displaceable(turn: Turn, run: Run, task: Task, attempt: Attempt) -> bool:
    """Whether it is the only attempt of a task that can go on from what it has kept, and isn't being stopped."""
    spec = turn.contract(task)
    return (
        spec is not None
        and spec.checkpoints
        and type(task.state) is Running
        and not (task.cancelling or run.cancelled or attempt.began)
        and not (task.spawned is not None and task.spawned.children)
        and task.live() == [attempt]
    )


def displace(turn: Turn, run: Run, task: Task, attempt: Attempt, displacement: Displacement) -> bool:
    """Ask it to; False if that can't be, or was asked before."""
    load = _load(turn, run, task, attempt)
    if load is None or load.displaced is not None or not displaceable(turn, run, task, attempt):
        return False
    load.displaced = displacement
    turn.wake(turn.now + turn.settings.preempt.grace_s, "displace", run.ix, task.ix, attempt.number)
    turn.count("displaced")
    return True


def kept(turn: Turn, run: Run, task: Task, number: int) -> None:
    """The attempt has kept a checkpoint, and is told so with what was sent before this."""
    attempt = task.attempt(number)
    load = _load(turn, run, task, attempt) if attempt is not None else None
    if attempt is None or load is None or load.displaced is None:
        return
    room_for = load.displaced.room_for
    if room_for and not turn.queue.waits(room_for):
        load.displaced = None  # it has found room elsewhere
    else:
        stop_attempt(turn, run, task, attempt)


def overdue(turn: Turn, run: Run, task: Task, number: int) -> None:
    """Timer: it has had its time for a checkpoint."""
    attempt = task.attempt(number)
    load = _load(turn, run, task, attempt) if attempt is not None else None
    if attempt is None or load is None or load.displaced is None:
        return
    alt, data = task.spawned.checkpoint if task.spawned is not None else (0, b"")
    if data and alt == task.alt:
        stop_attempt(turn, run, task, attempt)
    elif load.cancelled_at < 0:
        load.displaced = None


def _load(turn: Turn, run: Run, task: Task, attempt: Attempt) -> Load | None:
    session = turn.fleet.sessions.get(attempt.worker)
    return session.loads.get((run.ix, task.ix, attempt.number)) if session is not None else None
