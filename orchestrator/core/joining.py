"""Hello: who joins, what becomes of everything the worker holds, and how this journal knows that it is only a copy.

Invariants: a worker has one current stream, and the newest wins; what is held for another journal is never judged by
ours; the epoch is above every one that a worker has seen of this journal. A worker that comes back finds its attempts
as it left them: nothing restarts that need not.
"""

from __future__ import annotations

from typing import Final

from protocol.frame import FEATURES, PROTOCOL_VERSIONS, Bye, Held, HeldVerdict, Hello, Welcome
from protocol.outcome import Failure, Usage

from . import command as c
from . import event as e
from .adoption import judged, vanished
from .announcement import objection
from .assignment import assign
from .eligibility import amounts
from .expectation import declared
from .fleet import Key, Load, Session
from .lifecycle import Settled
from .quarantine import back
from .settlement import end_attempt, stop_attempt
from .staging import owner_left
from .state import WorkerRecord
from .turn import Turn

_NONE: Final = Usage()
EPOCHS_AHEAD: Final = 10_000
"""How many starts the copy that a journal was restored from may be behind; more than that is a lie."""
PROFILES_AWAY_S: Final = 60.0
HELD_MOST: Final = 20_000
"""Attempts a Hello may hold: a full outbox, and then some."""


def joined(turn: Turn, conn: int, worker: int, hello: Hello) -> None:
    """A stream said Hello: supersede an older one, judge everything the worker holds, welcome it."""
    record = turn.state.workers.get(worker)
    if record is None or record.gone or record.name != hello.worker:
        _refuse(turn, conn, hello, "UnknownWorker", "unknown or removed identity")
        return
    why = objection(turn.state, hello.profile)
    if why:
        _refuse(turn, conn, hello, "BadProfile", f"it announces {why}")
        return
    ours = hello.journal == turn.state.journal
    if ours and hello.last_epoch > turn.state.epoch + EPOCHS_AHEAD:
        _refuse(turn, conn, hello, "ImpossibleEpoch", f"epoch {hello.last_epoch} was never reached")
        return
    if len(hello.running) + len(hello.spooled) > HELD_MOST:
        _refuse(turn, conn, hello, "TooMuchHeld", f"a worker holds at most {HELD_MOST} attempts")
        return
    news = _announcement(turn, record, hello)
    if news is not None and not turn.fleet.may_announce(worker, turn.now):
        _refuse(
            turn, conn, hello, "TooManyProfiles", "it says something else of itself again and again", PROFILES_AWAY_S
        )
        return
    if ours and hello.last_epoch >= turn.state.epoch and not _welcomed(turn, worker, hello):
        _take_over(turn, record, hello.last_epoch)
    same_boot = turn.fleet.last_boot.get(worker) == hello.boot_id
    old = turn.fleet.sessions.get(worker)
    if old is not None:
        turn.send(old, Bye(-1.0, "another stream of this worker took over", "Superseded"))
        turn.command(c.Close(old.conn))
        owner_left(turn, old)
        if not same_boot and turn.fleet.flaps(old, hello.boot_id, turn.now):
            turn.inadmissible(record.name, "TwoDaemons", "two daemons with one identity took over from each other")
    session = Session(conn, worker, record.name, hello.boot_id, hello.profile, turn.now)
    turn.fleet.joined(session)
    back(turn, session)
    if record.lost:
        turn.emit(e.WorkerReturned(worker, turn.now))
    if news is not None:
        turn.emit(news)
    declared(turn, hello.profile.skills)
    held = (*hello.running, *hello.spooled) if ours else ()
    verdicts, kept = _judge(turn, session, held)
    lost = [key for key in turn.state.live.get(worker, ()) if key not in kept]
    turn.fleet.welcomed[worker] = turn.state.epoch
    turn.send(
        session,
        Welcome(
            turn.state.journal, turn.state.epoch, conn, lease_s=session.lease_s, heartbeat_s=session.heartbeat_s,
            verdicts=verdicts, features=hello.features & FEATURES,
            version=min(PROTOCOL_VERSIONS[1], hello.versions[1]),
        ),
        after_commit=True,
    )  # fmt: skip
    for key in kept:
        _resumed(turn, key)
    for key in lost:
        run, task, attempt = turn.located(key)
        if vanished(turn, session, key):
            failure = Failure("DeviceLost", f"{record.name} no longer has the {attempt.device} it ran on", "infra")
            end_attempt(turn, run, task, attempt, failure, _NONE, lost=True)
        elif same_boot and not (task.cancelling or run.cancelled or attempt.began or type(task.state) is Settled):
            assign_again(turn, session, key)  # it was on its way when the old stream broke
        else:
            why = "lost on its way" if same_boot else "not held by its worker any more"
            died = not same_boot
            end_attempt(turn, run, task, attempt, Failure("Lost", why, "infra"), _NONE, lost=True, death=died)
    turn.wake(turn.now + session.suspect_s, "silence", conn)


