"""orchestrator.placement.problem: what is near, what a pair of links comes to, which order parents allow."""

from __future__ import annotations

import pytest

from orchestrator.placement.problem import FEW, INF, Problem, Site, topological


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


@pytest.mark.parametrize("count", [3, FEW + 1])
@pytest.mark.parametrize("relayed", [False, True])
def test_links_are_those_of_the_sites_whatever_was_asked_before(count: int, relayed: bool) -> None:
    for width in (2.0, 4.0):
        sites = tuple(Site(f"s{n}", worker=n // 2, bandwidth=width, latency_s=0.5 * n) for n in range(count))
        links = Problem(sites, [], [], [], relayed=relayed).links()
        assert links.latency[0][2] == 1.0
        assert links.latency[2][0] == (0.0 if relayed else 1.0)
        assert (links.pace[0][2], links.pace[0][1]) == (1 / width, 0.0)
        assert (links.near[0][1], links.near[1][2], links.beside[1]) == (True, False, [0, 1])
