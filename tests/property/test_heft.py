"""List scheduling keeps the rules of every problem: slots, links, memory, the past; and what the reference found."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.placement.oracle import faults
from bench.placement.workflow import read_fleets, read_workflow
from orchestrator.placement.heft import heft
from orchestrator.placement.problem import INF, Problem, topological
from orchestrator.placement.rank import MEASURES, upward
from tests.property.placement_problem import problems

DATA = Path("../shared/data/workflows")


@settings(max_examples=150, deadline=None)
@given(problems())
def test_heft_keeps_every_rule_and_places_all_that_can_run(problem: Problem) -> None:
    found = heft(problem)
    stuck = set()
    for task in topological(problem):
        if task not in problem.placed and (
            any(parent in stuck for parent, _ in problem.parents[task])
            or all(problem.run(task, site) == INF for site in range(len(problem.sites)))
        ):
            stuck.add(task)
    assert {task for task, site in enumerate(found.site) if site < 0} == stuck
    assert sorted(found.order) == [task for task in range(problem.size) if task not in problem.placed]
    assert [fault for fault in faults(problem, found) if "on site -1" not in fault] == []
    assert found.makespan_s == max(found.finish_s)


@settings(max_examples=60, deadline=None)
@given(problems(), st.sampled_from(MEASURES))
def test_no_parent_ranks_below_its_child(problem: Problem, measure: str) -> None:
    rank = upward(problem, measure)  # type: ignore[arg-type]
    assert all(rank[task] >= rank[child] for task in range(problem.size) for child, _ in problem.children[task])


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the workflows of the shared data")
def test_heft_is_the_reference_s_on_every_instance() -> None:
    reference = msgspec.json.decode((DATA / "reference.json").read_bytes())["instances"]
    fleets = read_fleets(DATA / "fleets.json")
    for name, rows in reference.items():
        workflow = read_workflow(DATA / f"{name}.json.gz")
        for fleet, row in rows.items():
            found = heft(workflow.on(fleets[fleet])).makespan_s
            assert found == pytest.approx(row["results"]["HEFT"]["makespan_s"], rel=5e-6), (name, fleet)
