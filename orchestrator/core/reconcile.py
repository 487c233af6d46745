"""What workers say on their streams: reports, heartbeats with their inventory, calls, what they will not take.

Whatever is stale or forged changes nothing, and counts. The inventory is reconciled both ways at every heartbeat,
against the Assigns that the worker has seen: what it should have and hasn't is sent once more and then lost, what it
has and shouldn't is cancelled.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Final

import msgspec

from protocol.artifact import ArtifactRef
from protocol.errors import NotFound
from protocol.frame import (
    Ack,
    Bye,
    Call,
    Cancel,
    Drain,
    Drained,
    FromWorker,
    Heartbeat,
    HeartbeatAck,
    Held,
    HeldVerdict,
    Rejected,
    Report,
    Staged,
)
from protocol.ids import AttemptId
from protocol.outcome import Failure, FailureClass, Success, Usage

from . import command as c
from . import event as e
from .adoption import judged
from .call import called
from .expectation import moved
from .fleet import Key, Session
from .joining import assign_again
from .lease import admissible, unknown_for
from .lifecycle import Running
from .quarantine import felt
from .settlement import end_attempt
from .staging import staged
from .turn import Turn

_NONE: Final = Usage()
_RAW: Final = msgspec.json.Decoder(msgspec.Raw)
STRAYS_A_BEAT: Final = 64
JUNK_MOST: Final = 1_000
JUNK_AWAY_S: Final = 5.0
"""Things that don't count which one stream may say; then it ends, and its worker stays away for so long."""
HANDED_BACK: Final = frozenset({"Draining", "OutboxFull", "DiskFull", "Fenced"})
"""Codes of a Rejected that say nothing against the task: it goes elsewhere and loses nothing."""
FORGED: Final = {"foreign_worker": "ForeignAttempt", "stale_fence": "StaleFence", "other_pin": "OtherPin"}
"""Why a report doesn't count -> the code of its refusal; what isn't here happens to honest workers too."""


def received(
    turn: Turn, conn: int, worker: int, items: tuple[FromWorker, ...], delivered: tuple[AttemptId, ...]
) -> None:
    """Items of one frame of a worker's current stream."""
    session = turn.fleet.by_conn.get(conn)
    if session is None or session.worker != worker:
        turn.count("stale_session")
        return
    session.heard_at, session.welcomed, session.graced = turn.now, True, False
    if session.phase == "suspect":
        session.phase = "up"
        turn.fleet.changes += 1
        for key in turn.state.live.get(worker, ()):
            turn.hedges.discard(key[:2])
    for ident in delivered:
        load = session.loads.get((ident.run, ident.task, ident.number))
        if load is not None:
            load.delivered = True
    acks: list[AttemptId] = []
    turn.junk = 0
    for item in items:
        if isinstance(item, Report):
            _reported(turn, session, item, acks)
        elif isinstance(item, Heartbeat):
            _heartbeat(turn, session, item)
        elif isinstance(item, Call):
            called(turn, session, item)
        elif isinstance(item, Rejected):
            _rejected(turn, session, item)
        elif isinstance(item, Staged):
            staged(turn, session, item)
        elif isinstance(item, Drained):
            session.phase = "draining"
            turn.fleet.changes += 1
    if acks:
        turn.send(session, Ack(tuple(acks)), after_commit=True)
    before, session.junk = session.junk, session.junk + turn.junk
    if before <= JUNK_MOST < session.junk:
        turn.inadmissible(session.name, "Flooding", f"{session.junk} things that don't count")
        turn.send(session, Bye(JUNK_AWAY_S, "too much of what it says doesn't count", "Flooding"))
        turn.command(c.Close(conn))


def _reported(turn: Turn, session: Session, report: Report, acks: list[AttemptId]) -> None:
    ident = report.attempt
    run = turn.state.runs.get(ident.run)
    task = run.tasks[ident.task] if run is not None and 0 <= ident.task < len(run.tasks) else None
    attempt = task.attempt(ident.number) if task is not None else None
    if run is None or task is None or attempt is None:
        found = judged(turn, session, _held(report))
        if found == "resend" and task is not None:
            attempt = task.attempt(ident.number)
        else:
            if found == "drop":
                turn.inadmissible(session.name, "UnknownAttempt", "a report", ident)
                acks.append(ident)
            return
    assert run is not None
    assert task is not None
    if run.aside:
        turn.count("run_aside")  # its worker keeps the report, and offers it again
        return
    effect = "" if attempt is not None and attempt.live else turn.effect(task)
    why = admissible(session.worker, task, attempt, report, effect)
    if attempt is None or (why and not (attempt.live and why == "already_settled")):
        if why in FORGED:
            turn.inadmissible(session.name, FORGED[why], "a report", ident)
        else:
            turn.count(f"report_{why}")
        live = attempt is not None and attempt.live and attempt.worker == session.worker
        if attempt is not None and live and not (task.cancelling or run.cancelled):
            # An Ack names no fence and would drop the live attempt's own report, too: say again what is wanted.
            if report.fence < attempt.fence and not attempt.began:
                assign_again(turn, session, (ident.run, ident.task, ident.number))
            return
        if not (turn.disk_full and why == "already_settled"):  # its first Ack waits for the disk: one is enough
            acks.append(ident)  # it will never be wanted: not acknowledged, its worker would offer it for ever
        return
    acks.append(ident)
    outcome = report.outcome
    if not attempt.live and not isinstance(outcome, Success) and not unknown_for(task, attempt):
        turn.count("report_late_failure")  # its task goes on without it already
        return
    if isinstance(outcome, Success) and not _sound(outcome):
        outcome = Failure("BadResult", "the worker's result is not JSON", "permanent")
    end_attempt(turn, run, task, attempt, outcome, report.usage)


