"""The best of several plans, by what each comes to: every list heuristic has graphs on which it is far off.

PISA (Coleman and Krishnamachari, 2024) finds for each heuristic graphs where it is 2 to 1000 times worse than another:
where edges dwarf work the fastest device alone wins, where they don't HEFT does. A plan comes to what it is drafted as
where links are free of contention, else to what the clock makes of it over shared ones. Invariant: never worse than any
of its members. It must not know runs or predictors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .clock import follow, play
from .draft import Draft, Ground
from .eft import Eft
from .guide import continued
from .heft import by_rank, heft
from .late_binding import LateBinding
from .locality import frugal
from .problem import INF, Problem, Schedule
from .rank import Measure, upward

RANKS: Final[tuple[tuple[str, Measure, float], ...]] = (
    ("heft/best", "best", 2.0),
    ("heft/worst", "worst", 1.0),
    ("heft/links", "mean", 2.0),
)
"""HEFT by other ranks: optimists and pessimists about run times, and one who counts edges twice."""


def portfolio(problem: Problem, ground: Ground | None = None) -> tuple[str, Schedule]:
    """The name and the plan that ends first; of equals the first in the order of `members`."""
    return min(members(problem, ground or Ground(problem)), key=lambda one: end_s(problem, one[1]))


def end_s(problem: Problem, plan: Schedule) -> float:
    """When the plan ends if everything takes as long as predicted."""
    return plan.makespan_s if problem.contention == "free" else follow(problem, plan).schedule.makespan_s


def members(problem: Problem, ground: Ground) -> Iterator[tuple[str, Schedule]]:
    """Every plan by its name."""
    rank = upward(problem)
    first = heft(problem, rank, ground)
    yield "heft", first
    yield "frugal", frugal(problem, first, rank=rank, ground=ground)
    for name, measure, transfer in RANKS:
        yield name, heft(problem, upward(problem, measure, transfer), ground)
    yield "eft", continued(problem, play(problem, LateBinding(Eft(), rank)).schedule)
    yield "fastest", fastest(problem, rank, ground)


def fastest(problem: Problem, rank: list[float], ground: Ground) -> Schedule:
    """All on the one site that is through with the work first; what may not run there goes where it ends first."""
    order = by_rank(problem, rank)
    sites = range(len(problem.sites))
    work = [sum(run for task in order if (run := problem.run(task, site)) < INF) for site in sites]
    most = max(sum(problem.run(task, site) < INF for task in order) for site in sites)
    able = [site for site in sites if sum(problem.run(task, site) < INF for task in order) == most]
    site = min(able, key=lambda site: work[site] / problem.sites[site].slots)
    draft = Draft(ground)
    for task in order:
        if problem.run(task, site) < INF:
            draft.put(task, site)
        else:
            draft.put_best(task)
    return draft.schedule()
