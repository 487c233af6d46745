"""What is to be placed and where: tasks with their edges, sites with their links, and what has already happened.

Pure values; lists, indices, seconds and bytes. A task and a site are their index. Invariant: every algorithm of this
package reads a Problem and none writes one; equal problems give equal schedules. It must not know runs, workers on a
link, or skills: the caller (core.outlook, the forecast, a bench) translates.

The model of time (contention free): a task runs `run_s[task][kind of the site]` seconds on one slot. An input crosses
from site to site in the sum of both latencies plus bytes over the lesser bandwidth; between sites of one worker it is
there at once. Transfers never take a slot. What moves when links are shared is the forecast's to know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, Literal

import msgspec

INF: Final = float("inf")
FEW: Final = 64
"""Sites whose links are kept: they take the square of them."""

Contention = Literal["free", "shared"]
Edges = Sequence[Sequence[tuple[int, float]]]
"""For each task its (neighbour, bytes)."""


class Site(msgspec.Struct, frozen=True):
    """One device of one worker. `kind` is its column in `Problem.run_s`; `bandwidth` in bytes/s and one-way `latency_s`
    are those of its own link: a pair has the lesser bandwidth and the sum of the latencies. `memory` in bytes is shared
    by its `slots`; `free_s` tells when each slot is free (left out: at once)."""

    name: str
    kind: int = 0
    worker: int = -1
    device: str = "cpu"
    speed: float = 1.0
    slots: int = 1
    bandwidth: float = INF
    latency_s: float = 0.0
    price_per_s: float = 0.0
    watts: float = 0.0
    memory: float = INF
    free_s: tuple[float, ...] = ()


class Placed(msgspec.Struct, frozen=True):
    """A task that is finished or under way: where, and when it ends (or is expected to)."""

    site: int
    finish_s: float


class Links(msgspec.Struct, frozen=True):
    """From site to site: seconds, seconds per byte, and whether bytes are on both as soon as they are on one. `beside`:
    for each site those that are near."""

    latency: list[list[float]]
    pace: list[list[float]]
    near: list[list[bool]]
    beside: list[list[int]]


class Problem(msgspec.Struct, frozen=True):
    """See the module. `run_s[task][kind]` in seconds, INF where it may not run. `placed` is the past, in which nothing
    is decided any more; `sent[task, site]` is when an output is at another site than its own, if it is under way or
    there already. Nothing starts before `now_s`, nor a task before its `release_s` (left out: at once)."""

    sites: tuple[Site, ...]
    run_s: Sequence[Sequence[float]]
    parents: Edges
    children: Edges
    memory: Sequence[float] = ()
    doubt: Sequence[float] = ()
    """How far each run time may be from its prediction, as the deviation of its logarithm (left out: exact)."""
    release_s: Sequence[float] = ()
    placed: Mapping[int, Placed] = {}
    sent: Mapping[tuple[int, int], float] = {}
    now_s: float = 0.0
    contention: Contention = "free"
    relayed: bool = False
    """Outputs are with a third (the orchestrator) when a task ends: an input crosses the link of its reader alone."""

    @property
    def size(self) -> int:
        """How many tasks."""
        return len(self.run_s)

    def latency(self) -> list[list[float]]:
        """Seconds from site to site."""
        return self.links().latency

    def pace(self) -> list[list[float]]:
        """Seconds per byte from site to site."""
        return self.links().pace

    def links(self) -> Links:
        """What its sites are to each other: of few made once, however often what is left of a run becomes a problem."""
        sites = tuple([(site.worker, site.latency_s, site.bandwidth) for site in self.sites])
        return (_kept if len(sites) <= FEW else _links)(sites, self.relayed)

    def run(self, task: int, site: int) -> float:
        """Seconds of the task on the site; INF where it may not run."""
        where = self.sites[site]
        return self.run_s[task][where.kind] if not self.memory or self.memory[task] <= where.memory else INF


class Schedule(msgspec.Struct, frozen=True):
    """Where and when each task runs. `order`: the tasks in the order in which they were decided, parents first; the
    past is not in it. A task that has no site it may run on has site -1 and never ends."""

    site: list[int]
    slot: list[int]
    start_s: list[float]
    finish_s: list[float]
    order: list[int]
    makespan_s: float


def near(a: Site, b: Site) -> bool:
    """Whether bytes are on both as soon as they are on one."""
    return a is b or (a.worker >= 0 and a.worker == b.worker)


def _links(sites: tuple[tuple[int, float, float], ...], relayed: bool) -> Links:
    """`sites`: the worker of each, its one-way latency and its bandwidth."""
    both, every = not relayed, range(len(sites))
    near = [[a == b or sites[a][0] == sites[b][0] >= 0 for b in every] for a in every]
    return Links(
        [[0.0 if near[a][b] else sites[a][1] * both + sites[b][1] for b in every] for a in every],
        [
            [0.0 if near[a][b] else 1.0 / min(INF if relayed else sites[a][2], sites[b][2]) for b in every]
            for a in every
        ],
        near,
        [[b for b in every if near[a][b]] for a in every],
    )


_kept: Final = lru_cache(maxsize=16)(_links)


def topological(problem: Problem) -> list[int]:
    """Parents before children; in order of index among those that wait for the same."""
    waits = [len(parents) for parents in problem.parents]
    order = [task for task, count in enumerate(waits) if not count]
    for task in order:
        for child, _ in problem.children[task]:
            waits[child] -= 1
            if not waits[child]:
                order.append(child)
    return order
