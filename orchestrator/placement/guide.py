"""A plan that goes with the facts: HEFT over all that is known, made again when the facts have left it.

Rescheduled on two occasions alone (the price of doing it at every event buys nothing): something ended more than
`DRIFT` of what was left of the plan away from where it was expected, or a site idles that the plan did not mean to
idle. A plan that still holds is never touched, so with exact predictions the first one is played to its end.
Invariant: what has begun stays where it is. It must not know a clock or a run: guided.Guided ties it to the one, the
core to the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .draft import Draft, Ground
from .heft import heft
from .problem import Problem, Schedule

DRIFT: Final = 0.1
EXACT: Final = 1e-6
"""Below this part of what was left, an end is where it was expected."""

Planner = Callable[[Problem], Schedule]


class Guide:
    """The plan in force. `revised` counts how often it was made again."""

    def __init__(self, problem: Problem, planner: Planner = heft, first: Schedule | None = None) -> None:
        self._planner = planner
        self.revised = 0
        self._take(problem, first or planner(problem))

    def _take(self, problem: Problem, plan: Schedule) -> None:
        self.plan = plan
        self._left_s = plan.makespan_s - problem.now_s
        self.drifted = False
        """Something ended so far from its time that the plan should be revised."""
        self.exact = True
        """Everything has ended when it should."""

    def ended(self, task: int, at_s: float) -> None:
        """A task of the plan has finished."""
        off = abs(at_s - self.plan.finish_s[task])
        if off > EXACT * self._left_s:
            self.exact = False
            if off > DRIFT * self._left_s:
                self.drifted = True

    def stale(self, idle: bool) -> bool:
        """Whether to revise. `idle`: a site has nothing left to do while tasks wait elsewhere."""
        return self.drifted or (idle and not self.exact)

    def fits(self, task: int, run_s: float, first: int, now_s: float) -> bool:
        """Whether a task can run before the first in its site's line should: into the gap, or once that is overdue."""
        slack, start = EXACT * self._left_s, self.plan.start_s[first]
        return now_s + run_s <= start + slack or start < now_s - slack

    def revise(self, problem: Problem) -> Schedule:
        """Plan anew what has not begun. Where predictions are sure the present plan goes on if it is as good."""
        plan = self._planner(problem)
        if not any(problem.doubt):
            kept = continued(problem, self.plan)
            plan = kept if kept.makespan_s <= plan.makespan_s else plan
        self._take(problem, plan)
        self.revised += 1
        return plan


def continued(problem: Problem, plan: Schedule) -> Schedule:
    """What becomes of a plan under the facts of this problem."""
    draft = Draft(Ground(problem))
    for task in plan.order:
        if task not in problem.placed:
            draft.put(task, plan.site[task])
    return draft.schedule()
