"""orchestrator.placement.problem: what is near, what a pair of links comes to, which order parents allow."""

from __future__ import annotations

from orchestrator.placement.problem import INF, Problem, Site, topological


def test_a_pair_of_sites_has_the_lesser_bandwidth_and_both_latencies() -> None:
    problem = Problem(
        sites=(
            Site("a", worker=1, bandwidth=100.0, latency_s=0.5),
            Site("a-gpu", worker=1, bandwidth=100.0, latency_s=0.5),
            Site("b", worker=2, bandwidth=10.0, latency_s=0.25),
        ),
        run_s=[],
        parents=[],
        children=[],
    )
    assert problem.latency() == [[0, 0, 0.75], [0, 0, 0.75], [0.75, 0.75, 0]]
    assert problem.pace() == [[0, 0, 0.1], [0, 0, 0.1], [0.1, 0.1, 0]]


def test_a_task_larger_than_the_memory_of_a_site_may_not_run_there() -> None:
    sites = (Site("small", memory=10.0), Site("gpu", kind=1, memory=100.0))
    problem = Problem(sites, [[2.0, 1.0], [2.0, INF]], [[], []], [[], []], memory=[50.0, 1.0])
    assert [[problem.run(task, site) for site in (0, 1)] for task in (0, 1)] == [[INF, 1.0], [2.0, INF]]


def test_parents_come_before_children() -> None:
    children = [[(2, 1.0)], [(2, 1.0), (3, 1.0)], [(3, 1.0)], []]
    parents: list[list[tuple[int, float]]] = [[], [], [(0, 1.0), (1, 1.0)], [(1, 1.0), (2, 1.0)]]
    assert topological(Problem((Site("a"),), [[1.0]] * 4, parents, children)) == [0, 1, 2, 3]
