"""Worker streams: joins with their verdicts, frames, silence. Whatever is stale or forged changes nothing, and counts.

A worker's silence kills nothing: at 300 ms after its stream broke its pure work may start elsewhere as a hedge, at the
end of its lease its attempts are lost, and a late report of a lost attempt still wins if it is admissible.
"""

from __future__ import annotations

from typing import Final

import msgspec

from protocol.artifact import ArtifactRef
from protocol.errors import NotFound, Unavailable
from protocol.frame import (
    Ack,
    Bye,
    Call,
    Cancel,
    Drain,
    Drained,
    FromWorker,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    Held,
    HeldVerdict,
    Hello,
    Rejected,
    Report,
    Stage,
    Staged,
    Verdict,
    Welcome,
)
from protocol.ids import AttemptId
from protocol.outcome import Failure, Success, Usage

from . import command as c
from . import event as e
from .call import called
from .dispatch import assign
from .eligibility import amounts
from .fleet import Load, Session
from .graph import Attempt, Run, Task
from .lease import admissible, verdict
from .lifecycle import Running, Settled
from .settlement import end_attempt
from .turn import Turn

_NONE: Final = Usage()


def joined(turn: Turn, conn: int, worker: int, hello: Hello) -> None:
    """A stream said Hello: supersede an older one, judge everything the worker holds, welcome it."""
    record = turn.state.workers.get(worker)
    if record is None or record.gone or record.name != hello.worker:
        turn.count("hello_refused")
        turn.command(c.Send(conn, Bye(-1.0, "unknown or removed identity", "UnknownWorker")))
        turn.command(c.Close(conn))
        return
    old = turn.fleet.sessions.get(worker)
    if old is not None:
        turn.send(old, Bye(-1.0, "another stream of this worker took over", "Superseded"))
        turn.command(c.Close(old.conn))
    session = Session(conn, worker, record.name, hello.boot_id, hello.profile, turn.now)
    turn.fleet.joined(session)
    _announce(turn, worker, hello)
    verdicts: list[HeldVerdict] = []
    held: set[tuple[int, int, int]] = set()
    for one in (*hello.running, *hello.spooled):
        found = _judge(turn, session, one)
        verdicts.append(HeldVerdict(one.attempt, found))
        if found in ("keep", "resend"):
            held.add((one.attempt.run, one.attempt.task, one.attempt.number))
    for key in list(turn.state.live.get(worker, ())):
        run, task, attempt = _find(turn, key)
        if key not in held:
            same = turn.fleet.last_boot.get(worker) == hello.boot_id and old is not None
            why = "lost on its way" if same else "not held by its worker any more"
            end_attempt(turn, run, task, attempt, Failure("Lost", why, "infra"), attempt.usage or _NONE, lost=True)
    turn.send(
        session,
        Welcome(
            turn.state.journal, turn.state.epoch, conn, lease_s=session.lease_s, heartbeat_s=session.heartbeat_s,
            verdicts=tuple(verdicts),
        ),
        after_commit=True,
    )  # fmt: skip
    turn.wake(turn.now + session.suspect_s, "silence", conn)


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


def _judge(turn: Turn, session: Session, held: Held) -> Verdict:
    """The verdict on one attempt; keep and resend put it back on the session's books."""
    found = verdict(turn.state, turn.binder, session.worker, held, turn.refused)
    ident = held.attempt
    key = (ident.run, ident.task, ident.number)
    if found in ("kill", "drop"):
        turn.refused.add((*key, held.fence))
        turn.count(f"verdict_{found}")
    elif found in ("keep", "resend"):
        run = turn.state.runs[ident.run]
        task = run.tasks[ident.task]
        if task.attempt(ident.number) is None:
            turn.emit(
                e.AttemptDispatched(
                    ident.run, ident.task, ident.number, session.worker, held.fence, held.pin, skill=task.skill,
                    why="found at its worker after a restart", at=turn.now,
                )
            )  # fmt: skip
        attempt = task.attempt(ident.number)
        if attempt is not None and attempt.live and key not in session.loads:
            spec = turn.contract(task)
            needs = amounts(task.spec.needs, spec.variants[0]) if spec is not None else {"cpu": 1.0}
            load = Load(needs, held.fence, task.skill, attempt.device, attempt.at, False, delivered=True)
            session.take(key, load)
    return found


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
    session.heard_at = turn.now
    if session.phase == "suspect":
        session.phase = "up"
        turn.fleet.changes += 1
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
            _staged(turn, session, item)
        elif isinstance(item, Drained):
            session.phase = "draining"
            turn.fleet.changes += 1
        elif isinstance(item, Goodbye):
            turn.fleet.broken_at[worker] = -1.0
    if acks:
        turn.send(session, Ack(tuple(acks)), after_commit=True)


