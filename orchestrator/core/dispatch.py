"""Placement, once per Flush: ready tasks to workers, in order of urgency, as far as credit reaches.

Late binding: a task stays in the orchestrator's queue until a device that suits it has room. What can't be placed
keeps its reason for `explain`.
"""

from __future__ import annotations

import heapq
import sys
from math import inf
from typing import Final

from .eligibility import could_return, lacking
from .enlistment import roster_of
from .expectation import learn
from .guidance import again, steer
from .intake import absorb, parked, unbar, unpark
from .isolation import alone
from .lifecycle import Open, Ready, Running
from .offering import anywhere, place, window_of, worthwhile
from .poison import suspect
from .preemption import preempt
from .queue import HOPELESS, PATIENCE, Bucket, Entry, Lane
from .recall import take_back
from .reservation import honoured, reserve
from .roster import Roster
from .round import Round
from .sending import send
from .settlement import fail
from .straggler import hurry
from .trust import barred, doubt
from .turn import Turn
from .warmth import warm_at

OWED_S: Final = 0.05
"""So long what is owed may wait for a Lull."""
_FEW: Final = 8
"""Of what is so short that a session holds many, some go in one turn."""


def flush(turn: Turn, brief: bool = False) -> None:
    """Dispatch everything that may go now. `brief`: run times are taken in, and plans made again, after what was
    decided has left, in a Lull; unless none comes."""
    turn.flushes += 1
    absorb(turn)
    brief = brief and turn.now <= turn.owes_since + OWED_S
    if not brief:
        learn(turn)
        turn.owes_since = inf
        turn.drifted.clear()
    if turn.disk_full or not turn.started:
        return
    if turn.barred:
        unbar(turn, turn.barred, lambda run: run.planned)
    if turn.dry:
        unbar(turn, turn.dry, lambda run: not run.spend.lends or not run.spend.spent(run.settings.budget))
    while True:
        _dispatch(turn, brief)
        if turn.suspects:
            alone(turn)
        if not turn.parked or not unpark(turn):
            break
    take_back(turn)
    hurry(turn)
    preempt(turn)
    reserve(turn)
    if brief and (turn.drifted or turn.predictor.due(turn.now)):
        turn.owes_since = min(turn.owes_since, turn.now)


def lull(turn: Turn) -> None:
    """See to what is owed to later decisions."""
    learn(turn)
    again(turn)
    turn.owes_since = inf


