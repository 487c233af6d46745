"""Upward ranks: how long the work that hangs on a task still takes, on average over the sites.

`rank = run + max over children of (transfer + rank)` (Topcuoglu et al., TPDS 2002), with means over the sites a task
may run on and over all pairs of sites that aren't near. Invariant: with positive run times a parent's rank is above its
children's. It must not know where anything is placed.
"""

from __future__ import annotations

from typing import Final, Literal

from .problem import INF, Problem, Site, topological

Measure = Literal["mean", "best", "worst"]
MEASURES: Final[tuple[Measure, ...]] = ("mean", "best", "worst")


def upward(problem: Problem, measure: Measure = "mean", transfer: float = 1.0) -> list[float]:
    """The rank of every task. `measure`: of a task's run times over the sites; `transfer` weighs the edges."""
    run = runs(problem, measure)
    latency, pace = mean_link(problem.sites)
    latency, pace = latency * transfer, pace * transfer
    rank = [0.0] * problem.size
    for task in reversed(topological(problem)):
        most = 0.0
        for child, size in problem.children[task]:
            length = rank[child] + latency + size * pace
            if length > most:
                most = length
        rank[task] = run[task] + most
    return rank


def runs(problem: Problem, measure: Measure = "mean") -> list[float]:
    """Seconds of each task by the measure, over the sites it may run on; 0 for one that may run nowhere."""
    kinds = [site.kind for site in problem.sites]
    found = []
    for task, row in enumerate(problem.run_s):
        if problem.memory:
            times = [s for site in range(len(kinds)) if (s := problem.run(task, site)) < INF]
        else:
            times = [s for kind in kinds if (s := row[kind]) < INF]
        if not times:
            found.append(0.0)
        elif measure == "mean":
            found.append(sum(times) / len(times))
        else:
            found.append(min(times) if measure == "best" else max(times))
    return found


def mean_link(sites: tuple[Site, ...]) -> tuple[float, float]:
    """Mean seconds and seconds per byte between two sites that aren't near; both 0 if all are. In n log n."""
    groups: dict[int, list[Site]] = {}
    for site in sites:
        if site.worker >= 0:
            groups.setdefault(site.worker, []).append(site)
    inner = [_pairs(group) for group in groups.values() if len(group) > 1]
    count, latency, pace = _pairs(sites)
    count -= sum(pairs for pairs, _, _ in inner)
    if not count:
        return 0.0, 0.0
    return (latency - sum(one for _, one, _ in inner)) / count, (pace - sum(one for _, _, one in inner)) / count


def _pairs(sites: tuple[Site, ...] | list[Site]) -> tuple[int, float, float]:
    """How many unordered pairs, the sum of their latencies, and that of their seconds per byte."""
    most = len(sites) - 1
    paces = sorted(1.0 / site.bandwidth for site in sites)
    latency = most * sum(site.latency_s for site in sites)
    return most * len(sites) // 2, latency, sum(pace * below for below, pace in enumerate(paces))
