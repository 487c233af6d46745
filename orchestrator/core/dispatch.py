"""Placement, once per Flush: ready tasks to workers, in order of urgency, as far as credit reaches.

Late binding: a task stays in the orchestrator's queue until a device that suits it has room. What can't be placed
keeps its reason for `explain`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final

import msgspec

from protocol.artifact import ArtifactRef, parse_file
from protocol.schema import files_in, has_files
from protocol.skill import SkillSpec
from protocol.task import substitute

from ..placement.policy import WAIT, Offer
from . import event as e
from .adoption import adopted
from .assignment import assign
from .binding import Bound, RefMissing
from .budget import lend
from .eligibility import could_return, eligible, kind_of, lacking, policy_of
from .fleet import Load, Session
from .graph import Run, Task
from .lifecycle import Open, Ready, Running
from .poison import cell, release, suspect
from .queue import Bucket, Entry
from .settlement import fail, settle
from .trust import asked, barred, doubt, shown
from .turn import Turn

_PATIENCE: Final = 8
"""Tasks of one bucket that may wait for a better device before the rest of it is left for the next flush."""


def absorb(turn: Turn) -> None:
    """Sort what became ready into the queue; what must wait for its backoff gets a timer."""
    while turn.state.fresh:  # an adopted attempt may make more
        fresh, turn.state.fresh = turn.state.fresh, []
        for number, ix in fresh:
            run = turn.state.runs.get(number)
            if run is None:
                continue
            task = run.tasks[ix]
            if turn.holds and (number, ix) in turn.holds and type(task.state) is Ready and adopted(turn, run, task):
                continue
            enqueue(turn, run, task)


def enqueue(turn: Turn, run: Run, task: Task) -> None:
    """Queue one ready task (or a running one that wants a hedge)."""
    state = task.state
    if type(state) is Ready:
        if state.not_before > turn.now:
            turn.wake(state.not_before, "ready", run.ix, task.ix)
            return
    elif (run.ix, task.ix) not in turn.hedges:
        return
    spec = turn.contract(task)
    if spec is None:
        fail(turn, run, task, "UnknownSkill", f"nobody offers {task.skill} any more")
        return
    if turn.ruling(task.skill) == "deny":
        fail(turn, run, task, "PolicyDenied", f"this server's policy denies {task.skill}")
        return
    if spec.place == "engine":
        turn.serving[run.ix, task.ix] = None
        return
    turn.queue.push(kind_of(turn.state, run, task, spec, _file_worker(turn, run, task, spec)), spec, run, task)


def _file_worker(turn: Turn, run: Run, task: Task, spec: SkillSpec) -> str:
    """The worker whose file a local skill acts on, as far as its arguments show it inline."""
    if spec.place != "local" or task.spec.on or not has_files(spec.params):
        return ""
    values: dict[str, object] = {str(ref): None for ref in task.wiring.refs}
    try:
        for one in turn.binder.bind(run, task, "", "").inputs:
            if isinstance(one.value, bytes) and one.parts is None:
                values[one.key] = turn.binder.decoded(one.value)
    except RefMissing:
        return ""
    for text in files_in(spec.params, substitute(msgspec.json.decode(task.spec.args), values)):
        uri = parse_file(text)
        if uri is not None:
            return uri.worker
    return ""


def flush(turn: Turn) -> None:
    """Dispatch everything that may go now."""
    absorb(turn)
    if turn.disk_full or not turn.started:
        return
    if turn.barred:
        _unbar(turn, turn.barred, lambda run: run.planned)
    if turn.dry:
        _unbar(turn, turn.dry, lambda run: not run.spend.lends or not run.spend.spent(run.settings.budget))
    while True:
        for bucket in list(turn.queue.waiting()):
            _drain(turn, bucket)
        if turn.suspects:
            _alone(turn)
        if not turn.parked or not _unpark(turn):
            return


def _alone(turn: Turn) -> None:
    """Tasks that were there when daemons died, each on a worker that has nothing else."""
    for key in list(turn.suspects):
        run = turn.state.runs.get(key[0])
        task = run.tasks[key[1]] if run is not None else None
        if run is None or task is None or type(task.state) is not Ready or not suspect(turn, task):
            release(turn, key)
            continue
        spec = turn.contract(task)
        if type(run.state) is not Open or run.cancelled or spec is None or run.held(task.ix):
            release(turn, key)  # what brings it back queues it again
            continue
        turn.focus = run.ix
        kind = kind_of(turn.state, run, task, spec, _file_worker(turn, run, task, spec))
        found = eligible(turn.state, turn.fleet, kind, spec)
        sessions = turn.fleet.sessions
        offered = [(sessions[worker], device, needs) for worker, device, needs in found]
        why = doubt(turn, run, task, spec)
        asks = task.spec.approve or why or turn.ruling(spec.name) == "ask"
        if asks or any(policy_of(one, spec) == "ask" for one, _, _ in offered):
            bound = bind(turn, run, task)
            if bound is None or bound.pin != task.approved:
                release(turn, key)
                if bound is not None:
                    ask_approval(turn, run, task, spec, why, bound)
                continue
        if not offered:
            release(turn, key)
            turn.queue.push(kind, spec, run, task)  # it waits for a worker as any other task does
            continue
        free = cell(turn, run, task, offered)
        if free is not None:
            session, device, needs = free
            del turn.suspects[key]
            why = f"alone: it was there when {task.deaths} daemons died"
            _send(turn, run, task, session, spec, device, needs, why, False, None)


def _unbar(turn: Turn, waiting: dict[int, dict[int, None]], free: Callable[[Run], bool]) -> None:
    """Tasks that wait beside the queue for something of their run go back into it."""
    for number in list(waiting):
        run = turn.state.runs.get(number)
        if run is None or free(run):
            for ix in waiting.pop(number):
                if run is not None:
                    enqueue(turn, run, run.tasks[ix])


def _unpark(turn: Turn) -> bool:
    """Children of limited maps for which there is room again go back into the queue."""
    moved = False
    for (number, ix), waiting in list(turn.parked.items()):
        run = turn.state.runs.get(number)
        task = run.tasks[ix] if run is not None else None
        room = task.spec.map.limit - task.spread.busy if task is not None and task.spread is not None else 0
        for child in list(waiting)[: max(0, room)]:
            del waiting[child]
            if run is not None and type(run.tasks[child].state) is Ready:
                enqueue(turn, run, run.tasks[child])
                moved = True
        if not waiting or (room <= 0 and (task is None or task.final)):
            del turn.parked[number, ix]
    return moved


def _look(turn: Turn, bucket: Bucket) -> None:
    """The fleet has changed: who may run these, and who of them asks."""
    bucket.seen_changes = turn.fleet.changes
    bucket.spec = spec = turn.state.skill(bucket.kind.skill) or bucket.spec
    sessions = turn.fleet.sessions
    found = eligible(turn.state, turn.fleet, bucket.kind, spec)
    bucket.offered = tuple((sessions[worker], device, needs) for worker, device, needs in found)
    asks = turn.ruling(spec.name) == "ask"
    bucket.asking = frozenset(one.worker for one, _, _ in bucket.offered if asks or policy_of(one, spec) == "ask")
    speeds = {(session.speed.get(device, 1.0), session.profile.edge) for session, device, _ in bucket.offered}
    bucket.alike = len(speeds) == 1 and not bucket.asking and not any(needs for _, _, needs in bucket.offered)


def _drain(turn: Turn, bucket: Bucket) -> None:
    if bucket.seen_changes != turn.fleet.changes:
        _look(turn, bucket)
    if not bucket.offered:
        _stuck(turn, bucket)
        return
    bucket.stuck_since = -1.0
    window = _window(turn, bucket)
    aside: list[Entry] = []
    heap, hedges, skill = bucket.heap, turn.hedges, bucket.kind.skill
    while heap and len(aside) < _PATIENCE:
        room = _room(bucket, window)
        if room is None:
            break
        entry = heapq.heappop(heap)
        run = turn.state.runs.get(entry[3])
        if run is None or type(run.state) is not Open or run.cancelled:
            continue  # RunResumed brings it back
        turn.focus = run.ix
        task = run.tasks[entry[4]]
        hedge = False
        if type(task.state) is not Ready:
            hedge = bool(hedges) and (run.ix, task.ix) in hedges and type(task.state) is Running
            if not hedge:
                continue
        if task.spec is not entry[5] or task.skill != skill:
            continue  # it was replaced, or goes on by other means, and is queued as such
        if run.claims and run.held(task.ix):
            continue  # ClaimReleased brings it back
        if barred(run, task, bucket.spec):
            turn.barred.setdefault(run.ix, {})[task.ix] = None
            continue
        if task.parent >= 0 and task.spec.map.limit and _parked(turn, run, task):
            continue
        if task.attempts and suspect(turn, task):
            turn.hedges.discard((run.ix, task.ix))
            if not hedge:
                turn.suspects[run.ix, task.ix] = None
            continue
        why = doubt(turn, run, task, bucket.spec)
        if bucket.alike and not hedge and not why and not bucket.spec.spawns and _anywhere(run, task):
            session, device, needs = room
            _send(turn, run, task, session, bucket.spec, device, needs, "", False, None)
        elif not _place(turn, run, task, bucket, hedge, window, why):
            aside.append(entry)
    for entry in aside:
        heapq.heappush(heap, entry)


def _anywhere(run: Run, task: Task) -> bool:
    """Nothing about the task itself prefers one device: no approval, no failure to avoid, nothing large to move."""
    if task.spec.approve or (type(task.state) is Ready and task.state.avoid >= 0):
        return False
    return not any(isinstance(run.tasks[ix].value, ArtifactRef) for ix in task.wiring.needs)


def _room(bucket: Bucket, window: int) -> tuple[Session, str, dict[str, float]] | None:
    """The next device, in turns, that could take one more."""
    offered = bucket.offered
    for _ in range(len(offered)):
        bucket.turn = place = (bucket.turn + 1) % len(offered)
        found = offered[place]
        if found[0].phase == "up" and found[0].has_room(found[2], window):
            return found
    return None


def _parked(turn: Turn, run: Run, task: Task) -> bool:
    """A child over its map's limit waits beside the queue for a sibling to end."""
    spread = run.tasks[task.parent].spread
    if spread is None or spread.busy < task.spec.map.limit:
        return False
    turn.parked.setdefault((run.ix, task.parent), {})[task.ix] = None
    return True