def _refuse(turn: Turn, conn: int, hello: Hello, code: str, why: str, retry_after_s: float = -1.0) -> None:
    turn.inadmissible(hello.worker, code, f"a Hello: {why}")
    turn.command(c.Send(conn, Bye(retry_after_s, why, code)))
    turn.command(c.Close(conn))


def _welcomed(turn: Turn, worker: int, hello: Hello) -> bool:
    """Whether it knows this epoch from us: a worker may come back many times within one start."""
    return hello.last_epoch == turn.fleet.welcomed.get(worker)


def _take_over(turn: Turn, record: WorkerRecord, seen: int) -> None:
    """A worker has seen an epoch that we have not begun: the journal was restored from a copy. Its lost future may have
    issued every fence up to there, so ours begin behind."""
    turn.emit(e.EpochStarted(seen + 1, turn.state.journal, record.name, turn.now))


def _judge(turn: Turn, session: Session, held: tuple[Held, ...]) -> tuple[tuple[HeldVerdict, ...], dict[Key, None]]:
    """(a verdict on each, what goes on)"""
    verdicts: list[HeldVerdict] = []
    kept: dict[Key, None] = {}
    for one in held:
        found = judged(turn, session, one)
        verdicts.append(HeldVerdict(one.attempt, found))
        if found in ("keep", "resend"):
            kept[one.attempt.run, one.attempt.task, one.attempt.number] = None
    return tuple(verdicts), kept


def _resumed(turn: Turn, key: Key) -> None:
    """Its worker is back with it: no copy is wanted any more, and a cancel that could not be sent is."""
    run, task, attempt = turn.located(key)
    turn.hedges.discard(key[:2])
    if attempt.live and (task.cancelling or run.cancelled):
        stop_attempt(turn, run, task, attempt)


def assign_again(turn: Turn, session: Session, key: Key) -> None:
    """The Assign got lost: send it once more, if it is still what would be sent."""
    run, task, attempt = turn.located(key)
    spec = turn.contract(task)
    bound = turn.binder.bind(run, task, turn.state.journal, turn.state.digests.get(task.skill, ""))
    if spec is None or bound.pin != attempt.pin:
        failure = Failure("Lost", "it got lost on its way, and is another by now", "infra")
        end_attempt(turn, run, task, attempt, failure, _NONE, lost=True)
        return
    load = session.loads.get(key)
    if load is None:
        needs = amounts(task.spec.needs, spec.variants[0])
        load = Load(needs, attempt.fence, task.skill, attempt.device, turn.now, False)
        session.take(key, load)
    load.resent, load.delivered = True, False
    again = assign(turn, run, task, spec, key[2], attempt.fence, bound, load.device, load.needs)
    turn.send(session, again, after_commit=True)


def _announcement(turn: Turn, record: WorkerRecord, hello: Hello) -> e.SkillsAnnounced | None:
    """What is new of what it says of itself."""
    profile = hello.profile
    devices = tuple(dict.fromkeys(device.kind for device in profile.devices))
    digests = {skill.name: skill.digest() for skill in profile.skills}
    known = record.skills, record.labels, record.devices, record.capacity, record.policies, record.edge
    if known == (digests, profile.labels, devices, profile.capacity, profile.policies, profile.edge):
        return None
    return e.SkillsAnnounced(
        record.ix, profile.skills, profile.labels, devices, profile.capacity, profile.policies, profile.edge
    )
