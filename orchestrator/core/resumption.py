"""What open runs need to go on: their timers, their queue entries, their decisions that are due.

All of it follows from what is durable, so it is made again after a restart, when a run that was set aside is taken up
again, and when a decision that failed was taken back. Then the sessions of the fleet are the only thing that the state
doesn't know: they stay, and their books are written again from the attempts that are live at each worker.
"""

from __future__ import annotations

from protocol.errors import Unavailable

from . import event as e
from .adoption import book
from .edit import deadline_of
from .fleet import Fleet, Key, Session
from .graph import Run
from .intake import enqueue
from .lifecycle import AwaitingApproval, Closed, Expanded, Pending, Ready, Settled, Waiting
from .settlement import stop_attempt
from .silence import lease_s
from .stimulus import TakenBack
from .turn import Turn


def arm(turn: Turn, run: Run) -> None:
    """The timers of an open run and of its tasks."""
    if run.settings.deadline_s:
        turn.wake(run.submitted_at + run.settings.deadline_s, "run_deadline", run.ix)
    if run.settings.budget.wall_s:
        turn.wake(run.submitted_at + run.settings.budget.wall_s, "run_wall", run.ix)
    for task in run.tasks:
        if task.spec.deadline_s is not None and task.parent < 0 and not task.final:
            turn.wake(deadline_of(run, task), "task_deadline", run.ix, task.ix)


def resume(turn: Turn, run: Run) -> None:
    """Everything an open run waits for, once more."""
    turn.dirty[run.ix] = None
    arm(turn, run)
    for call in run.calls.values():
        turn.wake(call.deadline, "planner", run.ix, call.call)
    for claim, (_, until) in run.claims.items():
        turn.wake(until, "claim", run.ix, claim)
    for task in run.tasks:
        kind = type(task.state)
        if kind is Ready:
            enqueue(turn, run, task)
        elif (kind is Pending and not task.waits) or kind is Expanded:
            turn.state.due.append((run.ix, task.ix))
        elif isinstance(task.state, AwaitingApproval | Waiting):
            if task.state.deadline:
                turn.wake(task.state.deadline, "approval", run.ix, task.ix)
            if kind is Waiting:
                turn.state.due.append((run.ix, task.ix))
        elif isinstance(task.state, Settled) and task.state.open:
            turn.broke(run.ix, task.ix)


def taken_back(old: Turn, item: TakenBack) -> Turn:
    """The turn after a failed decision: the state is what the journal tells, the fleet is as it was.

    Who waits for files to be brought is told to ask again.
    """
    old.state.become(item.state)
    turn = Turn(old.state, old.settings, old.policy)
    turn.fleet, turn.predictor, turn.counter = old.fleet, old.predictor, old.counter
    turn.ledger = old.ledger
    turn.refused, turn.refusals, turn.passed = old.refused, old.refusals, old.passed
    turn.now, turn.disk_full, turn.started = old.now, old.disk_full, old.started
    turn.state.fresh, turn.state.due = [], []
    for reply in old.stages:
        turn.refuse(reply, Unavailable("the server took a decision back meanwhile", hint="ask again"))
    return turn


def resumed(turn: Turn, item: TakenBack) -> None:
    """Say what failed, set the run aside that it was about if it was so before, and go on with all others."""
    turn.emit(e.DecisionFailed(item.reference, item.stimulus, item.error, item.run, turn.now))
    run = turn.state.runs.get(item.run)
    if item.aside and run is not None and type(run.state) is not Closed:
        why = f"the server failed again to decide on it ({item.error}); asterism resume {run.name}"
        turn.emit(e.RunSetAside(run.ix, item.reference, why, turn.now))
    if not turn.started:
        return
    _sessions(turn, turn.fleet, item.conn)
    for run in list(turn.state.runs.values()):
        if type(run.state) is Closed or run.aside:
            continue
        turn.focus = run.ix
        resume(turn, run)


def _sessions(turn: Turn, fleet: Fleet, gone: int) -> None:
    for session in list(fleet.by_conn.values()):
        if session.conn == gone or fleet.sessions.get(session.worker) is not session:
            fleet.left(session)
            fleet.away.setdefault(session.worker, turn.now + session.lease_s * turn.settings.lease_factor)
            continue
        session.clear()
        for key in turn.state.live.get(session.worker, ()):
            _book(turn, session, key)
        turn.wake(turn.now, "silence", session.conn)
    for worker, until in fleet.away.items():
        turn.wake(turn.now + turn.settings.broken_grace_s, "broken", worker)
        turn.wake(until, "lease", worker)
    fleet.changes += 1


def _book(turn: Turn, session: Session, key: Key) -> None:
    """A live attempt, as if its Assign had been seen: the next inventory says if it was."""
    run, task, attempt = turn.located(key)
    book(turn, session, run, task, attempt)
    if task.cancelling or run.cancelled or type(task.state) is Settled:
        stop_attempt(turn, run, task, attempt)


def taken_up(turn: Turn, run: Run) -> None:
    """A person resumed or cancelled a run that was set aside: it goes on with what its workers hold by now."""
    resume(turn, run)
    for worker, keys in turn.state.live.items():
        session = turn.fleet.sessions.get(worker)
        mine = [key for key in keys if key[0] == run.ix]
        if session is not None:
            for key in mine:
                if key not in session.loads:
                    _book(turn, session, key)
        elif mine and worker not in turn.fleet.away:
            turn.fleet.away[worker] = turn.now + lease_s(turn, turn.state.workers[worker])
            turn.wake(turn.fleet.away[worker], "lease", worker)
