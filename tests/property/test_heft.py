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
from orchestrator.placement.problem import INF, Placed, Problem, Site, topological
from orchestrator.placement.rank import MEASURES, upward

DATA = Path("../shared/data/workflows")
FEW = st.integers(0, 5).map(float)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Some tasks, some sites, and perhaps a past."""
    size = draw(st.integers(1, 12))
    kinds = draw(st.integers(1, 3))
    sites = []
    for n in range(draw(st.integers(1, 4))):
        slots = draw(st.integers(1, 3))
        free = draw(st.one_of(st.just(()), st.tuples(*[FEW] * slots)))
        bandwidth, latency = draw(st.sampled_from([1.0, 10.0, INF])), draw(FEW)
        worker, memory = draw(st.integers(-1, 2)), draw(st.sampled_from([2.0, 5.0, INF]))
        kind = draw(st.integers(0, kinds - 1))
        sites.append(Site(f"s{n}", kind, worker, slots=slots, bandwidth=bandwidth, latency_s=latency,
                          memory=memory, free_s=free))  # fmt: skip
    run = st.one_of(FEW, st.floats(0.1, 9.0), st.just(INF))
    run_s = [[draw(run) for _ in range(kinds)] for _ in range(size)]
    parents: list[list[tuple[int, float]]] = [[] for _ in range(size)]
    children: list[list[tuple[int, float]]] = [[] for _ in range(size)]
    index = draw(st.permutations(range(size)))
    for at in range(1, size):
        for above in sorted(draw(st.sets(st.integers(0, at - 1), max_size=3))):
            child, parent, data = index[at], index[above], draw(FEW)
            parents[child].append((parent, data))
            children[parent].append((child, data))
    past = draw(st.integers(0, size // 2))
    placed = {task: Placed(draw(st.integers(0, len(sites) - 1)), draw(FEW)) for task in index[:past]}
    sent = {(task, draw(st.integers(0, len(sites) - 1))): placed[task].finish_s + draw(FEW) for task in placed}
    return Problem(
        sites=tuple(sites),
        run_s=run_s,
        parents=parents,
        children=children,
        memory=draw(st.one_of(st.just([]), st.lists(FEW, min_size=size, max_size=size))),
        release_s=draw(st.one_of(st.just([]), st.lists(FEW, min_size=size, max_size=size))),
        placed=placed,
        sent=sent,
        now_s=draw(FEW),
    )


@settings(max_examples=300, deadline=None)
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
