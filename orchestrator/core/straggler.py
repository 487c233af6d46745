"""Attempts that take too long, looked at when capacity idles: a copy elsewhere, or a move to a faster device.

A straggler has run longer than its predicted p95 and 1.5 times the expected run time. It gets one copy, on a device
that would begin at once, while nothing ready wants that device, if the copy would finish first and the run may still
spend on copies; only those that lose are charged. An attempt that is merely on a slow device goes on where it is
faster: one that keeps checkpoints moves, any other races its copy. Only pure work is copied (idempotent work if its
skill says `hedge`), never what has spawned. No timer per task: one look serves all, and costs little when none is due.
"""

from __future__ import annotations

from typing import Final

import msgspec

from protocol.skill import SkillSpec

from ..placement.predictor import Prediction
from .displacement import displace, displaceable
from .eligibility import kind_of, policy_of
from .enlistment import roster_of
from .expectation import expected, input_bytes, size_of, units
from .fleet import Displacement, Key, Session
from .graph import Run, Task
from .intake import file_worker
from .lifecycle import Open, Running
from .sending import bind, send
from .trust import doubt
from .turn import Turn

_PAUSE_S: Final = 0.01
_PAUSE_EACH_S: Final = 2e-5
"""Looks are so far apart, and by so much more for each live attempt: a share of the loop's time that stays small."""
_CANDIDATES: Final = 16
"""Attempts that one look weighs at most, the most overdue first, the next ones at the next look."""
_FAR: Final = 2.0
_WORTH: Final = 1.25
"""What has not run over its time is moved only if that ends it so many times sooner."""


class Late(msgspec.Struct, gc=False):
    """A live attempt that may be worth a second one. `left_s`: what it is expected to take yet, where it is."""

    key: Key
    elapsed_s: float
    left_s: float
    overdue: float
    """Elapsed over what it may take; below 1 it is only slow."""


def hurry(turn: Turn) -> None:
    """Look for stragglers, unless that was done a moment ago. Called when everything that could go has gone."""
    watch = turn.watch
    if turn.now < watch.next_look:  # nothing that began since the last one can have run over its time before then
        _wake(turn, max(watch.next_look, watch.looked_at + turn.settings.hedge.least_s))
        return
    watch.next_look, watch.looked_at = turn.now + _PAUSE_S, float("-inf")
    idle = [session for session in turn.fleet.sessions.values() if _idle(session)] if turn.settings.hedge.on else []
    if not idle:
        return
    late, seen, due = _late(turn, idle)
    watch.next_look += _PAUSE_EACH_S * seen
    if not late:
        watch.looked_at = turn.now
    else:
        late.sort(key=lambda one: (-one.overdue, one.key))
        first = watch.place % len(late) if len(late) > _CANDIDATES else 0  # those that nobody can relieve bar no others
        watch.place = first + _CANDIDATES
        wanted = _wanted(turn)
        for one in [*late[first:], *late[:first]][:_CANDIDATES]:
            _relieve(turn, one, wanted)
    if due < float("inf"):
        _wake(turn, max(due, watch.next_look))


def _wake(turn: Turn, at: float) -> None:
    """Be called again by then; one timer serves all."""
    if not turn.now < turn.watch.wakes_at <= at:
        turn.watch.wakes_at = at
        turn.wake(at, "flush")


def _idle(session: Session) -> bool:
    if session.phase != "up" or session.sick or session.slots_free <= 0:
        return False
    return not session.queue and not session.resuming


def _late(turn: Turn, idle: list[Session]) -> tuple[list[Late], int, float]:
    """(what may be worth a second attempt, how many are live, when the next one will have run over its time)."""
    now, rules, sessions = turn.now, turn.settings.hedge, turn.fleet.sessions
    moves = now >= turn.watch.next_move
    if moves:
        turn.watch.next_move = now + rules.move_s
    found: list[Late] = []
    seen, due = 0, float("inf")
    known: dict[tuple[int, str, str], Prediction] = {}
    fastest: dict[str, float] = {}
    for worker, keys in turn.state.live.items():
        session = sessions.get(worker)
        if session is None:  # core.silence sees to those
            continue
        if len(session.loads) == session.light:  # what takes no cpu costs less than its copy
            continue
        seen += len(keys)
        for key in keys:
            load = session.loads.get(key)
            if load is None or not load.started or load.paused or load.cancelled_at >= 0 or not load.needs.get("cpu"):
                continue
            elapsed = now - load.at
            if elapsed < rules.least_s and not moves:
                due = min(due, load.at + rules.least_s)
                continue
            of = (worker, load.skill, load.device)
            rough = known.get(of)
            if rough is None:
                rough = known[of] = expected(turn, session, load.skill, load.device)
            if rough.n < rules.known:
                continue
            told, limit = rough, _limit(turn, rough)
            if moves or elapsed >= limit:
                run, task, _ = turn.located(key)
                told = expected(turn, session, load.skill, load.device, size_of(turn, run, task), units(run, task))
                limit = _limit(turn, told)
            left = told.run_s - elapsed
            if elapsed >= limit:  # what has run over its time is expected to run as long again
                found.append(Late(key, elapsed, elapsed, elapsed / limit))
            else:
                due = min(due, load.at + limit)
                if not moves or left < rules.move_s:
                    continue
                if load.skill not in fastest:
                    fastest[load.skill] = min(
                        expected(turn, one, load.skill, device).run_s for one in idle for device in one.speed
                    )
                if fastest[load.skill] * _WORTH < rough.run_s:
                    found.append(Late(key, elapsed, left, elapsed / limit))
    return found, seen, due


