"""Plans that are chosen or searched are sound, never worse than what they started from, and the same every time."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.placement.oracle import faults
from orchestrator.placement.draft import Ground
from orchestrator.placement.heft import heft
from orchestrator.placement.locality import BUDGET, frugal, moved_bytes
from orchestrator.placement.portfolio import end_s, members, portfolio
from orchestrator.placement.problem import INF, Problem, Schedule, Site
from orchestrator.placement.search import search
from tests.property.placement_problem import problems


def runnable(problem: Problem) -> Problem:
    """The same where every task may run on every site."""
    run_s = [[1.0 if seconds == INF else seconds for seconds in row] for row in problem.run_s]
    return msgspec.structs.replace(problem, run_s=run_s, memory=())


@settings(max_examples=60, deadline=None)
@given(problems().map(runnable), st.sampled_from(["free", "shared"]))
def test_the_portfolio_is_the_best_of_its_members_and_each_is_sound(problem: Problem, contention: str) -> None:
    problem = msgspec.structs.replace(problem, contention=contention)
    plans = dict(members(problem, Ground(problem)))
    name, best = portfolio(problem)
    assert best == plans[name]
    assert end_s(problem, best) == min(end_s(problem, plan) for plan in plans.values())
    assert {name: fault for name, plan in plans.items() if (fault := faults(problem, plan))} == {}


@settings(max_examples=60, deadline=None)
@given(problems().map(runnable), st.integers(0, 2**32))
def test_search_is_never_worse_than_its_start_sound_and_seeded(problem: Problem, seed: int) -> None:
    start = heft(problem)
    found = search(problem, start, seed=seed, moves=30)
    assert found.makespan_s <= start.makespan_s
    assert faults(problem, found) == []
    assert search(problem, start, seed=seed, moves=30) == found


@settings(max_examples=60, deadline=None)
@given(problems().map(runnable))
def test_a_frugal_plan_moves_no_more_bytes_and_keeps_its_budget(problem: Problem) -> None:
    plan = heft(problem)
    found = frugal(problem, plan)
    assert moved_bytes(problem, found) <= moved_bytes(problem, plan)
    assert found.makespan_s - problem.now_s <= (plan.makespan_s - problem.now_s) * (1 + BUDGET) * (1 + 1e-9)
    assert faults(problem, found) == []


@settings(max_examples=30, deadline=None)
@given(problems())
def test_a_problem_that_can_t_be_placed_whole_still_has_an_answer(problem: Problem) -> None:
    _, plan = portfolio(problem)
    assert isinstance(search(problem, plan, moves=10), Schedule)


def test_a_score_of_one_s_own_is_what_the_search_goes_by() -> None:
    sites = (Site("dear", worker=0, price_per_s=10.0), Site("cheap", kind=1, worker=1, price_per_s=1.0))
    none: list[list[tuple[int, float]]] = [[] for _ in range(6)]
    problem = Problem(sites, [[1.0, 2.0]] * 6, none, none)

    def price(plan: Schedule) -> float:
        spent = sum(problem.run(task, site) * sites[site].price_per_s for task, site in enumerate(plan.site))
        return spent if plan.makespan_s <= 8.0 else INF

    found = search(problem, heft(problem), moves=300, score=price)
    assert (sorted(found.site), found.makespan_s) == ([0, 0, 1, 1, 1, 1], 8.0)
