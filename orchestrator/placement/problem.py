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
from typing import Final, Literal

import msgspec

INF: Final = float("inf")

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
        both = not self.relayed
        return [[0.0 if near(a, b) else a.latency_s * both + b.latency_s for b in self.sites] for a in self.sites]

    def pace(self) -> list[list[float]]:
        """Seconds per byte from site to site."""
        width = [INF if self.relayed else site.bandwidth for site in self.sites]
        return [
            [0.0 if near(a, b) else 1.0 / min(far, b.bandwidth) for b in self.sites]
            for a, far in zip(self.sites, width)
        ]

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
