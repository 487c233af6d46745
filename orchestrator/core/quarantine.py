"""Workers that go wrong where others don't get no new work for a while, are tried with one task at a time, let back in.

Three things tell: attempts that fail (not by their own word), hang beside a copy that ends, or get lost; heartbeats
that come later than they used to; a stream that breaks again and again. Each counts only against the worker's own past
and against its peers: what goes wrong everywhere is no worker's fault (C4, row S25). At most half of the fleet is in
quarantine; work that nobody else may do goes to such a worker all the same, so nothing waits for its recovery.
"""

from __future__ import annotations

from math import isfinite
from statistics import median
from typing import Final

from protocol.outcome import Failure

from . import event as e
from .fleet import Session
from .health import Health
from .turn import Turn

_FAR: Final = 4.0
"""So many times what is usual for it, or for its peers, is not usual."""
_LATE: Final = 3
"""Late beats in a row: by then its peers have spoken, too, if it was our own loop that was late."""
_DOUBTFUL: Final = 0.15
_PROBES: Final = 3
_BREAKS: Final = 4
_BREAKS_S: Final = 120.0
_LONGEST_S: Final = 300.0
_CALM: Final = 10.0
"""Whoever was well for so many rests begins with a short one again."""


def failed(turn: Turn, session: Session, skill: str, failure: Failure) -> None:
    """An attempt failed there. Only what is not the skill's own word counts, of a skill that somebody can do."""
    if failure.klass in ("infra", "transient") and turn.predictor.measured(skill) is not None:
        went_wrong(turn, session, f"{skill} failed: {failure.code}")


def went_wrong(turn: Turn, session: Session, what: str) -> None:
    """It did badly at what others do well."""
    rules = turn.settings.quarantine
    health = session.health
    rate = health.worse()
    if health.why:
        if health.probes:
            _confine(turn, session, health, f"{what} when it was tried again")
    elif rate >= rules.rate:
        peers = [one.rate for one in _peers(turn, session)]
        if peers and rate > 2.0 * median(peers):
            _confine(turn, session, health, f"{rate:.0%} of its last attempts went wrong, at last: {what}")


def went_well(turn: Turn, session: Session) -> None:
    """An attempt succeeded at a worker where one had gone wrong before."""
    health = session.health
    health.good += 1
    if health.probes:
        health.probes -= 1
        if not health.probes:
            _clear(turn, session, health)


def doubtful(turn: Turn, worker: int) -> bool:
    """Whether things have gone wrong there more than once: who fails fast would otherwise take everything."""
    health = turn.fleet.health.get(worker)
    return health is not None and health.rate > _DOUBTFUL


def felt(turn: Turn, session: Session, at: float) -> None:
    """A heartbeat that was written at `at` of its worker's clock."""
    rules = turn.settings.quarantine
    health = session.health
    lag_s = turn.now - at
    delay_s = health.beat(lag_s) if isfinite(lag_s) else 0.0
    health.late = health.late + 1 if delay_s >= rules.delay_s else 0
    if health.late < _LATE or health.why:
        return
    peers = [one.delay_s for one in _peers(turn, session)]
    if peers and delay_s > _FAR * median(peers):
        _confine(turn, session, health, f"its word comes {delay_s:.2g} s later than usual")


def back(turn: Turn, session: Session) -> None:
    """It has a new stream: in quarantine as before, or because its streams break again and again."""
    health = session.health = turn.fleet.health.setdefault(session.worker, session.health)
    health.new_clock()
    session.sick, session.probing = health.why, bool(health.probes)
    since = turn.now - _BREAKS_S
    times = health.broken(since)
    if times < _BREAKS or health.why:
        return
    peers = [one.broken(since) for one in _peers(turn, session)]
    if peers and times > 2 * median(peers):
        _confine(turn, session, health, f"its stream broke {times} times in {_BREAKS_S:g} s")


def probe(turn: Turn, worker: int) -> None:
    """Timer: its rest is over. It is tried with one task at a time, unless its word still comes late."""
    session, health = turn.fleet.sessions.get(worker), turn.fleet.health.get(worker)
    if health is None or not health.why or health.probes or health.until > turn.now:
        return
    if health.delay_s >= turn.settings.quarantine.delay_s:
        _rest(turn, worker, health)
        return
    health.probes = _PROBES
    if session is not None:
        session.probing = True
        turn.fleet.changes += 1


def _peers(turn: Turn, session: Session) -> list[Health]:
    """The others that are there and well."""
    return [
        one.health for one in turn.fleet.sessions.values() if one is not session and not one.sick and one.phase == "up"
    ]


def _confine(turn: Turn, session: Session, health: Health, why: str) -> None:
    if not turn.settings.quarantine.on:
        return
    fleet = turn.fleet
    if not health.why:
        sick = sum(bool(one.sick) for one in fleet.sessions.values())
        if 2 * (sick + 1) > len(fleet.sessions):
            return
        if turn.now - health.cleared_at > _CALM * turn.settings.quarantine.rest_s:
            health.times = 0
    health.why, health.probes, session.probing = why, 0, False
    session.sick = why
    fleet.changes += 1
    _rest(turn, session.worker, health)
    turn.emit(e.WorkerQuarantined(session.worker, why, health.until, turn.now))


def _rest(turn: Turn, worker: int, health: Health) -> None:
    health.until = turn.now + min(_LONGEST_S, turn.settings.quarantine.rest_s * 2.0**health.times)
    health.times += 1
    turn.wake(health.until, "probe", worker)


def _clear(turn: Turn, session: Session, health: Health) -> None:
    health.why, health.rate, health.good, health.cleared_at = "", 0.0, 0, turn.now
    health.breaks.clear()
    session.sick, session.probing = "", False
    turn.fleet.changes += 1
    session.loosen()
    turn.emit(e.WorkerCleared(session.worker, turn.now))
