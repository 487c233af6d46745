"""Prefetched attempts are taken back where somebody idle would finish them sooner: stealing, by the orchestrator.

Invariant: an attempt that is taken back is placed again only once its worker has confirmed that it never began: Cancel
with `if_not_started`, and what has begun meanwhile goes on. It costs its task no retry and no loss. One look serves
all, and there is none unless somebody holds work that waits while somebody else idles.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from protocol.frame import Cancel
from protocol.ids import AttemptId
from protocol.skill import SkillSpec

from .eligibility import kind_of
from .enlistment import roster_of
from .expectation import expected, size_of, units
from .fleet import Displacement, Key, Session
from .graph import Run, Task
from .intake import file_worker
from .lifecycle import Open, Running
from .offering import left_s, transfer
from .roster import Berth
from .turn import Turn

_PAUSE_S: Final = 0.02
_LEAST_S: Final = 0.02
_WORTH: Final = 1.25
"""What is gained has to be worth two messages, and a prediction that may be off."""
_MOST: Final = 64
"""Attempts that one look weighs of each worker."""


def take_back(turn: Turn) -> None:
    """Look for them, unless that was done a moment ago. Called when everything that could go has gone."""
    if not turn.hoards:
        return
    if turn.now < turn.recalls_at:
        if turn.recall_wakes_at < turn.recalls_at:
            turn.recall_wakes_at = turn.recalls_at
            turn.wake(turn.recalls_at, "flush")
        return
    turn.recalls_at = turn.now + _PAUSE_S
    sessions = turn.fleet.sessions.values()
    hoards = [session for session in sessions if session.queue and session.phase == "up"]
    turn.hoards = bool(hoards)
    idle = {
        one.worker: one.slots_free for one in sessions if one.phase == "up" and one.slots_free > 0 and not one.queue
    }
    for session in hoards if idle else ():
        _of(turn, session, idle)


def _of(turn: Turn, session: Session, idle: dict[int, int]) -> None:
    """The last ones first: they would wait longest."""
    running = [left_s(turn, load) for load in islice(session.loads.values(), _MOST) if load.started and not load.paused]
    waits = min(running, default=0.0)
    starts: list[tuple[float, Key]] = []
    for key in islice(session.queue, _MOST):
        starts.append((waits, key))
        waits += left_s(turn, session.loads[key]) / session.profile.slots
    for start_s, key in reversed(starts):
        load = session.loads[key]
        if load.recalled is not None or load.displaced is not None or load.cancelled_at >= 0 or not idle:
            continue
        run, task, _ = turn.located(key)
        spec = turn.contract(task)
        if spec is None or task.cancelling or type(run.state) is not Open or len(task.live()) != 1:
            continue
        if type(task.state) is not Running or run.settings.prefer != "time":  # where it is cheaper it may wait
            continue
        best = _best(turn, run, task, spec, session, idle)
        finish_s = start_s + left_s(turn, load)
        if best is None or best[0] * _WORTH + _LEAST_S >= finish_s:
            continue
        thief = best[1].session
        idle[thief.worker] -= 1
        if not idle[thief.worker]:
            del idle[thief.worker]
        why = (
            f"taken back from {session.name}, where it waited: {finish_s:.3g} s there, {best[0]:.3g} s on {thief.name}"
        )
        load.recalled = Displacement(why, avoid=session.worker)
        turn.send(session, Cancel(AttemptId(*key), turn.settings.cancel_grace_s, True), after_commit=True)
        turn.count("recalled")


def _best(
    turn: Turn, run: Run, task: Task, spec: SkillSpec, holder: Session, idle: dict[int, int]
) -> tuple[float, Berth] | None:
    """(seconds until it would end, where) on the idle device that would end it first."""
    roster = roster_of(turn, kind_of(turn.state, run, task, spec, file_worker(turn, run, task, spec)), spec)
    size, elements = size_of(turn, run, task), units(run, task)
    found: tuple[float, Berth] | None = None
    for group in roster.groups:
        berth = group.next(0, lambda one: one.session.worker not in idle or one.session.worker in roster.asking)
        if berth is None or berth.session is holder:
            continue
        run_s = expected(turn, berth.session, spec.name, berth.device, size, elements).run_s
        cost = transfer(turn, run, task, berth.session)[0] + run_s
        if found is None or cost < found[0]:
            found = cost, berth
    return found
