"""Simulated annealing on (site, order), decoded by the draft that heft uses: what list scheduling leaves on the table.

APEX, ReaLHF and Galvatron search plans with a cheap estimate of cost before they run (rows S05, S08, S52); here the
schedule itself is the estimate. A state is an order of the tasks and sites for some of them; the others go where they
finish first, so one move re-plans all that hangs on it. Moves aim at the chain of tasks that makes the makespan, for
nothing else can shorten it. There is little to win over HEFT on average (a percent or two), more where rules are weak:
memory, price, deadlines; hence `score`.

Invariant: never worse than the start; equal seeds give equal schedules. It must not know a clock: its budget is moves.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp
from typing import Final

from .dice import Dice
from .draft import Draft, Ground
from .problem import INF, Problem, Schedule

HEAT: Final = 0.003
"""Part of the score that a move may cost at first, about."""
_CHAIN: Final = 0.8
"""So many of the moves are for a task of the critical chain, the others for any."""

Score = Callable[[Schedule], float]
"""The less the better."""


def search(
    problem: Problem,
    start: Schedule,
    *,
    seed: int = 0,
    moves: int = 1000,
    score: Score = lambda schedule: schedule.makespan_s,
    ground: Ground | None = None,
) -> Schedule:
    """The best schedule seen in so many moves from the order of `start`, `start` itself if there is no better."""
    if not start.order:
        return start
    walk = _Walk(problem, ground or Ground(problem), start.order, Dice(seed))
    best, least = start, score(start)
    held = walk.draft()
    walk.keep(held)
    cost = score(held)
    for move in range(moves):
        if not walk.step(held):
            continue
        found = walk.draft()
        now = score(found)
        heat = HEAT * (1.0 - move / moves)
        if now <= cost or (now < INF and walk.dice.uniform() < exp((cost - now) / (cost * heat or 1.0))):
            walk.keep(found)
            held, cost = found, now
            if now < least:
                best, least = found, now
    return best


class _Walk:
    """The state, and one step from it that is kept or not."""

    def __init__(self, problem: Problem, ground: Ground, order: list[int], dice: Dice) -> None:
        self.dice = dice
        self._problem, self._ground = problem, ground
        self._order = order
        self._fixed: dict[int, int] = {}
        self._next = self._order, self._fixed
        self._chain: list[int] = []

    def step(self, held: Schedule) -> bool:
        """Go to a neighbour; False if the move changes nothing."""
        dice = self.dice
        pool = self._chain if self._chain and dice.uniform() < _CHAIN else self._order
        task = pool[dice.below(len(pool))]
        order, fixed = self._order, self._fixed
        if dice.uniform() < 0.5:
            fixed = dict(fixed)
            if task in fixed and dice.uniform() < 0.5:
                del fixed[task]
            else:
                site = dice.below(len(self._problem.sites))
                if site == held.site[task]:
                    site = (site + 1) % len(self._problem.sites)
                fixed[task] = site
        else:
            order = list(order)
            at = order.index(task)
            place = {one: n for n, one in enumerate(order)}
            low = max((place[one] + 1 for one, _ in self._problem.parents[task] if one in place), default=0)
            high = min((place[one] for one, _ in self._problem.children[task] if one in place), default=len(order)) - 1
            if high <= low:
                return False
            to = low + dice.below(at - low) if low < at and dice.uniform() < 0.8 else low + dice.below(high - low + 1)
            if to == at:
                return False
            order.insert(to, order.pop(at))
        self._next = order, fixed
        return True

    def draft(self) -> Schedule:
        """What is there now."""
        draft = Draft(self._ground)
        order, fixed = self._next
        for task in order:
            site = fixed.get(task, -1)
            if site < 0:
                draft.put_best(task)
            else:
                draft.put(task, site)
        return draft.schedule()

    def keep(self, found: Schedule) -> None:
        """The last step counts, and this came of it."""
        self._order, self._fixed = self._next
        self._chain = critical(self._problem, self._ground, found)


def critical(problem: Problem, ground: Ground, schedule: Schedule) -> list[int]:
    """The chain that makes the makespan, last task first: each began when an input came or when its slot got free."""
    before: dict[int, int] = {}
    lanes: dict[tuple[int, int], list[int]] = {}
    for task in schedule.order:
        if schedule.site[task] >= 0:
            lanes.setdefault((schedule.site[task], schedule.slot[task]), []).append(task)
    for lane in lanes.values():
        lane.sort(key=lambda task: (schedule.start_s[task], schedule.finish_s[task]))
        before.update(zip(lane[1:], lane))
    found: list[int] = []
    task = max(schedule.order, key=lambda task: schedule.finish_s[task], default=-1)
    while task >= 0 and schedule.site[task] >= 0 and task not in problem.placed and len(found) < problem.size:
        found.append(task)
        site, start = schedule.site[task], schedule.start_s[task] - 1e-9 * schedule.makespan_s
        task = next(
            (
                parent
                for parent, size in problem.parents[task]
                if (source := schedule.site[parent]) >= 0
                and schedule.finish_s[parent] + ground.latency[source][site] + size * ground.pace[source][site] >= start
            ),
            before.get(task, -1) if schedule.finish_s[before.get(task, task)] >= start else -1,
        )
    return found
