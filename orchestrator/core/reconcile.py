"""Worker streams: joins with their verdicts, frames, silence. Whatever is stale or forged changes nothing, and counts.

A worker's silence kills nothing: at 300 ms after its stream broke its pure work may start elsewhere as a hedge, at the
end of its lease its attempts are lost, and a late report of a lost attempt still wins if it is admissible.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from protocol.artifact import ArtifactRef
from protocol.errors import NotFound
from protocol.frame import (
    FEATURES,
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
    Hello,
    Rejected,
    Report,
    Staged,
    Welcome,
)
from protocol.ids import AttemptId
from protocol.outcome import Failure, Success, Usage

from . import command as c
from . import event as e
from .adoption import judged
from .announcement import objection
from .call import called
from .dispatch import assign
from .eligibility import allowed, amounts
from .fleet import Load, Session
from .graph import Attempt, Run, Task
from .lease import admissible, unknown_for
from .lifecycle import Running, Settled
from .settlement import end_attempt, stop_attempt
from .staging import owner_left, staged
from .turn import Turn

_NONE: Final = Usage()
FORGED: Final = {"foreign_worker": "ForeignAttempt", "stale_fence": "StaleFence", "other_pin": "OtherPin"}
"""Why a report doesn't count -> the code of its refusal; what isn't here happens to honest workers too."""


def joined(turn: Turn, conn: int, worker: int, hello: Hello) -> None:
    """A stream said Hello: supersede an older one, judge everything the worker holds, welcome it."""
    record = turn.state.workers.get(worker)
    if record is None or record.gone or record.name != hello.worker:
        turn.inadmissible(hello.worker, "UnknownWorker", "a Hello of an unknown or removed identity")
        turn.command(c.Send(conn, Bye(-1.0, "unknown or removed identity", "UnknownWorker")))
        turn.command(c.Close(conn))
        return
    why = objection(turn.state, hello.profile)
    if why:
        turn.inadmissible(hello.worker, "BadProfile", f"a Hello with {why}")
        turn.command(c.Send(conn, Bye(-1.0, f"it announces {why}", "BadProfile")))
        turn.command(c.Close(conn))
        return
    same_boot = turn.fleet.last_boot.get(worker) == hello.boot_id
    old = turn.fleet.sessions.get(worker)
    if old is not None:
        turn.send(old, Bye(-1.0, "another stream of this worker took over", "Superseded"))
        turn.command(c.Close(old.conn))
    session = Session(conn, worker, record.name, hello.boot_id, hello.profile, turn.now)
    turn.fleet.joined(session)
    if record.lost:
        turn.emit(e.WorkerReturned(worker, turn.now))
    _announce(turn, worker, hello)
    verdicts: list[HeldVerdict] = []
    kept: dict[tuple[int, int, int], None] = {}
    for one in (*hello.running, *hello.spooled):
        found = judged(turn, session, one)
        verdicts.append(HeldVerdict(one.attempt, found))
        if found in ("keep", "resend"):
            kept[one.attempt.run, one.attempt.task, one.attempt.number] = None
    lost = [key for key in turn.state.live.get(worker, ()) if key not in kept]
    turn.send(
        session,
        Welcome(
            turn.state.journal, turn.state.epoch, conn, lease_s=session.lease_s, heartbeat_s=session.heartbeat_s,
            verdicts=tuple(verdicts), features=hello.features & FEATURES,
        ),
        after_commit=True,
    )  # fmt: skip
    for key in kept:
        _resumed(turn, key)
    for key in lost:
        run, task, attempt = _find(turn, key)
        if same_boot and not (task.cancelling or run.cancelled or attempt.began or type(task.state) is Settled):
            _assign_again(turn, session, key)  # it was on its way when the old stream broke
        else:
            why = "lost on its way" if same_boot else "not held by its worker any more"
            end_attempt(turn, run, task, attempt, Failure("Lost", why, "infra"), _NONE, lost=True)
    turn.wake(turn.now + session.suspect_s, "silence", conn)


def _resumed(turn: Turn, key: tuple[int, int, int]) -> None:
    """Its worker is back with it: no copy is wanted any more, and a cancel that could not be sent is."""
    run, task, attempt = _find(turn, key)
    turn.hedges.discard(key[:2])
    if attempt.live and (task.cancelling or run.cancelled):
        stop_attempt(turn, run, task, attempt)


def _assign_again(turn: Turn, session: Session, key: tuple[int, int, int]) -> None:
    """The Assign got lost: send it once more."""
    run, task, attempt = _find(turn, key)
    spec = turn.contract(task)
    if spec is None:
        return
    load = session.loads.get(key)
    if load is None:
        needs = amounts(task.spec.needs, spec.variants[0])
        load = Load(needs, attempt.fence, task.skill, attempt.device, turn.now, False)
        session.take(key, load)
    load.resent, load.delivered = True, False
    bound = turn.binder.bind(run, task, turn.state.journal, turn.state.digests.get(task.skill, ""))
    approved = bool(task.approved) or allowed(session, spec)
    again = assign(turn, run, task, spec, key[2], attempt.fence, bound, load.device, load.needs, approved)
    turn.send(session, again, after_commit=True)


def _announce(turn: Turn, worker: int, hello: Hello) -> None:
    profile, record = hello.profile, turn.state.workers[worker]
    devices = tuple(dict.fromkeys(device.kind for device in profile.devices))
    digests = {skill.name: skill.digest() for skill in profile.skills}
    if (record.skills, record.labels, record.devices, record.capacity, record.policies) != (
        digests, profile.labels, devices, profile.capacity, profile.policies,
    ):  # fmt: skip
        turn.emit(
            e.SkillsAnnounced(worker, profile.skills, profile.labels, devices, profile.capacity, profile.policies)
        )


def _find(turn: Turn, key: tuple[int, int, int]) -> tuple[Run, Task, Attempt]:
    run = turn.state.runs[key[0]]
    task = run.tasks[key[1]]
    attempt = task.attempt(key[2])
    assert attempt is not None
    return run, task, attempt


def received(
    turn: Turn, conn: int, worker: int, items: tuple[FromWorker, ...], delivered: tuple[AttemptId, ...]
) -> None:
    """Items of one frame of a worker's current stream."""
    session = turn.fleet.by_conn.get(conn)
    if session is None or session.worker != worker:
        turn.count("stale_session")
        return
    session.heard_at, session.welcomed = turn.now, True
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
            turn.inadmissible(session.name, "UnknownAttempt", "a report", ident)
            if found == "drop":
                acks.append(ident)
            return
    assert run is not None
    assert task is not None
    why = admissible(session.worker, task, attempt, report, turn.effect(task))
    if attempt is None or (why and not (attempt.live and why == "already_settled")):
        if why in FORGED:
            turn.inadmissible(session.name, FORGED[why], "a report", ident)
        else:
            turn.count(f"report_{why}")
        if attempt is None or attempt.worker == session.worker:
            acks.append(ident)
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
        msgspec.json.decode(outcome.value, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def _heartbeat(turn: Turn, session: Session, beat: Heartbeat) -> None:
    """Reconcile the inventory both ways: assigned but absent is sent once more, present but not live is cancelled."""
    held = {(ident.run, ident.task, ident.number) for ident in beat.inventory}
    for key, load in list(session.loads.items()):
        if key in held or not load.delivered:
            if load.cancelled_at >= 0 and turn.now - load.cancelled_at > turn.settings.cancel_grace_s + 1.0:
                load.cancelled_at = turn.now
                turn.send(session, Cancel(AttemptId(*key), turn.settings.cancel_grace_s), after_commit=True)
            continue
        run, task, attempt = _find(turn, key)
        if attempt.ended:
            session.drop(key)
        elif not load.resent and not attempt.began and load.cancelled_at < 0:
            _assign_again(turn, session, key)
        else:
            end_attempt(turn, run, task, attempt, Failure("Lost", "its worker lost it", "infra"), _NONE, lost=True)
    for ident in beat.inventory:
        key = (ident.run, ident.task, ident.number)
        if key in session.loads or key in session.holds:
            continue
        run_ = turn.state.runs.get(ident.run)
        task_ = run_.tasks[ident.task] if run_ is not None and 0 <= ident.task < len(run_.tasks) else None
        attempt_ = task_.attempt(ident.number) if task_ is not None else None
        if attempt_ is None or attempt_.ended == "lost":  # ended otherwise: it is done there, its Ack is on the way
            turn.send(session, Cancel(ident, turn.settings.cancel_grace_s), after_commit=True)
    verdicts = tuple(_judged_again(turn, session, held)) if session.holds else ()
    turn.send(session, HeartbeatAck(beat.at, verdicts), after_commit=bool(verdicts))


def _judged_again(turn: Turn, session: Session, held: set[tuple[int, int, int]]) -> Iterator[HeldVerdict]:
    """What was on hold and can be judged now."""
    for key, one in list(session.holds.items()):
        del session.holds[key]
        if key in held:
            found = judged(turn, session, one)
            if found != "hold":
                yield HeldVerdict(one.attempt, found)


def _rejected(turn: Turn, session: Session, item: Rejected) -> None:
    key = (item.attempt.run, item.attempt.task, item.attempt.number)
    if key not in session.loads:
        turn.count("rejected_unknown")
        return
    run, task, attempt = _find(turn, key)
    klass = "permanent" if item.code == "BadSpec" else "infra"
    end_attempt(turn, run, task, attempt, Failure(item.code, item.message, klass), _NONE)  # type: ignore[arg-type]


def gone(turn: Turn, conn: int, worker: int, clean: bool) -> None:
    """The stream ended. After the grace its pure work may be hedged; after the lease its attempts are lost."""
    session = turn.fleet.by_conn.get(conn)
    if session is None:
        return
    turn.fleet.left(session)
    turn.fleet.broken_at[worker] = -1.0 if clean else turn.now
    lease = session.lease_s * turn.settings.lease_factor
    turn.fleet.away[worker] = session.heard_at + lease if not clean else turn.now
    turn.wake(turn.now + turn.settings.broken_grace_s, "broken", worker)
    turn.wake(turn.fleet.away[worker], "lease", worker)
    owner_left(turn, session)


def silent(turn: Turn, conn: int) -> None:
    """Timer: has this session been quiet for too long?"""
    session = turn.fleet.by_conn.get(conn)
    if session is None:
        return
    quiet = turn.now - session.heard_at
    if quiet + 1e-6 >= session.lease_s * turn.settings.lease_factor:
        turn.command(c.Close(conn))
        gone(turn, conn, session.worker, False)
    elif quiet + 1e-6 >= session.suspect_s:
        if session.phase == "up":
            session.phase = "suspect"
            turn.fleet.changes += 1
            hedge(turn, session.worker)
        turn.wake(session.heard_at + session.lease_s * turn.settings.lease_factor, "silence", conn)
    else:
        turn.wake(session.heard_at + session.suspect_s, "silence", conn)


def hedge(turn: Turn, worker: int) -> None:
    """Let the pure work of a worker in doubt start elsewhere, once, unless it has spawned."""
    for key in turn.state.live.get(worker, ()):
        run, task, _ = _find(turn, key)
        if (
            type(task.state) is Running
            and turn.effect(task) == "pure"
            and task.spawned is None
            and len(task.live()) == 1
            and not task.cancelling
        ):
            turn.hedges.add((run.ix, task.ix))
            turn.state.fresh.append((run.ix, task.ix))


def broken(turn: Turn, worker: int) -> None:
    """Timer, 300 ms after a stream broke: still away?"""
    if worker not in turn.fleet.sessions and worker in turn.fleet.away:
        hedge(turn, worker)


def expired(turn: Turn, worker: int) -> None:
    """Timer: the lease of a worker that is away has run out; its live attempts are lost."""
    deadline = turn.fleet.away.get(worker)
    if worker in turn.fleet.sessions or deadline is None:
        return
    if deadline > turn.now:
        turn.wake(deadline, "lease", worker)
        return
    held = list(turn.state.live.get(worker, ()))
    record = turn.state.workers[worker]
    if not record.lost and not record.gone and (held or turn.fleet.broken_at.get(worker, 0.0) >= 0):
        turn.emit(e.WorkerLost(worker, len(held), turn.now))
    for key in held:
        run, task, attempt = _find(turn, key)
        end_attempt(turn, run, task, attempt, Failure("Lost", "its worker was lost", "infra"), _NONE, lost=True)


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
