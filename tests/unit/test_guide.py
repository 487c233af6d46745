"""orchestrator.placement.guide: a plan that holds is left alone, one that the facts have left is made anew."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bench.placement.oracle import faults
from bench.placement.workflow import read_fleets, read_workflow
from orchestrator.placement.clock import play
from orchestrator.placement.guided import Guided
from orchestrator.placement.heft import heft
from orchestrator.placement.problem import Problem, Site

DATA = Path("../shared/data/workflows")
TWO = (Site("fast", worker=0), Site("slow", kind=1, worker=1))


def independent(run_s: list[list[float]], **more: object) -> Problem:
    none: list[list[tuple[int, float]]] = [[] for _ in run_s]
    return Problem(TWO, run_s, none, none, **more)  # type: ignore[arg-type]


def test_with_exact_predictions_the_plan_is_played_to_its_end_untouched() -> None:
    edges = [[], [], [(0, 1.0)], [(0, 1.0), (1, 1.0)]], [[(2, 1.0), (3, 1.0)], [(3, 1.0)], [], []]
    problem = Problem(TWO, [[2.0, 3.0], [1.0, 2.0], [4.0, 4.0], [1.0, 5.0]], *edges)
    rule = Guided()
    found = play(problem, rule).schedule
    assert found.finish_s == heft(problem).finish_s
    assert rule.guide is not None
    assert rule.guide.revised == 0


def test_what_waits_moves_to_a_site_that_idles_against_the_plan() -> None:
    problem = independent([[4.0, 6.0]] * 4)
    assert heft(problem).site == [0, 1, 0, 0]
    found = play(problem, Guided(), took=lambda task, site: 1.0 if task == 1 else problem.run(task, site)).schedule
    assert (found.site, found.makespan_s) == ([0, 1, 1, 0], 8.0)


def test_a_task_overtakes_only_into_a_gap_that_holds_it() -> None:
    edges: list[list[tuple[int, float]]] = [[], [(0, 0.0)], []]
    sites = (Site("a", worker=0, latency_s=1.0), Site("b", kind=1, worker=1, latency_s=1.0))
    inf = float("inf")

    def starts(filler_s: float) -> list[float]:
        run_s = [[2.0, inf], [inf, 9.0], [inf, filler_s]]
        return play(Problem(sites, run_s, edges, [[(1, 0.0)], [], []]), Guided()).schedule.start_s

    assert starts(4.0) == [0.0, 4.0, 0.0]
    assert starts(5.0) == [0.0, 4.0, 13.0]


def test_in_doubt_a_site_that_is_slower_must_be_worth_more() -> None:
    run_s = [[4.0, 9.5], [4.0, 9.5], [4.0, 9.5]]
    assert heft(independent(run_s)).site == [0, 0, 1]
    assert heft(independent(run_s, doubt=[0.5] * 3)).site == [0, 0, 0]


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the workflows of the shared data")
def test_a_guided_run_with_exact_predictions_is_its_plan_on_real_workflows() -> None:
    fleets = read_fleets(DATA / "fleets.json")
    for name in ("montage-2mass-015d-001",):
        workflow = read_workflow(DATA / f"{name}.json.gz")
        for sites in fleets.values():
            problem = workflow.on(sites)
            rule = Guided()
            found = play(problem, rule).schedule
            assert found.makespan_s == pytest.approx(heft(problem).makespan_s, rel=1e-5)
            assert rule.guide is not None
            assert rule.guide.revised == 0
            noisy = msgspec.structs.replace(problem, doubt=[0.5] * problem.size)
            late = play(noisy, Guided(), took=lambda task, site: noisy.run(task, site) * (1 + task % 3))  # noqa: B023
            run_s = [[seconds * (1 + task % 3) for seconds in row] for task, row in enumerate(problem.run_s)]
            assert faults(msgspec.structs.replace(problem, run_s=run_s), late.schedule) == []