def _window(turn: Turn, bucket: Bucket) -> int:
    """Prefetch depth of a session for this skill: enough short tasks to cover the target, none for long ones."""
    run_s = turn.estimator.measured(bucket.spec.name)
    if run_s is None:
        return 0
    target = turn.settings.prefetch_target_s
    return int(min(turn.settings.prefetch_max, target / run_s)) if run_s > 0 else turn.settings.prefetch_max


def _place(turn: Turn, run: Run, task: Task, bucket: Bucket, hedge: bool, window: int, doubts: str) -> bool:
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
    for session, device, needs in bucket.offered:
        worker = session.worker
        if session.phase != "up" or worker in taken or worker in asking:
            continue
        if bucket.spec.spawns and _crowded(turn, run, task, session):
            continue
        room = session.has_room(needs, window)
        run_s = turn.estimator.run_s(bucket.spec.name, device, session.speed.get(device, 1.0))
        start = 0.0 if room else _wait_s(turn, session)
        offers.append(Offer(worker, device, room, start, run_s, _transfer_s(run, task, session), len(session.loads)))
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
    _send(turn, run, task, session, bucket.spec, offers[chosen].device, needs, why, hedge, bound)
    return True


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
    return session.busy_s(
        turn.now, ((load, turn.estimator.run_s(load.skill, load.device)) for load in session.loads.values())
    )


