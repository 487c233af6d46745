"""A worker is kept for a large task that has waited for its turn and is passed by small ones.

What needs several cores, a card or much memory finds them free together only by luck while small tasks take each part
that becomes free. The first in turn that has waited so gets a worker kept empty until it fits. Invariant: at most one
of `_SHARE` workers is kept, each for one task (`Session.kept_for`) and for so long, and let go as soon as that is not
what waits first of its run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .graph import Run
from .lifecycle import Open
from .queue import Bucket, Lane
from .roster import Berth
from .round import Round
from .turn import Turn

_SHARE: Final = 8
_PAUSE_S: Final = 0.5
_LONGEST_S: Final = 30.0
"""What is not empty by then has something long to do: it is let go, and nobody is kept for as long."""


def honoured(turn: Turn) -> Iterator[Lane]:
    """Lanes whose first task has now got the room that was kept for it."""
    for key, (worker, kind, until) in list(turn.room.kept.items()):
        session, bucket = turn.fleet.sessions.get(worker), turn.queue.buckets.get(kind)
        lane = bucket.lanes.get(key[0]) if bucket is not None else None
        mine = session is not None and session.kept_for == key
        first = lane is not None and bool(lane.heap) and lane.heap[0][5] == key[1] and _open(turn, key[0])
        fits = session is not None and bucket is not None and any(map(_fits, bucket.roster.by_worker.get(worker, ())))
        if mine and first and not fits and turn.now < until:
            continue
        del turn.room.kept[key]
        if not fits:
            turn.room.next_reserve = max(turn.room.next_reserve, turn.now + _LONGEST_S)
        if session is not None and mine:
            session.keep_for(None)
            if lane is not None and first and fits:
                yield lane


def reserve(turn: Turn) -> None:
    """Keep a worker for the first in turn, if that has waited for long. Called when all that could go has gone."""
    room, sessions = turn.room, turn.fleet.sessions
    if turn.now < room.next_reserve or not turn.queue.buckets or len(room.kept) * _SHARE >= max(1, len(sessions)):
        return
    room.next_reserve = turn.now + _PAUSE_S
    waiting = [
        lane
        for bucket in turn.queue.waiting()
        for lane in bucket.lanes.values()
        if _open(turn, lane.run) and bucket.roster.up
    ]
    for lane in waiting:
        lane.bucket.full = False
    first = Round(turn, waiting).first() if len({lane.run for lane in waiting}) > 1 else next(iter(waiting), None)
    if first is None:
        return
    run = turn.state.runs[first.run]
    task = run.tasks[first.heap[0][5]]
    if task.ready_at + turn.settings.keep_after_s > turn.now or (run.ix, task.ix) in room.kept:
        return
    best = _emptiest(first.bucket)
    if best is not None:
        best.session.keep_for((run.ix, task.ix))
        until = turn.now + _LONGEST_S
        room.kept[run.ix, task.ix] = best.session.worker, first.bucket.kind, until
        turn.wake(until, "flush")


def _open(turn: Turn, number: int) -> bool:
    run: Run | None = turn.state.runs.get(number)
    return run is not None and type(run.state) is Open and not run.cancelled


def _fits(berth: Berth) -> bool:
    session = berth.session
    return session.slots_free > 0 and not session.queue and session.fits(berth.needs)


def _emptiest(bucket: Bucket) -> Berth | None:
    """Where a task of the bucket will fit with the least to wait for; none if it is no larger than others."""
    found = [
        berth
        for berth in bucket.roster.up
        if berth.session.kept_for is None and (berth.needs.get("cpu", 0.0) > 1.0 or set(berth.needs) - {"cpu"})
    ]
    return min(found, key=lambda one: (len(one.session.loads), one.session.worker), default=None)
