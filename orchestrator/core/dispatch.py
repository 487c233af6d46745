"""Placement, once per Flush: ready tasks to workers, in order of urgency, as far as credit reaches.

Late binding: a task stays in the orchestrator's queue until a device that suits it has room. What can't be placed
keeps its reason for `explain`.
"""

from __future__ import annotations

import hashlib
import heapq
from typing import Final

import msgspec

from protocol.artifact import ArtifactRef, parse_file
from protocol.frame import Assign, WorkSpec
from protocol.ids import AttemptId, Fence
from protocol.schema import files_in, has_files
from protocol.skill import SkillSpec
from protocol.task import substitute

from ..placement.policy import WAIT, Offer
from . import event as e
from .binding import Bound, RefMissing
from .eligibility import could_return, eligible, kind_of, policy_of
from .fleet import Load, Session
from .graph import Run, Task
from .lifecycle import Open, Ready, Running
from .queue import Bucket
from .settlement import fail, settle
from .turn import Turn

_PATIENCE: Final = 8
"""Tasks of one bucket that may wait for a better device before the rest of it is left for the next flush."""


def absorb(turn: Turn) -> None:
    """Sort what became ready into the queue; what must wait for its backoff gets a timer."""
    fresh = turn.state.fresh
    if not fresh:
        return
    turn.state.fresh = []
    for number, ix in fresh:
        run = turn.state.runs.get(number)
        if run is not None:
            enqueue(turn, run, run.tasks[ix])


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
    for bucket in list(turn.queue.waiting()):
        _drain(turn, bucket)


def _drain(turn: Turn, bucket: Bucket) -> None:
    fleet = turn.fleet
    if bucket.seen_changes != fleet.changes:
        bucket.seen_changes = fleet.changes
        bucket.offered = eligible(turn.state, fleet, bucket.kind, bucket.spec)
    if not bucket.offered:
        _stuck(turn, bucket)
        return
    bucket.stuck_since = -1.0
    window = _window(turn, bucket)
    aside: list[tuple[float, float, int, int, int]] = []
    while bucket.heap and len(aside) < _PATIENCE:
        free = [
            (session, device, needs)
            for worker, device, needs in bucket.offered
            if (session := fleet.sessions[worker]).open and session.has_room(needs, window)
        ]
        if not free:
            break
        entry = heapq.heappop(bucket.heap)
        run = turn.state.runs.get(entry[3])
        if run is None or type(run.state) is not Open or run.cancelled:
            continue
        task = run.tasks[entry[4]]
        hedge = (run.ix, task.ix) in turn.hedges and type(task.state) is Running
        if not hedge and type(task.state) is not Ready:
            continue
        if run.claims and run.held(task.ix):
            continue  # ClaimReleased brings it back
        if not run.planned and turn.effect(task) == "once":
            continue  # the commit barrier: PlanClosed brings it back
        if _parked(turn, run, task):
            continue
        if not _place(turn, run, task, bucket, hedge, window):
            aside.append(entry)
    for entry in aside:
        heapq.heappush(bucket.heap, entry)


def _parked(turn: Turn, run: Run, task: Task) -> bool:
    """A child over its map's limit waits beside the queue for a sibling to end."""
    if task.parent < 0 or not task.spec.map.limit:
        return False
    spread = run.tasks[task.parent].spread
    if spread is None or spread.busy < task.spec.map.limit:
        return False
    turn.parked.setdefault((run.ix, task.parent), []).insert(0, task.ix)
    return True


def _window(turn: Turn, bucket: Bucket) -> int:
    """Prefetch depth of a session for this skill: enough short tasks to cover the target, none for long ones."""
    run_s = turn.estimator.measured(bucket.spec.name)
    if run_s is None:
        return 0
    target = turn.settings.prefetch_target_s
    return min(turn.settings.prefetch_max, int(target / run_s)) if run_s > 0 else turn.settings.prefetch_max


def _place(turn: Turn, run: Run, task: Task, bucket: Bucket, hedge: bool, window: int) -> bool:
    """Dispatch the task, or settle it, or ask for approval; False when it should wait for a better offer."""
    taken = {attempt.worker for attempt in task.attempts if not attempt.ended} if hedge else set()
    avoid = task.state.avoid if type(task.state) is Ready else -1
    sessions, offers, asks = [], [], []
    for worker, device, needs in bucket.offered:
        session = turn.fleet.sessions[worker]
        if not session.open or worker in taken:
            continue
        room = session.has_room(needs, window)
        speed = session.speed.get(device, 1.0)
        run_s = turn.estimator.run_s(bucket.spec.name, device, speed)
        start = 0.0 if room else _wait_s(turn, session)
        if worker == avoid:
            start += 10.0 * run_s + 10.0  # another worker first, the same one only if there is no other
        offers.append(Offer(worker, device, room, start, run_s, _transfer_s(run, task, session), len(session.loads)))
        sessions.append((session, needs))
        asks.append(policy_of(session, bucket.spec) == "ask")
    approved = type(task.state) is Ready and task.state.approved
    if not approved and not hedge and (task.spec.approve or (asks and all(asks))):
        _ask(turn, run, task, bucket.spec)
        return True
    if not approved and any(asks):
        keep = [n for n, ask in enumerate(asks) if not ask]
        sessions, offers = [sessions[n] for n in keep], [offers[n] for n in keep]
    chosen = turn.policy.choose(offers) if offers else WAIT
    if chosen == WAIT and len({offer.worker for offer in offers}) == 1 and offers[0].room:
        chosen = 0
    if chosen == WAIT:
        return False
    session, needs = sessions[chosen]
    why = turn.policy.why(offers, chosen) if len(offers) > 1 else ""
    _send(turn, run, task, session, bucket.spec, offers[chosen], needs, why, hedge)
    return True


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


