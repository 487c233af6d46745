"""A plan for a run of moderate size on unlike devices: HEFT over what is left of it, made again when the facts have
left it, and never at every event.

`eft` sees one task at a time; the plan sees that a fast device is better kept for what much hangs on. Invariant: a plan
only prefers. Whoever is planned for a device that is gone, or later than the plan meant it to start, is placed like any
other, so a bad plan costs time and stalls nothing. A plan costs its loop a small share of the time since the last one.
Fleet knowledge, not durable: after a restart it is made anew.
"""

from __future__ import annotations

from typing import Final

from ..placement.heft import heft
from ..placement.problem import INF
from .fleet import Session
from .foresight import foremost
from .graph import Run, Task
from .queue import PATIENCE, Lane
from .roster import Berth, Roster
from .survey import look_ahead
from .turn import Turn

DRIFT: Final = 0.1
"""A start that is off by more than this part of what was left of the plan has it made again."""
_LEAST: Final = 3
_MOST_S: Final = {"auto": 0.03, "heft": 0.3}
"""Tasks that are left at least, and seconds that a plan of them may take the loop, by policy."""
_EACH_S: Final = 2.5e-6
_SHARE: Final = 50.0
"""Seconds of a plan for each task and device; so many times what a plan costs lies between two."""
_UNPLANNED: Final = frozenset({"eft", "fastest"})
"""What a run may be placed by instead, where that was foretold to end it sooner."""
_SOON_S: Final = 0.25
"""When it is tried again where a plan can't be made yet."""


class Plan:
    """What is planned of one run. Times in run time."""

    def __init__(self, now: float) -> None:
        self.next_at = now
        self.era = -1
        self.version = -1
        self.drifted = True
        self.end = now
        self.wakes_at = -1.0
        self.sites: dict[int, tuple[int, str]] = {}
        """Task -> (worker, device)."""
        self.starts: dict[int, float] = {}
        self.lines: dict[tuple[int, str], list[int]] = {}
        """What each device has to run yet, the last one first."""

    def slack(self, now: float) -> float:
        """By how much a start may be off."""
        return DRIFT * max(0.0, self.end - now)


def steer(turn: Turn, lanes: list[Lane], brief: bool = False) -> None:
    """Make the plans that are wanted and due, of runs that have something ready for unlike devices. `brief`: one that
    the facts have left serves until a Lull."""
    if turn.settings.placement not in _MOST_S:
        return
    seen: set[int] = set()
    for lane in lanes:
        if lane.bucket.roster.alike or lane.run in seen:
            continue
        seen.add(lane.run)
        run = turn.state.runs.get(lane.run)
        if run is None or foremost(turn, run) in _UNPLANNED:
            continue
        plan = turn.plans.get(run.ix)
        if plan is None:
            plan = turn.plans[run.ix] = Plan(turn.now)
        if plan.era != turn.fleet.changes:
            plan.sites, plan.drifted = {}, True
        if turn.now >= plan.next_at and (plan.drifted or plan.version != run.version):
            if brief and plan.sites and plan.version == run.version:
                turn.drifted.add(run.ix)
            else:
                _make(turn, run, plan)
        if plan.sites:
            lane.patience = PATIENCE + len(plan.sites)


def again(turn: Turn) -> None:
    """Make those that the facts have left again, where that is due."""
    found, turn.drifted = turn.drifted, set()
    for number in found:
        run, plan = turn.state.runs.get(number), turn.plans.get(number)
        if run is not None and plan is not None and turn.now >= plan.next_at and foremost(turn, run) not in _UNPLANNED:
            _make(turn, run, plan)
            if turn.queue.waiting():  # by the old plan
                turn.wake(turn.now, "flush")


def _drift(turn: Turn, run: Run, plan: Plan) -> None:
    plan.drifted = True
    turn.drifted.add(run.ix)


def _make(turn: Turn, run: Run, plan: Plan) -> None:
    turn.focus = run.ix
    now, sites = turn.now, max(1, len(turn.fleet.sessions))
    cost_s = run.unsettled * (sites + 4) * _EACH_S
    plan.sites, plan.next_at = {}, now + max(_SOON_S, _SHARE * cost_s)
    if run.unsettled < _LEAST or cost_s > _MOST_S[turn.settings.placement]:
        return
    ahead = look_ahead(turn, run, now)
    if ahead.unknown or ahead.nowhere or not ahead.problem.sites:
        return
    made = heft(ahead.problem)
    if made.makespan_s == INF:  # something of it has no place
        return
    plan.era, plan.version, plan.drifted, plan.end = turn.fleet.changes, run.version, False, made.makespan_s
    plan.starts, plan.lines = {}, {}
    for number in sorted(made.order, key=lambda number: -made.start_s[number]):
        site, task = ahead.problem.sites[made.site[number]], ahead.tasks[number]
        plan.sites[task] = site.worker, site.device
        plan.starts[task] = made.start_s[number]
        plan.lines.setdefault((site.worker, site.device), []).append(task)
    turn.count("planned")


def planned(turn: Turn, run: Run, task: Task, roster: Roster) -> tuple[Plan, Berth] | None:
    """The device that the task is planned for, if it is there and the plan still means it to start there."""
    plan = turn.plans.get(run.ix) if run.expected is None or foremost(turn, run) not in _UNPLANNED else None
    where = plan.sites.get(task.ix) if plan is not None else None
    if plan is None or where is None or plan.era != turn.fleet.changes or task.attempts:
        return None
    berth = next((one for one in roster.by_worker.get(where[0], ()) if one.device == where[1]), None)
    if berth is None or turn.now > plan.starts[task.ix] + plan.slack(turn.now) + _SOON_S * DRIFT:
        _drift(turn, run, plan)
        return None
    return plan, berth


def in_turn(turn: Turn, run: Run, task: Task, plan: Plan, session: Session, run_s: float) -> bool:
    """Whether it may begin before what is planned before it on that device: that begins later than it would end.

    One that begins at another time than planned, though it is next, is what a plan drifts by.
    """
    line = plan.lines.get(plan.sites[task.ix], [])
    while line and run.tasks[line[-1]].attempts:
        line.pop()
    now, slack = turn.now, plan.slack(turn.now)
    if not line or line[-1] == task.ix or session.slots_free > 1:
        if abs(plan.starts[task.ix] - now) > slack:
            _drift(turn, run, plan)
        return True
    first = plan.starts[line[-1]]
    return first < now or now + run_s <= first + slack


def wait(turn: Turn, plan: Plan) -> None:
    """Something waits for its place: look again in a moment, in case the plan's time for it passes."""
    if plan.wakes_at <= turn.now:
        plan.wakes_at = turn.now + _SOON_S
        turn.wake(plan.wakes_at, "flush")