def _transfer_s(run: Run, task: Task, session: Session) -> float:
    """Expected seconds to move the task's large inputs to the worker."""
    found = 0.0
    for ix in task.wiring.needs:
        up = run.tasks[ix]
        if isinstance(up.value, ArtifactRef):
            winner = up.winner()
            if winner is None or winner.worker != session.worker:
                found += session.profile.link.latency_s + up.value.size / session.profile.link.bandwidth
    return found


def bind(turn: Turn, run: Run, task: Task) -> Bound | None:
    """The inputs of its next attempt; None if it has failed for want of one."""
    try:
        return turn.binder.bind(run, task, turn.state.journal, turn.state.digests.get(task.skill, ""))
    except RefMissing as error:
        fail(turn, run, task, "RefMissing", str(error))
        return None


def ask_approval(turn: Turn, run: Run, task: Task, spec: SkillSpec, doubts: str, bound: Bound) -> None:
    """Ask a person for this very work; `doubts`: what the rules of trust have against it."""
    if doubts and turn.settings.untrusted == "deny":
        fail(turn, run, task, "PolicyDenied", f"this server's policy lets nobody be asked: {doubts}")
        return
    why = doubts or asked(turn, task, spec) or f"{spec.name} asks before it runs"
    if filled := shown(turn, task, spec, bound):
        why += f" ({filled})"
    deadline = turn.now + turn.settings.approval_s
    turn.emit(e.ApprovalAsked(run.ix, task.ix, bound.pin, why, deadline))
    turn.wake(deadline, "approval", run.ix, task.ix)


