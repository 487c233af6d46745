"""HEFT: tasks by decreasing upward rank, each to the site on which it finishes first, into gaps where it fits.

Topcuoglu, Hariri and Wu, TPDS 2002. It knows the whole problem, so it serves as the plan of a run whose graph is known
(placement.guide runs it again when the facts have left the plan) and as the start of the search. Invariant: equal
ranks fall by the order of the graph, so equal problems give equal schedules. It must not know a clock.
"""

from __future__ import annotations

from collections.abc import Sequence

from .draft import Draft, Ground
from .problem import Problem, Schedule, topological
from .rank import upward


def heft(problem: Problem, rank: Sequence[float] | None = None, ground: Ground | None = None) -> Schedule:
    """The schedule. `rank`: another order than that of the upward ranks; a parent may not be below its child there."""
    draft = Draft(ground or Ground(problem))
    for task in by_rank(problem, upward(problem) if rank is None else rank):
        draft.put_best(task)
    return draft.schedule()


def by_rank(problem: Problem, rank: Sequence[float]) -> list[int]:
    """The tasks that are still to be decided, by decreasing rank; of equals, parents come first."""
    return sorted((task for task in topological(problem) if task not in problem.placed), key=lambda task: -rank[task])