def _held(report: Report) -> Held:
    return Held(report.attempt, report.fence, report.pin, b"reported")


def _sound(outcome: Success) -> bool:
    if isinstance(outcome.value, ArtifactRef):
        return True
    try:
        _RAW.decode(outcome.value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def _heartbeat(turn: Turn, session: Session, beat: Heartbeat) -> None:
    """Reconcile the inventory both ways: assigned but absent is sent once more, present but not live is cancelled."""
    _room(turn, session, beat)
    felt(turn, session, beat.at)
    if beat.moved:
        moved(turn, session, beat.moved)
    held = dict.fromkeys((ident.run, ident.task, ident.number) for ident in beat.inventory)
    for key, load in list(session.loads.items()):
        if key in held or not load.delivered:
            if load.cancelled_at >= 0 and turn.now - load.cancelled_at > turn.settings.cancel_grace_s + 1.0:
                load.cancelled_at = turn.now
                turn.send(session, Cancel(AttemptId(*key), turn.settings.cancel_grace_s), after_commit=True)
            continue
        run, task, attempt = turn.located(key)
        if attempt.ended:
            session.drop(key)
        elif not load.resent and not attempt.began and load.cancelled_at < 0:
            assign_again(turn, session, key)
        else:
            end_attempt(turn, run, task, attempt, Failure("Lost", "its worker lost it", "infra"), _NONE, lost=True)
    strays = 0
    for key in held:
        if key not in session.loads and key not in session.holds and _stray(turn, key):
            strays += 1
            if strays <= STRAYS_A_BEAT:
                turn.send(session, Cancel(AttemptId(*key), turn.settings.cancel_grace_s), after_commit=True)
    if strays > STRAYS_A_BEAT:
        turn.inadmissible(session.name, "StrangeInventory", f"a heartbeat with {strays} attempts that nobody gave it")
    verdicts = tuple(_judged_again(turn, session, held)) if session.holds else ()
    turn.send(session, HeartbeatAck(beat.at, verdicts), after_commit=bool(verdicts))


def _stray(turn: Turn, key: Key) -> bool:
    """Whether nobody wants it; what ended otherwise than lost is done there, and its Ack is on the way."""
    run = turn.state.runs.get(key[0])
    task = run.tasks[key[1]] if run is not None and 0 <= key[1] < len(run.tasks) else None
    attempt = task.attempt(key[2]) if task is not None else None
    return attempt is None or attempt.ended == "lost"


def _room(turn: Turn, session: Session, beat: Heartbeat) -> None:
    """Believe a worker that says it takes no new work: its outbox or its disk is full."""
    session.short = beat.short[:40]
    if session.phase in ("up", "full"):
        phase = "full" if session.short else "up"
        if session.phase != phase:
            session.phase = phase  # type: ignore[assignment]
            turn.fleet.changes += 1


def _judged_again(turn: Turn, session: Session, held: Container[Key]) -> Iterator[HeldVerdict]:
    """What was on hold, judged again. A hold that goes on is said again: unsaid, it is over for the worker."""
    for key, one in list(session.holds.items()):
        del session.holds[key]
        if key in held:
            yield HeldVerdict(one.attempt, judged(turn, session, one))
        else:
            session.held_since.pop(key, None)


def _rejected(turn: Turn, session: Session, item: Rejected) -> None:
    key = (item.attempt.run, item.attempt.task, item.attempt.number)
    if key not in session.loads:
        turn.count("rejected_unknown")
        return
    run, task, attempt = turn.located(key)
    code, message = item.code[:40], item.message[:1000]
    only = type(task.state) is Running and task.live() == [attempt]
    if code not in HANDED_BACK or not only or task.cancelling or run.cancelled:
        klass: FailureClass = "permanent" if code in ("BadSpec", "TooLarge") else "infra"
        end_attempt(turn, run, task, attempt, Failure(code, message, klass), _NONE)
        return
    session.drop(key)
    failure = Failure(code, message, "infra")
    turn.emit(e.AttemptEnded(run.ix, task.ix, attempt.number, failure, _NONE, False, turn.now))
    until = turn.now
    if code == "Fenced":  # its next heartbeat will renew the lease
        until += session.heartbeat_s
    elif session.phase == "up":
        session.phase, session.short = ("draining" if code == "Draining" else "full"), code
        turn.fleet.changes += 1
    why = f"{session.name} takes no new work: {code}"
    turn.emit(e.TaskRequeued(run.ix, task.ix, until, why, False, "", session.worker, turn.now, False))


def drain(turn: Turn, reply: int, name: str, deadline_s: float) -> None:
    """Stop giving work to a worker, and tell it to finish."""
    session = next((one for one in turn.fleet.sessions.values() if one.name == name), None)
    if session is None:
        turn.refuse(reply, NotFound(f"no connected worker is called {name}", hint="see asterism workers"))
        return
    session.phase = "draining"
    turn.fleet.changes += 1
    turn.send(session, Drain(deadline_s))
    turn.reply(reply, {"worker": name})
