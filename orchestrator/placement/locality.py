"""A plan that moves fewer bytes: what need not hurry goes where its inputs are.

Earliest finish alone moves nearly as much as chance does: it takes a better site however little it gains by it. Here a
task may end later than it could by a share of the time that the plan leaves it, and among the sites on which it then
still ends in time the one wins to which the fewest bytes move. Invariant: the makespan stays within the budget. It must
not know a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .draft import Draft, Ground
from .heft import by_rank
from .problem import Problem, Schedule, near
from .rank import runs, upward

BUDGET: Final = 0.03
"""Part of the makespan that may be paid for bytes."""
SHARES: Final = (1.0, 0.4, 0.1)
"""Of a task's spare time that it may use up, tried from the first on: what one uses is gone for those behind it."""


def frugal(
    problem: Problem,
    plan: Schedule,
    *,
    budget: float = BUDGET,
    rank: Sequence[float] | None = None,
    ground: Ground | None = None,
) -> Schedule:
    """The plan that moves the fewest bytes of those that end within the budget over `plan`, itself included."""
    rank, ground = rank or upward(problem), ground or Ground(problem)
    tail = [whole - own for whole, own in zip(rank, runs(problem))]
    last = problem.now_s + (plan.makespan_s - problem.now_s) * (1.0 + budget)
    best, least = plan, moved_bytes(problem, plan)
    for share in SHARES:
        draft = Draft(ground)
        for task in by_rank(problem, rank):
            draft.put_near(task, plan.makespan_s - tail[task], share)
        found = draft.schedule()
        if found.makespan_s <= last and (size := moved_bytes(problem, found)) < least:
            best, least = found, size
    return best


def moved_bytes(problem: Problem, schedule: Schedule) -> float:
    """Bytes over all edges of what is decided whose ends are not near each other."""
    sites = problem.sites
    return sum(
        size
        for task in schedule.order
        for parent, size in problem.parents[task]
        if not near(sites[schedule.site[parent]], sites[schedule.site[task]])
    )
