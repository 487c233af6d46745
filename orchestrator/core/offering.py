"""One task's offers: what each device that may run it would mean for it, and which of them it takes.

Candidates only: whoever holds its inputs, and the next device of each group of like ones; where groups are coarse, two
more that are drawn. So a decision costs the same among ten devices and among a thousand. Late binding: the best offer
may be a device without room, and then the task waits in the queue.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Final

from protocol.artifact import ArtifactRef

from ..placement.policy import WAIT, Offer
from ..placement.thrift import Thrift
from .approval import ask_approval
from .binding import Bound
from .expectation import expected, size_of, units
from .fleet import Load, Session
from .frugality import policy_for
from .graph import Run, Task
from .guidance import Plan, in_turn, planned, wait
from .lifecycle import Ready
from .quarantine import doubtful
from .queue import Bucket
from .roster import Berth
from .sending import bind, send
from .turn import Turn
from .warmth import warm_at

_DRAWN: Final = 2
_NOBODY: Final[frozenset[int]] = frozenset()
_SKIPPED: Final = 4
"""More workers to be left out than this, and all devices are looked at."""
_LOADS: Final = 64
"""Attempts of a device that are looked at to tell when it has room again."""


def place(
    turn: Turn, run: Run, task: Task, bucket: Bucket, first: Berth | None, hedge: bool, doubts: str, last: bool
) -> bool:
    """Dispatch the task, or settle it, or ask for approval; False when it should wait for a better offer.

    `first`: one that has room, None if nobody has. `last`: decide as if everything else in the bucket went before it.
    """
    bound: Bound | None = None
    roster = bucket.roster
    asking = roster.asking
    must = bool(task.spec.approve or doubts)
    if asking or must:
        bound = bind(turn, run, task)
        if bound is None:
            return True
        if bound.pin == task.approved:
            asking = frozenset()
        elif must or len(asking) == roster.workers:
            if hedge:
                turn.hedges.discard((run.ix, task.ix))
            else:
                ask_approval(turn, run, task, bucket.spec, doubts, bound)
            return True
    if hedge:
        asking |= {attempt.worker for attempt in task.attempts if not attempt.ended}
    planning = not hedge and not asking and run.settings.prefer == "time"
    if planning and bucket.spec.warm_s:  # a plan knows nothing of what is warm
        planning = not warm_at(turn, run, bucket.spec.name)
    if planning and (found := planned(turn, run, task, roster)) is not None:
        return _follow(turn, run, task, bucket, found, bound)
    berths, offers, chosen = choice(turn, run, task, bucket, first, asking, bucket.waiting if last else 0)
    if chosen == WAIT:
        policy = policy_for(turn, run, task)
        _promise(turn, berths, offers, policy.best(offers) if offers and isinstance(policy, Thrift) else WAIT)
        return False
    berth = berths[chosen]
    why = policy_for(turn, run, task).why(offers, chosen) if len(offers) > 1 else ""
    send(turn, run, task, berth.session, bucket.spec, berth.device, berth.needs, why, hedge, bound)
    return True


def _follow(turn: Turn, run: Run, task: Task, bucket: Bucket, found: tuple[Plan, Berth], bound: Bound | None) -> bool:
    """Send it where it is planned to run, if it is its turn there; else it waits."""
    plan, berth = found
    session, large = berth.session, _large(run, task)
    run_s = expected(turn, session, bucket.spec.name, berth.device, size_of(turn, run, task), units(run, task)).run_s
    room = session.has_room(berth.needs, bucket.window)
    if not room and large and session.has_queue(berth.needs, turn.settings.prefetch_max):
        room = _wait_s(turn, session) <= _moves(turn, large, session)[0]
    if not room or not in_turn(turn, run, task, plan, session, run_s):
        wait(turn, plan)
        return False
    why = f"heft: planned there, {run_s:.3g} s of the {plan.end - turn.now:.3g} s that are left of {run.name}"
    send(turn, run, task, session, bucket.spec, berth.device, berth.needs, why, False, bound)
    return True


def worthwhile(turn: Turn, run: Run, task: Task, bucket: Bucket, first: Berth | None) -> bool:
    """Whether what is like this task, which waits, would still wait if it were the last of its bucket.

    Nobody in the bucket takes what has room if not even that one does: so much work does a fast device have before it
    that a slow one finishes first, or so little that nobody should look at the slow one.
    """
    if not anywhere(run, task) or not bucket.waiting:
        return True
    return choice(turn, run, task, bucket, first, bucket.roster.asking, bucket.waiting)[2] != WAIT


def choice(
    turn: Turn, run: Run, task: Task, bucket: Bucket, first: Berth | None, without: frozenset[int], behind: int
) -> tuple[list[Berth], list[Offer], int]:
    """The candidates, what each would mean, and which is taken, or WAIT: one decision, nothing is changed.

    `without` these workers, `behind` so many others of the bucket.
    """
    berths, offers = _offers(turn, run, task, bucket, first, without, behind)
    chosen = policy_for(turn, run, task).choose(offers) if offers else WAIT
    if chosen == WAIT and len({offer.worker for offer in offers}) == 1 and offers[0].room:
        chosen = 0
    return berths, offers, chosen


def anywhere(run: Run, task: Task) -> bool:
    """Nothing about the task itself prefers one device: no approval, no failure to avoid, nothing large to move."""
    if task.spec.approve or (type(task.state) is Ready and task.state.avoid >= 0):
        return False
    for ix in task.wiring.needs:  # noqa: SIM110 every task passes here: a generator would cost three times as much
        if type(run.tasks[ix].value) is ArtifactRef:
            return False
    return True


def window_of(turn: Turn, bucket: Bucket) -> int:
    """Prefetch depth of a session for this skill: enough short tasks to cover the target, none for long ones.

    In powers of two: a wider window has everybody looked at again.
    """
    run_s = turn.predictor.measured(bucket.spec.name)
    if run_s is None:
        return 0
    most = turn.settings.prefetch_max
    window = int(min(most, turn.settings.prefetch_target_s / run_s)) if run_s > 0 else most
    return 1 << window.bit_length() - 1 if window else 0


def _offers(
    turn: Turn, run: Run, task: Task, bucket: Bucket, first: Berth | None, without: frozenset[int], behind: int
) -> tuple[list[Berth], list[Offer]]:
    skill, predictor = bucket.spec.name, turn.predictor
    large: list[Task] = []
    size, elements = 0, units(run, task) if task.parent >= 0 else 1
    if task.wiring.needs or bucket.spec.takes:
        size = size_of(turn, run, task)
        large = _large(run, task)
    warm = warm_at(turn, run, skill) if bucket.spec.warm_s else _NOBODY
    found = _found(turn, run, task, bucket, first, without, large, warm)
    of, crowded = (predictor.fits, size, elements, -1), predictor.crowded
    offers: list[Offer] = []
    for berth, start_s in found:
        session, group, device = berth.session, berth.group, berth.profile
        if crowded:
            of = predictor.fits, size, elements, session.beside(berth.needs)
        if group.predicted_of != of:  # alike as they are, one stands for all until something was learned
            group.predicted_of = of
            group.predicted_s = expected(turn, session, skill, berth.device, *of[1:]).run_s
        run_s, room = group.predicted_s, start_s < 0
        if room:
            start_s = 0.0
        else:
            start_s += ((group.promised if group.flush == turn.flushes else 0) + behind) * run_s / group.slots
        transfer_s, moved = _moves(turn, large, session) if large else (0.0, 0)
        if large and not room and start_s <= transfer_s:  # bound now, its inputs travel while it waits
            room = session.has_queue(berth.needs, turn.settings.prefetch_max)
        price, joules = run_s * device.price_per_s, run_s * device.watts
        load = len(session.loads)
        cold = bool(warm) and session.worker not in warm
        offers.append(
            Offer(session.worker, berth.device, room, start_s, run_s, transfer_s, load, moved, price, joules, cold)
        )
    return [berth for berth, _ in found], offers


def _found(
    turn: Turn,
    run: Run,
    task: Task,
    bucket: Bucket,
    first: Berth | None,
    without: frozenset[int],
    large: list[Task],
    warm: frozenset[int],
) -> list[tuple[Berth, float]]:
    """See _found_without. Who lost the task before comes only if nobody else has room, and is not in doubt."""
    avoid = task.state.avoid if type(task.state) is Ready else -1
    if avoid >= 0:
        found = _found_without(turn, run, task, bucket, first, without | {avoid}, large, warm)
        if any(start_s < 0 for _, start_s in found) or (found and doubtful(turn, avoid)):
            return found
    return _found_without(turn, run, task, bucket, first, without, large, warm)


def _found_without(
    turn: Turn,
    run: Run,
    task: Task,
    bucket: Bucket,
    first: Berth | None,
    without: frozenset[int],
    large: list[Task],
    warm: frozenset[int],
) -> list[tuple[Berth, float]]:
    """The candidates; all there are where that is wanted, or where who may take it is told by looking at each."""
    parent = bool(bucket.spec.spawns)
    if not parent and not turn.policy.wide and len(without) <= _SKIPPED:
        return _candidates(turn, bucket, first, without, large, warm)
    found = [one for one in bucket.roster.up if one.session.worker not in without]
    if parent:
        found = [one for one in found if not _crowded(turn, run, task, one.session)]
    return [(one, _start_s(turn, one, bucket.window)) for one in found]


def _candidates(
    turn: Turn,
    bucket: Bucket,
    first: Berth | None,
    without: frozenset[int],
    large: list[Task],
    warm: frozenset[int],
) -> list[tuple[Berth, float]]:
    """(device, seconds until it has a slot; negative with room) of those that are looked at, each once."""
    skip: Callable[[Berth], bool] | None = (lambda one: one.session.worker in without) if without else None
    roster, window, now = bucket.roster, bucket.window, turn.now
    begun = first.group if first is not None and (skip is None or not skip(first)) else None
    wait_s = partial(_wait_s, turn)
    found: list[tuple[Berth, float]] = []
    for group in roster.groups:
        berth = first if begun is group else group.next(window, skip)
        if berth is not None:
            found.append((berth, -1.0))
        else:
            late = group.soonest(now, wait_s)
            if skip is None or not skip(late[0]):
                found.append(late)
    if large or warm:
        holders = [*warm, *(winner.worker for up in large if (winner := up.winner()) is not None)]
        more = [berth for worker in holders for berth in roster.by_worker.get(worker, ())]
        if large and not roster.exact:  # the devices of a group are not all as far away
            more += [berth for berth in roster.drawn(_DRAWN) if berth.session.has_room(berth.needs, window)]
        known = {berth for berth, _ in found}
        for berth in dict.fromkeys(more):
            if berth not in known and (skip is None or not skip(berth)):
                found.append((berth, _start_s(turn, berth, window)))
    return found


def _promise(turn: Turn, berths: list[Berth], offers: list[Offer], best: int) -> None:
    """It waits: whoever decides after it finds the devices that it waits for taken for longer. `best`: which of them it
    wants, if its policy says so."""
    full = [(max(offer.start_s, offer.transfer_s) + offer.run_s, n) for n, offer in enumerate(offers) if not offer.room]
    if full:
        group = berths[best if best != WAIT else min(full)[1]].group
        group.promised = group.promised + 1 if group.flush == turn.flushes else 1
        group.flush = turn.flushes


def _crowded(turn: Turn, run: Run, task: Task, session: Session) -> bool:
    """As many parents as it has slots are there, running or waiting: another one only if a parent waits for it."""
    above = task
    while above.parent >= 0:
        above = run.tasks[above.parent]
        if above.spawned is not None:
            return False
    skills = (turn.state.skill(load.skill) for load in session.loads.values())
    return sum(spec is not None and bool(spec.spawns) for spec in skills) >= session.profile.slots


def _start_s(turn: Turn, berth: Berth, window: int) -> float:
    """Seconds until it has a slot; negative with room."""
    return -1.0 if berth.session.has_room(berth.needs, window) else _wait_s(turn, berth.session)


def _wait_s(turn: Turn, session: Session) -> float:
    """Seconds until one of its slots is expected to be free, after what is queued there."""
    queued, soonest = 0.0, math.inf
    for load in islice(session.loads.values(), _LOADS):
        if not load.started:
            queued += left_s(turn, load)
        elif not load.paused:
            soonest = min(soonest, left_s(turn, load))
    return queued / session.profile.slots + (soonest if soonest < math.inf else 0.0)


def left_s(turn: Turn, load: Load) -> float:
    """Seconds that an attempt is expected to run yet; what is late takes as long again as it is late."""
    run_s = load.predicted.run_s if load.predicted is not None else turn.predictor.measured(load.skill) or 0.0
    passed = turn.now - load.at
    return max(run_s - passed, run_s * 0.1, passed - run_s) if load.started else run_s


def transfer(turn: Turn, run: Run, task: Task, session: Session) -> tuple[float, int]:
    """Expected seconds to move the task's large inputs to the worker, and how many bytes."""
    return _moves(turn, _large(run, task), session)


def _large(run: Run, task: Task) -> list[Task]:
    return [up for ix in task.wiring.needs if isinstance((up := run.tasks[ix]).value, ArtifactRef)]


def _moves(turn: Turn, large: list[Task], session: Session) -> tuple[float, int]:
    seconds, moved = 0.0, 0
    for up in large:
        assert isinstance(up.value, ArtifactRef)
        winner = up.winner()
        if winner is None or winner.worker != session.worker:
            seconds += turn.predictor.transfer_s(session.worker, session.profile.link, up.value.size)
            moved += up.value.size
    return seconds, moved
