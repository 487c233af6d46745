"""The rule of a virtual clock that keeps to a guide: every task waits where the plan has it, inputs pushed ahead.

Late sites have the plan revised, so nothing is ever stolen one by one. It must not know how a plan is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .clock import Clock
from .guide import Guide, Planner
from .heft import heft
from .problem import Problem, Schedule


class Guided:
    """A rule of the clock that keeps to a guide; see clock.Rule."""

    def __init__(self, planner: Planner = heft, first: Schedule | None = None) -> None:
        self._planner = planner
        self._first = first
        self.guide: Guide | None = None

    def place(self, fresh: Sequence[int], clock: Clock) -> Iterable[tuple[int, int]]:
        """See clock.Rule."""
        if self.guide is None:
            self.guide = Guide(clock.problem, self._planner, self._first)
            return by_start(clock.problem, self.guide.plan)
        idle = any(slots and not queue for slots, queue in zip(clock.idle, clock.queued))
        if not any(clock.queued) or not self.guide.stale(idle):
            return ()
        problem = clock.rest()
        return by_start(problem, self.guide.revise(problem))

    def finished(self, task: int, clock: Clock) -> None:
        """See clock.Rule."""
        if self.guide is not None and task not in clock.problem.placed:
            self.guide.ended(task, clock.now_s)

    def steal(self, site: int, clock: Clock) -> int:
        """See clock.Rule: a site that idles has the plan revised."""
        return -1

    def overtakes(self, task: int, first: int, clock: Clock) -> bool:
        """See clock.Rule: only into a gap that holds it."""
        assert self.guide is not None
        run_s = clock.problem.run(task, clock.site[task])
        return self.guide.fits(task, run_s, first, clock.now_s)


def by_start(problem: Problem, plan: Schedule) -> list[tuple[int, int]]:
    """(task, site) of what has not begun, in the order in which the plan starts it."""
    left = [task for task in plan.order if plan.site[task] >= 0]
    left.sort(key=lambda task: (plan.start_s[task], plan.finish_s[task]))
    return [(task, plan.site[task]) for task in left]