def _send(
    turn: Turn, run: Run, task: Task, session: Session, spec: SkillSpec, device: str, needs: dict[str, float],
    why: str, hedge: bool, bound: Bound | None,
) -> None:  # fmt: skip
    bound = bound or bind(turn, run, task)
    if bound is None:
        return
    if run.reuse and bound.pin in run.reuse and task.spec.cache is not False and not hedge:
        turn.emit(e.ResultReused(run.ix, task.ix, bound.pin))
        settle(turn, run, task, "succeeded")
        return
    budget = run.settings.budget
    if budget.attempts and run.spend.attempts >= budget.attempts:
        if hedge:
            turn.hedges.discard((run.ix, task.ix))
        else:
            fail(turn, run, task, "BudgetSpent", f"the run may have {budget.attempts} attempts")
        return
    tokens, price = 0, 0.0
    if spec.spends:
        over = run.spend.spent(budget)
        if over and hedge:
            turn.hedges.discard((run.ix, task.ix))
        elif over and run.spend.lends:
            turn.dry.setdefault(run.ix, {})[task.ix] = None
        elif over:
            fail(turn, run, task, "BudgetSpent", over)
        if over:
            return
        tokens, price = lend(turn, run)
    number = max(run.next_attempt(task), turn.passed.get((run.ix, task.ix), 0) + 1)
    fence = turn.fence()
    if hedge:
        turn.hedges.discard((run.ix, task.ix))
    by_person = bool(task.approved) and task.approved == bound.pin
    turn.emit(
        e.AttemptDispatched(
            run.ix, task.ix, number, session.worker, fence, bound.pin, device, task.skill, why, hedge, True, turn.now,
            tokens, price,
        )
    )  # fmt: skip
    session.take((run.ix, task.ix, number), Load(needs, fence, task.skill, device, turn.now, False))
    effect = turn.stricter(spec, task)
    # An approval must be on disk before its task may act, as must every input of idempotent work.
    ahead = turn.settings.dispatch_ahead and not by_person and (
        effect == "pure" or (effect == "idempotent" and not bound.inputs and not bound.items)
    )  # fmt: skip
    item = assign(turn, run, task, spec, number, fence, bound, device, needs)
    turn.send(session, item, after_commit=not ahead)


def _stuck(turn: Turn, bucket: Bucket) -> None:
    """No connected worker may run these: wait for one that is away, else fail them after the grace."""
    if could_return(turn.state, turn.fleet, bucket.kind, bucket.spec):
        bucket.stuck_since = -1.0
        return
    if bucket.stuck_since < 0:
        bucket.stuck_since = turn.now
    rest: list[Entry] = []
    first = float("inf")
    for entry in bucket.heap:
        run = turn.state.runs.get(entry[3])
        if run is None or type(run.state) is not Open:
            continue
        task = run.tasks[entry[4]]
        if type(task.state) is not Ready or task.spec is not entry[5] or task.skill != bucket.kind.skill:
            continue
        due = max(bucket.stuck_since, task.ready_at) + run.settings.schedule_grace_s
        if due > turn.now:
            rest.append(entry)
            first = min(first, due)
        else:
            fail(turn, run, task, "NoEligibleWorker", lacking(turn.state, turn.fleet, bucket.kind, bucket.spec))
    if rest and bucket.wakes_at != first:
        bucket.wakes_at = first
        turn.wake(first, "flush")
    heapq.heapify(rest)
    bucket.heap = rest
