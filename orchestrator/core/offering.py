"""One task's offers: what each device that may run it would mean for it, and which of them it takes.

Late binding: the best offer may be a device without room, and then the task waits in the queue.
"""

from __future__ import annotations

from protocol.artifact import ArtifactRef

from ..placement.policy import WAIT, Offer
from .approval import ask_approval
from .binding import Bound
from .expectation import expected, input_bytes
from .fleet import Session
from .graph import Run, Task
from .lifecycle import Ready
from .queue import Bucket
from .sending import bind, send
from .turn import Turn


def place(turn: Turn, run: Run, task: Task, bucket: Bucket, hedge: bool, window: int, doubts: str) -> bool:
    """Dispatch the task, or settle it, or ask for approval; False when it should wait for a better offer."""
    taken = {attempt.worker for attempt in task.attempts if not attempt.ended} if hedge else set()
    avoid = task.state.avoid if type(task.state) is Ready else -1
    bound: Bound | None = None
    asking = bucket.asking
    must = bool(task.spec.approve or doubts)
    if asking or must:
        bound = bind(turn, run, task)
        if bound is None:
            return True
        if bound.pin == task.approved:
            asking = frozenset()
        elif must or len(asking) == len({one.worker for one, _, _ in bucket.offered}):
            if hedge:
                turn.hedges.discard((run.ix, task.ix))
            else:
                ask_approval(turn, run, task, bucket.spec, doubts, bound)
            return True
    sessions, offers = [], []
    size = input_bytes(run, task)
    for session, device, needs in bucket.offered:
        worker = session.worker
        if session.phase != "up" or worker in taken or worker in asking:
            continue
        if bucket.spec.spawns and _crowded(turn, run, task, session):
            continue
        room = session.has_room(needs, window)
        run_s = expected(turn, session, bucket.spec.name, device, size).run_s
        start = 0.0 if room else _wait_s(turn, session)
        offers.append(
            Offer(worker, device, room, start, run_s, _transfer_s(turn, run, task, session), len(session.loads))
        )
        sessions.append((session, needs))
    if avoid >= 0 and any(offer.room and offer.worker != avoid for offer in offers):  # else the same one again
        keep = [n for n, offer in enumerate(offers) if offer.worker != avoid]
        sessions, offers = [sessions[n] for n in keep], [offers[n] for n in keep]
    chosen = turn.policy.choose(offers) if offers else WAIT
    if chosen == WAIT and len({offer.worker for offer in offers}) == 1 and offers[0].room:
        chosen = 0
    if chosen == WAIT:
        return False
    session, needs = sessions[chosen]
    why = turn.policy.why(offers, chosen) if len(offers) > 1 else ""
    send(turn, run, task, session, bucket.spec, offers[chosen].device, needs, why, hedge, bound)
    return True


def anywhere(run: Run, task: Task) -> bool:
    """Nothing about the task itself prefers one device: no approval, no failure to avoid, nothing large to move."""
    if task.spec.approve or (type(task.state) is Ready and task.state.avoid >= 0):
        return False
    return not any(isinstance(run.tasks[ix].value, ArtifactRef) for ix in task.wiring.needs)


def window_of(turn: Turn, bucket: Bucket) -> int:
    """Prefetch depth of a session for this skill: enough short tasks to cover the target, none for long ones."""
    run_s = turn.predictor.measured(bucket.spec.name)
    if run_s is None:
        return 0
    target = turn.settings.prefetch_target_s
    return int(min(turn.settings.prefetch_max, target / run_s)) if run_s > 0 else turn.settings.prefetch_max


def _crowded(turn: Turn, run: Run, task: Task, session: Session) -> bool:
    """As many parents as it has slots are there, running or waiting: another one only if a parent waits for it."""
    above = task
    while above.parent >= 0:
        above = run.tasks[above.parent]
        if above.spawned is not None:
            return False
    skills = (turn.state.skill(load.skill) for load in session.loads.values())
    return sum(spec is not None and bool(spec.spawns) for spec in skills) >= session.profile.slots


def _wait_s(turn: Turn, session: Session) -> float:
    loads = session.loads.values()
    return session.busy_s(turn.now, ((load, expected(turn, session, load.skill, load.device).run_s) for load in loads))


def _transfer_s(turn: Turn, run: Run, task: Task, session: Session) -> float:
    """Expected seconds to move the task's large inputs to the worker."""
    found = 0.0
    for ix in task.wiring.needs:
        up = run.tasks[ix]
        if isinstance(up.value, ArtifactRef):
            winner = up.winner()
            if winner is None or winner.worker != session.worker:
                found += turn.predictor.transfer_s(session.worker, session.profile.link, up.value.size)
    return found