def _reported(turn: Turn, session: Session, report: Report, acks: list[AttemptId]) -> None:
    ident = report.attempt
    run = turn.state.runs.get(ident.run)
    task = run.tasks[ident.task] if run is not None and 0 <= ident.task < len(run.tasks) else None
    attempt = task.attempt(ident.number) if task is not None else None
    if run is None or task is None or attempt is None:
        found = verdict(turn.state, turn.binder, session.worker, _held(report), turn.refused)
        if found == "resend" and run is not None and task is not None:
            _judge(turn, session, _held(report))
            attempt = task.attempt(ident.number)
        else:
            turn.count("report_unknown_attempt")
            if found == "drop":
                acks.append(ident)
            return
    assert run is not None
    assert task is not None
    why = admissible(session.worker, task, attempt, report, turn.effect(task))
    if attempt is None or (why and not (attempt.live and why == "already_settled")):
        turn.count(f"report_{why}")
        if attempt is None or attempt.worker == session.worker:
            acks.append(ident)
        return
    acks.append(ident)
    outcome = report.outcome
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
            continue
        run, task, attempt = _find(turn, key)
        if attempt.ended:
            session.drop(key)
        elif not load.resent:
            load.resent, load.delivered = True, False
            bound = turn.binder.bind(run, task, turn.state.journal, turn.state.digests.get(task.skill, ""))
            again = assign(turn, run, task, key[2], attempt.fence, bound, load.device, load.needs, bool(task.by))
            turn.send(session, again, after_commit=True)
        else:
            end_attempt(turn, run, task, attempt, Failure("Lost", "its worker lost it", "infra"), _NONE, lost=True)
    for ident in beat.inventory:
        key = (ident.run, ident.task, ident.number)
        if key in session.loads:
            continue
        run_ = turn.state.runs.get(ident.run)
        task_ = run_.tasks[ident.task] if run_ is not None and 0 <= ident.task < len(run_.tasks) else None
        attempt_ = task_.attempt(ident.number) if task_ is not None else None
        if task_ is None or attempt_ is None or type(task_.state) is Settled:
            turn.send(session, Cancel(ident, turn.settings.cancel_grace_s), after_commit=True)
    turn.send(session, HeartbeatAck(beat.at))


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
    turn.fleet.broken_at[worker] = turn.now
    lease = session.lease_s * turn.settings.lease_factor
    turn.fleet.away[worker] = session.heard_at + lease if not clean else turn.now
    turn.wake(turn.now + turn.settings.broken_grace_s, "broken", worker)
    turn.wake(turn.fleet.away[worker], "lease", worker)
    for number, uri in [key for key in turn.staging if key[1].startswith(f"file://{session.name}/")]:
        for reply in turn.staging.pop((number, uri)):
            if turn.stages.pop(reply, None) is not None:
                turn.refuse(reply, Unavailable(f"{session.name} left before {uri} was read", hint="it is asked again"))


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
    for key in list(turn.state.live.get(worker, ())):
        run, task, attempt = _find(turn, key)
        end_attempt(turn, run, task, attempt, Failure("Lost", "its worker was lost", "infra"), _NONE, lost=True)


def _staged(turn: Turn, session: Session, item: Staged) -> None:
    waiting = turn.staging.pop((item.run, item.uri), [])
    run = turn.state.runs.get(item.run)
    if not waiting or run is None:
        turn.count("staged_unasked")
        return
    if item.ref is not None:
        turn.emit(e.FilePinned(item.run, item.uri, item.ref))
    for reply in waiting:
        if item.ref is not None:
            _answer_stage(turn, reply)
        elif turn.stages.pop(reply, None) is not None:
            turn.refuse(reply, NotFound(f"{item.uri}: {item.message}", hint="is the file still there, below a root?"))


def stage(turn: Turn, reply: int, worker: int, number: int, uris: tuple[str, ...]) -> None:
    """A worker with work of this run needs files of other machines: each is moved once and pinned by digest."""
    run = turn.state.runs.get(number)
    if run is None or not any(key[0] == number for key in turn.state.live.get(worker, ())):
        turn.count("stage_refused")
        turn.refuse(reply, NotFound(f"no work of r{number} is at this worker"))
        return
    missing = [uri for uri in dict.fromkeys(uris) if uri not in run.files]
    for uri in missing:
        if _owner(turn, run, uri) is None:
            name = uri.removeprefix("file://").partition("/")[0]
            turn.refuse(reply, Unavailable(f"{name} is away, its file {uri} can't be read", hint=f"start {name} again"))
            return
    for uri in missing:
        waiting = turn.staging.setdefault((number, uri), [])
        waiting.append(reply)
        owner = _owner(turn, run, uri)
        if len(waiting) == 1 and owner is not None:
            named = any(uri.encode() in task.spec.args for task in run.roots())
            turn.send(owner, Stage(number, uri, named))
    turn.stages[reply] = (number, uris)
    _answer_stage(turn, reply)


def _owner(turn: Turn, run: Run, uri: str) -> Session | None:
    name = uri.removeprefix("file://").partition("/")[0]
    name = run.home if name == "here" else name
    return next((one for one in turn.fleet.sessions.values() if one.name == name), None)


def _answer_stage(turn: Turn, reply: int) -> None:
    number, uris = turn.stages.get(reply, (0, ()))
    run = turn.state.runs.get(number)
    if run is not None and all(uri in run.files for uri in uris):
        del turn.stages[reply]
        turn.reply(reply, {uri: [(ref := run.files[uri]).digest, ref.media, ref.size] for uri in uris})


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
