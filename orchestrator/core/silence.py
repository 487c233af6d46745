"""Workers that are not heard: suspect, away, lost. Leases as the orchestrator counts them.

A worker's silence kills nothing: at 300 ms after its stream broke its pure work may start elsewhere as a hedge, at the
end of its lease its attempts are lost, and a late report of a lost attempt still wins if it is admissible. Time in
which our own loop stood still is not a worker's silence: the leases that it cut short are extended by it, with a moment
to be heard, once, so that a loop that always lags still finds out who is gone. After a stall of a lease or more, as
when the machine slept, every worker has a whole one.
"""

from __future__ import annotations

from typing import Final

from protocol.link import timing
from protocol.outcome import Failure, Usage

from . import command as c
from . import event as e
from .fleet import Session
from .graph import Task
from .lifecycle import Running
from .settlement import end_attempt
from .staging import owner_left
from .state import WorkerRecord
from .turn import Turn

STALL_S: Final = 0.25
"""A timer that comes later than this tells of our own loop, not of any worker."""
_NONE: Final = Usage()


def gone(turn: Turn, conn: int, worker: int, clean: bool) -> None:
    """The stream ended. After the grace its pure work may be hedged; after the lease its attempts are lost."""
    session = turn.fleet.by_conn.get(conn)
    if session is None:
        return
    turn.fleet.left(session)
    turn.fleet.broken_at[worker] = -1.0 if clean else turn.now
    if not clean:
        session.health.breaks.append(turn.now)
    turn.fleet.away[worker] = turn.now if clean else session.heard_at + lease_of(turn, session)
    turn.wake(turn.now + turn.settings.broken_grace_s, "broken", worker)
    turn.wake(turn.fleet.away[worker], "lease", worker)
    owner_left(turn, session)


def lease_of(turn: Turn, session: Session) -> float:
    """How long we wait for it: longer than it waits for us, so it fences itself first."""
    return session.lease_s * turn.settings.lease_factor


def lease_s(turn: Turn, record: WorkerRecord) -> float:
    """As `lease_of`, of a worker that need not be connected."""
    return timing(record.edge).lease_s * turn.settings.lease_factor


def silent(turn: Turn, conn: int) -> None:
    """Timer: has this session been quiet for too long?"""
    session = turn.fleet.by_conn.get(conn)
    if session is None:
        return
    if turn.late_s >= lease_of(turn, session):  # we slept: whatever was open may be broken, it has to find back to us
        session.heard_at = turn.now
    elif turn.late_s > STALL_S:
        session.heard_at += turn.late_s
        if not session.graced:  # what it said meanwhile is about to be read
            session.graced = True
            session.heard_at = max(session.heard_at, turn.now - session.suspect_s + session.heartbeat_s)
    quiet = turn.now - session.heard_at
    if quiet + 1e-6 >= lease_of(turn, session):
        turn.command(c.Close(conn))
        gone(turn, conn, session.worker, False)
    elif quiet + 1e-6 >= session.suspect_s:
        if session.phase in ("up", "full"):
            session.phase = "suspect"
            turn.fleet.changes += 1
            hedge(turn, session.worker)
        turn.wake(session.heard_at + lease_of(turn, session), "silence", conn)
    else:
        turn.wake(session.heard_at + session.suspect_s, "silence", conn)


def hedge(turn: Turn, worker: int) -> None:
    """Let the pure work of a worker in doubt start elsewhere, once, unless it has spawned or asked for something; what
    keeps checkpoints goes on there from the last one."""
    for key in turn.state.live.get(worker, ()):
        run, task, _ = turn.located(key)
        if (
            type(task.state) is Running
            and turn.effect(task) == "pure"
            and (task.spawned is None or (not task.spawned.children and _keeps(turn, task)))
            and len(task.live()) == 1
            and not task.cancelling
        ):
            turn.hedges.add((run.ix, task.ix))
            turn.state.fresh.append((run.ix, task.ix))


def _keeps(turn: Turn, task: Task) -> bool:
    spec = turn.contract(task)
    return spec is not None and spec.checkpoints


def broken(turn: Turn, worker: int) -> None:
    """Timer, 300 ms after a stream broke: still away?"""
    if worker in turn.fleet.sessions or worker not in turn.fleet.away:
        return
    if turn.late_s > STALL_S and turn.fleet.grace(worker, "broken"):
        turn.wake(turn.now + turn.settings.broken_grace_s, "broken", worker)
    else:
        hedge(turn, worker)


def expired(turn: Turn, worker: int) -> None:
    """Timer: the lease of a worker that is away has run out; its live attempts are lost."""
    deadline = turn.fleet.away.get(worker)
    if worker in turn.fleet.sessions or deadline is None:
        return
    whole_s = lease_s(turn, turn.state.workers[worker])
    slept = turn.late_s >= whole_s
    if slept or (turn.late_s > STALL_S and turn.fleet.grace(worker, "lease")):  # it could not come back to us either
        fresh_s = whole_s if slept else 1.0
        deadline = turn.fleet.away[worker] = max(deadline + turn.late_s, turn.now + fresh_s)
    if deadline > turn.now:
        turn.wake(deadline, "lease", worker)
        return
    held = list(turn.state.live.get(worker, ()))
    record = turn.state.workers[worker]
    if not record.lost and not record.gone and (held or turn.fleet.broken_at.get(worker, 0.0) >= 0):
        turn.emit(e.WorkerLost(worker, len(held), turn.now))
    for key in held:
        run, task, attempt = turn.located(key)
        failure = Failure("Lost", "its worker was lost", "infra")
        end_attempt(turn, run, task, attempt, failure, _NONE, lost=True, death=True)