def _bind(turn: Turn, run: Run, task: Task) -> Bound | None:
    try:
        return turn.binder.bind(run, task, turn.state.journal, turn.state.digests.get(task.skill, ""))
    except RefMissing as error:
        fail(turn, run, task, "RefMissing", str(error))
        return None


def _ask(turn: Turn, run: Run, task: Task, spec: SkillSpec) -> None:
    bound = _bind(turn, run, task)
    if bound is not None:
        why = "the plan asks for approval" if task.spec.approve else f"{spec.name} asks before it runs"
        deadline = turn.now + turn.settings.approval_s
        turn.emit(e.ApprovalAsked(run.ix, task.ix, bound.pin, why, deadline))
        turn.wake(deadline, "approval", run.ix, task.ix)


def _send(
    turn: Turn, run: Run, task: Task, session: Session, spec: SkillSpec, offer: Offer, needs: dict[str, float],
    why: str, hedge: bool,
) -> None:  # fmt: skip
    bound = _bind(turn, run, task)
    if bound is None:
        return
    if run.reuse and bound.pin in run.reuse and task.spec.cache is not False:
        turn.emit(e.ResultReused(run.ix, task.ix, bound.pin))
        settle(turn, run, task, "succeeded")
        return
    budget = run.settings.budget
    if budget.attempts and run.spend.attempts >= budget.attempts and not hedge:
        fail(turn, run, task, "BudgetSpent", f"the run may have {budget.attempts} attempts")
        return
    number = len(task.attempts) + 1
    fence = turn.fence()
    turn.hedges.discard((run.ix, task.ix))
    approved = type(task.state) is Ready and task.state.approved
    turn.emit(
        e.AttemptDispatched(
            run.ix,
            task.ix,
            number,
            session.worker,
            fence,
            bound.pin,
            offer.device,
            task.skill,
            why,
            hedge,
            True,
            turn.now,
        )
    )
    load = Load(needs, fence, task.skill, offer.device, turn.now, False)
    session.take((run.ix, task.ix, number), load)
    effect = turn.effect(task)
    ahead = turn.settings.dispatch_ahead and (effect == "pure" or (effect == "idempotent" and not bound.inputs))
    turn.send(
        session, assign(turn, run, task, number, fence, bound, offer.device, needs, approved), after_commit=not ahead
    )


def assign(
    turn: Turn, run: Run, task: Task, number: int, fence: Fence, bound: Bound, device: str, needs: dict[str, float],
    approved: bool,
) -> Assign:  # fmt: skip
    """The Assign of one attempt; also what is sent once more when the first got lost."""
    spec = turn.contract(task)
    assert spec is not None
    timeout_s = min(spec.timeout_s, task.spec.timeout_s or spec.timeout_s)
    effect = turn.effect(task)
    work = msgspec.json.encode(
        WorkSpec(
            task.skill, turn.state.digests[task.skill], msgspec.Raw(task.spec.args), device, effect, timeout_s,
            needs.get("cpu", 0.0), int(needs.get("memory", 0)), needs.get("gpu", 0.0), int(needs.get("vram", 0)),
        )
    )  # fmt: skip
    key = ""
    if effect != "pure":
        key = hashlib.sha256(f"{turn.state.journal}/{run.ix}/{task.ix}/".encode() + bound.pin).hexdigest()[:32]
    ident = AttemptId(run.ix, task.ix, number)
    name = turn.name(run, task, number)
    return Assign(ident, fence, bound.pin, work, name, bound.inputs, bound.items, (), key, approved)


def _stuck(turn: Turn, bucket: Bucket) -> None:
    """No connected worker may run these: wait for one that is away, else fail them after the grace."""
    if could_return(turn.state, turn.fleet, bucket.kind, bucket.spec):
        bucket.stuck_since = -1.0
        return
    if bucket.stuck_since < 0:
        bucket.stuck_since = turn.now
    rest = []
    for entry in bucket.heap:
        run = turn.state.runs.get(entry[3])
        if run is None or type(run.tasks[entry[4]].state) is not Ready:
            continue
        task = run.tasks[entry[4]]
        due = max(bucket.stuck_since, task.ready_at) + run.settings.schedule_grace_s
        if due > turn.now:
            rest.append(entry)
            turn.wake(due, "flush")
        else:
            fail(turn, run, task, "NoEligibleWorker", _lacking(bucket))
    heapq.heapify(rest)
    bucket.heap = rest


def _lacking(bucket: Bucket) -> str:
    kind = bucket.kind
    if "here" in kind.on and not kind.home:
        return f"{kind.skill} runs `here` by default and this run has no `here`; name a worker with on"
    return f"no worker offers {kind.skill} on {' or '.join(kind.on)}; see asterism explain"