def _dispatch(turn: Turn, brief: bool) -> None:
    """One run's tasks by urgency; those of several runs one by one, whoever's turn it is."""
    lanes = [lane for bucket in turn.queue.waiting() if _open(turn, bucket) for lane in bucket.lanes.values()]
    steer(turn, lanes, brief)
    if turn.room.kept:
        for lane in honoured(turn):
            _drain(turn, lane, 1)
    if len({lane.run for lane in lanes if lane.heap}) > 1:
        turns = Round(turn, lanes)
        while (first := turns.first()) is not None:
            _drain(turn, first, 1 + first.bucket.window // _FEW)
    else:
        if turn.ledger.counts:
            turn.ledger.rest(turn.fleet, turn.now)
        _by_urgency(turn, lanes)
    for lane in lanes:
        lane.restore()


def _by_urgency(turn: Turn, lanes: list[Lane]) -> None:
    """The lanes of one run: whatever is the most urgent next, of whichever kind it is."""
    heads = [(lane.heap[0], n) for n, lane in enumerate(lanes) if lane.heap]
    heapq.heapify(heads)
    while heads:
        lane = lanes[heads[0][1]]
        _drain(turn, lane, 1 + lane.bucket.window // _FEW if len(heads) > 1 else sys.maxsize)
        if lane.heap and not lane.over:
            heapq.heapreplace(heads, (lane.heap[0], heads[0][1]))
        else:
            heapq.heappop(heads)


def _open(turn: Turn, bucket: Bucket) -> bool:
    """Whether somebody may have room for a task of the bucket."""
    if bucket.roster.era != turn.fleet.changes:
        bucket.spec = turn.state.skill(bucket.kind.skill) or bucket.spec
        bucket.roster = roster_of(turn, bucket.kind, bucket.spec)
    if not bucket.roster.berths:
        _stuck(turn, bucket)
        return False
    bucket.stuck_since = -1.0
    bucket.window = window_of(turn, bucket)
    bucket.full = False
    return True


def _drain(turn: Turn, lane: Lane, most: int = sys.maxsize) -> None:
    """Give away the lane's tasks, at most so many, while there is room and patience."""
    bucket, aside = lane.bucket, lane.aside
    roster, window = bucket.roster, bucket.window
    heap, hedges, skill = lane.heap, turn.hedges, bucket.kind.skill
    while heap and most and len(aside) < lane.patience:
        berth = roster.next(window)
        if berth is None and not _travels(turn, heap[0], roster):
            bucket.full = True
            return
        most -= 1
        entry = heapq.heappop(heap)
        run = turn.state.runs.get(entry[4])
        if run is None or type(run.state) is not Open or run.cancelled:
            continue  # RunResumed brings it back
        turn.focus = run.ix
        task = run.tasks[entry[5]]
        hedge = False
        if type(task.state) is not Ready:
            hedge = bool(hedges) and (run.ix, task.ix) in hedges and type(task.state) is Running
            if not hedge:
                continue
        if task.spec is not entry[6] or task.skill != skill:
            continue  # it was replaced, or goes on by other means, and is queued as such
        if run.claims and run.held(task.ix):
            continue  # ClaimReleased brings it back
        if barred(run, task, bucket.spec):
            turn.barred.setdefault(run.ix, {})[task.ix] = None
            continue
        if task.parent >= 0 and task.spec.map.limit and parked(turn, run, task):
            continue
        if task.attempts and suspect(turn, task):
            turn.hedges.discard((run.ix, task.ix))
            if not hedge:
                turn.suspects[run.ix, task.ix] = None
            continue
        why = doubt(turn, run, task, bucket.spec)
        plain = not hedge and not why and not bucket.spec.spawns and anywhere(run, task)
        if plain and bucket.spec.warm_s:
            plain = not warm_at(turn, run, skill)
        if berth is None:
            lane.patience = HOPELESS
        elif roster.alike and plain:
            send(turn, run, task, berth.session, bucket.spec, berth.device, berth.needs, "", False, None)
            continue
        if lane.patience == HOPELESS and plain:
            aside.append(entry)
        elif not place(turn, run, task, bucket, berth, hedge, why, len(aside) + 1 == PATIENCE):
            aside.append(entry)
            if len(aside) == 1 and lane.patience == PATIENCE and not worthwhile(turn, run, task, bucket, berth):
                lane.patience = HOPELESS


def _travels(turn: Turn, entry: Entry, roster: Roster) -> bool:
    """Nobody has room, but the inputs of the first could be on their way to who will have."""
    run = turn.state.runs.get(entry[4])
    return (
        run is not None
        and not anywhere(run, run.tasks[entry[5]])
        and roster.next(turn.settings.prefetch_max) is not None
    )


def _stuck(turn: Turn, bucket: Bucket) -> None:
    """No connected worker may run these: wait for one that is away, else fail them after the grace."""
    if could_return(turn.state, turn.fleet, bucket.kind, bucket.spec):
        bucket.stuck_since = -1.0
        return
    if bucket.stuck_since < 0:
        bucket.stuck_since = turn.now
    first = float("inf")
    for lane in bucket.lanes.values():
        rest: list[Entry] = []
        for entry in lane.heap:
            run = turn.state.runs.get(entry[4])
            if run is None or type(run.state) is not Open:
                continue
            task = run.tasks[entry[5]]
            if type(task.state) is not Ready or task.spec is not entry[6] or task.skill != bucket.kind.skill:
                continue
            due = max(bucket.stuck_since, task.ready_at) + run.settings.schedule_grace_s
            if due > turn.now:
                rest.append(entry)
                first = min(first, due)
            else:
                fail(turn, run, task, "NoEligibleWorker", lacking(turn.state, turn.fleet, bucket.kind, bucket.spec))
        heapq.heapify(rest)
        lane.heap = rest
    if first < float("inf") and bucket.wakes_at != first:
        bucket.wakes_at = first
        turn.wake(first, "flush")