def _limit(turn: Turn, told: Prediction) -> float:
    """When it has run over its time. Where one in twenty hangs, the p95 is one that hangs: it counts up to `_FAR`."""
    rules = turn.settings.hedge
    slow_s = rules.factor * told.run_s
    return max(min(told.p95_s, _FAR * slow_s), slow_s, rules.least_s)


def _wanted(turn: Turn) -> set[int]:
    """Workers that something ready waits for."""
    return {worker for bucket in turn.queue.waiting() for worker in roster_of(turn, bucket.kind, bucket.spec).by_worker}


def _relieve(turn: Turn, late: Late, wanted: set[int]) -> None:
    """Begin the attempt once more where that ends it sooner, or have it go on there, if it may be."""
    run, task, attempt = turn.located(late.key)
    spec = turn.contract(task)
    if spec is None or type(run.state) is not Open or task.deaths or turn.ruling(spec.name) == "deny":
        return
    overdue = late.overdue >= 1.0
    copies = may_double(turn, run, task, spec)
    moves = not (overdue and copies) and displaceable(turn, run, task, attempt) and turn.effect(task) != "once"
    if not (copies or moves):
        return
    best = _best(turn, run, task, spec, wanted | {attempt.worker})
    if best is None:
        return
    cost, session, device, needs = best
    if moves:  # what it has done it keeps
        cost *= late.left_s / (late.left_s + late.elapsed_s)
    if cost * (1.0 if overdue else _WORTH) >= late.left_s:
        return
    turn.focus = run.ix
    why = f"{late.elapsed_s:.3g} s on {turn.state.workers[attempt.worker].name} so far, "
    why += f"{late.overdue:.2g} times what it may take" if overdue else "slower there"
    if moves:
        displace(turn, run, task, attempt, Displacement(f"moved: {why}; {session.name} idles", attempt.worker))
    elif _affordable(turn, run):
        why = f"{'hedge' if overdue else 'moved'}: {why}; here it takes about {cost:.3g} s"
        bound = bind(turn, run, task)
        if bound is None or (_asks(turn, run, task, spec, session) and bound.pin != task.approved):
            return
        send(turn, run, task, session, spec, device, needs, why, True, bound)
        copy = session.loads.get((run.ix, task.ix, task.attempts[-1].number))
        if copy is not None and task.attempts[-1] is not attempt:
            copy.charged_s = cost
            turn.watch.charge(run.ix, cost)
            turn.fleet.sessions[attempt.worker].loads[late.key].late = overdue
            turn.count("hedged")


def _asks(turn: Turn, run: Run, task: Task, spec: SkillSpec, session: Session) -> bool:
    """Whether somebody has to allow it there."""
    asks = task.spec.approve or doubt(turn, run, task, spec) or policy_of(session, spec) == "ask"
    return bool(asks) or turn.ruling(spec.name) == "ask"


def may_double(turn: Turn, run: Run, task: Task, spec: SkillSpec) -> bool:
    """Whether one more attempt of a running task may run beside the one it has."""
    effect = turn.stricter(spec, task)
    if effect == "once" or (effect == "idempotent" and not spec.hedge) or spec.spawns or spec.spends:
        return False
    if type(task.state) is not Running or task.cancelling or run.cancelled or len(task.live()) != 1:
        return False
    if task.spawned is not None and (task.spawned.children or not spec.checkpoints):
        return False
    if sum(one.hedge for one in task.attempts) > task.tries + task.losses:
        return False  # a copy a try: what fails beside a live one is counted by nobody
    limit = task.spec.map.limit if task.parent >= 0 else 0
    spread = run.tasks[task.parent].spread if limit else None
    return spread is None or spread.busy < limit


def _best(
    turn: Turn, run: Run, task: Task, spec: SkillSpec, barred: set[int]
) -> tuple[float, Session, str, dict[str, float]] | None:
    """(seconds until it would end there, worker, device, needs) of the idle device that would end it first."""
    kind = kind_of(turn.state, run, task, spec, file_worker(turn, run, task, spec))
    size = input_bytes(run, task)
    found = None
    for berth in roster_of(turn, kind, spec).up:
        session, device, needs = berth.session, berth.device, berth.needs
        worker = session.worker
        if worker in barred or not _idle(session) or not session.has_room(needs, 0):
            continue
        told = expected(turn, session, spec.name, device, size_of(turn, run, task), units(run, task))
        cost = told.run_s + (turn.predictor.transfer_s(worker, session.profile.link, size) if size else 0.0)
        if told.by != "default" and (found is None or cost < found[0]):
            found = cost, session, device, needs
    return found


def _affordable(turn: Turn, run: Run) -> bool:
    """Copies may take a share of the work that is done, and the last of them may take more: so one is always free."""
    watch = turn.watch
    return watch.copied_s.get(run.ix, 0.0) <= turn.settings.hedge.budget * watch.done_s.get(run.ix, 0.0)
