"""Room is made for who has waited: a running task that keeps checkpoints goes back into the queue, to go on later.

First of all nobody's tasks are started while it is somebody else's turn (core.round); this is for slots that long
tasks have taken before. Room is made for a task of a higher class, or of a user who holds less of the fleet than the
other even after the move, once the other has had it for some time: two take it from each other in slow turns at most.
Only skills that declare `checkpoints` are touched, and what is about to end is left to end. There is no timer per task:
one look serves all, and costs nothing where no skill declares them.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ..placement.fairness import Amounts
from .displacement import displace, displaceable
from .expectation import expected
from .fleet import Displacement, Key, Load, Session
from .graph import Run
from .ledger import amounts_of
from .lifecycle import Open, Ready
from .queue import Lane
from .round import ORDER, Round
from .turn import Turn

_PAUSE_S: Final = 0.1
_PAUSE_EACH_S: Final = 2e-5
"""Looks are so far apart, and by so much more for each attempt under way."""
_AGAIN_S: Final = 1.0
"""Tasks begin and end: who still waits is looked at again."""
_LANES: Final = 16
"""Lanes that one look weighs, in the order of their turn."""


class _Giver(msgspec.Struct, gc=False):
    """An attempt that may be asked to make room."""

    run: Run
    session: Session
    load: Load
    key: Key
    left_s: float


class _Holdings(msgspec.Struct):
    """What is under way: who may be asked, of the lowest class and with most to do first; for which runs how many were
    asked before; what each user has, as if all of those had made room already."""

    givers: list[_Giver] = []
    asked: dict[int, int] = {}
    users: dict[str, list[float]] = {}

    def add(self, user: str, amounts: Amounts, sign: int) -> None:
        held = self.users.setdefault(user, [0.0] * len(amounts))
        for n, amount in enumerate(amounts):
            held[n] += sign * amount


def preempt(turn: Turn) -> None:
    """Make room for those who have waited too long. Called when everything that could go has gone."""
    patience = turn.settings.preempt.after_s
    if not turn.settings.preempt.on or not turn.queue.buckets or not _keepers(turn):
        return
    waiting, due = [], float("inf")
    for bucket in turn.queue.waiting():
        for lane in bucket.lanes.values():
            at = _since(turn, lane) + patience
            if at <= turn.now:
                waiting.append(lane)
            else:
                due = min(due, at)
    if waiting and turn.now >= turn.room.next_look:
        turn.room.next_look = turn.now + _PAUSE_S
        if _look(turn, waiting):
            due = min(due, turn.now + _AGAIN_S)
    elif waiting:
        due = min(due, turn.room.next_look)
    if due < float("inf") and not turn.now < turn.room.wakes_at <= due:
        turn.room.wakes_at = due
        turn.wake(due, "flush")


def _keepers(turn: Turn) -> frozenset[str]:
    """The skills that keep checkpoints."""
    room, state = turn.room, turn.state
    if room.seen != turn.fleet.changes:
        room.seen = turn.fleet.changes
        specs = (state.skill(name) for name in state.digests)
        room.keepers = frozenset(spec.name for spec in specs if spec is not None and spec.checkpoints)
    return room.keepers


def _since(turn: Turn, lane: Lane) -> float:
    """Since when the lane's first task waits; never, if it is not one that waits for room."""
    entry = lane.heap[0]
    run = turn.state.runs.get(lane.run)
    task = run.tasks[entry[5]] if run is not None and type(run.state) is Open and not run.cancelled else None
    fresh = task is not None and type(task.state) is Ready and task.spec is entry[6]
    return task.ready_at if task is not None and fresh and lane.bucket.roster.up else float("inf")


def _look(turn: Turn, waiting: list[Lane]) -> bool:
    """Ask attempts to make room; whether there is any that could be asked, now or later."""
    held = _holdings(turn)
    if not held.givers:
        return bool(held.asked)
    for lane in waiting:
        lane.bucket.full = False  # nobody has room, that is why
    turns = Round(turn, waiting)
    for _ in range(_LANES):
        first = turns.first()
        if first is None:
            break
        first.passed = True
        run = turn.state.runs[first.run]
        found = None
        if held.asked.get(run.ix, 0) < len(first.heap):
            found = next((one for one in held.givers if _gives(turn, held, one, first, run)), None)
        if found is not None:
            held.givers.remove(found)
            _ask(turn, held, found, run)
    for lane in waiting:
        lane.passed = False
    return True


def _holdings(turn: Turn) -> _Holdings:
    held, keepers, seen = _Holdings(), _keepers(turn), 0
    for session in turn.fleet.sessions.values():
        seen += len(session.loads)
        for key, load in session.loads.items():
            run = turn.state.runs.get(key[0])
            if run is None or not load.started or load.paused:
                continue
            making = load.displaced
            taker = turn.state.runs.get(making.room_for) if making is not None else None
            held.add((taker or run).author, amounts_of(session, load), 1)
            if taker is not None:
                held.asked[taker.ix] = held.asked.get(taker.ix, 0) + 1
            elif load.skill in keepers and load.cancelled_at < 0 and displaceable(turn, *turn.located(key)):
                told = expected(turn, session, load.skill, load.device)
                elapsed = turn.now - load.at
                left_s = max(told.run_s - elapsed, elapsed) if told.n else float("inf")
                if left_s > turn.settings.preempt.soon_s:
                    held.givers.append(_Giver(run, session, load, key, left_s))
    held.givers.sort(key=lambda one: (-ORDER[one.run.settings.sla], -one.left_s, one.key))
    turn.room.next_look += _PAUSE_EACH_S * seen
    return held


def _gives(turn: Turn, held: _Holdings, giver: _Giver, lane: Lane, run: Run) -> bool:
    """Whether its end would let the lane's first task start there, and that is who should have the room."""
    free, needs = giver.session.free, giver.load.needs
    berths = lane.bucket.roster.by_worker.get(giver.session.worker, ())
    if not any(
        all(free.get(name, 0.0) + needs.get(name, 0.0) + 1e-9 >= amount for name, amount in berth.needs.items())
        for berth in berths
    ):
        return False
    ahead = ORDER[giver.run.settings.sla] - ORDER[run.settings.sla]
    if ahead or giver.run.author == run.author:
        return ahead > 0
    if turn.now - giver.load.at < turn.settings.preempt.turn_s:
        return False
    moved = amounts_of(giver.session, giver.load)
    less = [had - one for had, one in zip(held.users[giver.run.author], moved, strict=True)]
    more = [had + one for had, one in zip(held.users.get(run.author, [0.0] * len(moved)), moved, strict=True)]
    share = turn.ledger.fairness.share
    return share(giver.run.author, less) >= share(run.author, more)


def _ask(turn: Turn, held: _Holdings, giver: _Giver, run: Run) -> None:
    sla = run.settings.sla
    whose = f", which is {sla}" if sla != giver.run.settings.sla else f" of {run.author}, who has less"
    why = f"stopped behind a checkpoint to make room for {run.name}{whose}"
    if displace(turn, *turn.located(giver.key), Displacement(why, room_for=run.ix)):
        moved = amounts_of(giver.session, giver.load)
        held.add(giver.run.author, moved, -1)
        held.add(run.author, moved, 1)
        held.asked[run.ix] = held.asked.get(run.ix, 0) + 1
