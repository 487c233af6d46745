"""Late binding on the virtual clock, as the orchestrator does it: a ready task stays in the queue, in order of upward
rank, until the policy takes an offer of a site with room.

Who waits for a site books it for those behind it: otherwise each of them would wait for its next free moment alone.
The policy is the very object that the core places with. It must not know what things really take.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Final

from .clock import Clock
from .policy import WAIT, Offer, Policy
from .problem import INF
from .thrift import Prefer, Thrift

PATIENCE: Final = 40
"""Tasks of one kind that may wait for a better site before the rest of it is left for the next instant (as in
core.dispatch)."""


class LateBinding:
    """A rule (see clock.Rule). `rank`: the larger goes first. `window`: how many tasks a site may have beyond those
    that run."""

    def __init__(
        self,
        policy: Policy,
        rank: Sequence[float],
        window: int = 0,
        *,
        prefer: Prefer = "time",
        due_s: Sequence[float] = (),
    ) -> None:
        """`prefer`: what else than time is spared, as long as each task ends by its `due_s` on the clock."""
        self._policy = policy
        self._prefer: Prefer = prefer
        self._due_s = due_s
        self._rank = rank
        self._window = window
        self._kinds: dict[tuple[int, ...], list[tuple[float, int]]] = {}
        """Where they may run -> ready tasks, a heap."""

    def place(self, fresh: Sequence[int], clock: Clock) -> Iterable[tuple[int, int]]:
        """See clock.Rule."""
        problem = clock.problem
        for task in fresh:
            sites = tuple(n for n in range(len(problem.sites)) if problem.run(task, n) < INF)
            heapq.heappush(self._kinds.setdefault(sites, []), (-self._rank[task], task))
        booked = [0.0] * len(problem.sites)
        aside: dict[tuple[int, ...], list[tuple[float, int]]] = {sites: [] for sites in self._kinds}
        heads = [(heap[0], sites) for sites, heap in self._kinds.items()]
        heapq.heapify(heads)
        while heads:
            entry, sites = heapq.heappop(heads)
            if not any(clock.room(site) + self._window > 0 for site in sites):
                continue
            heap = self._kinds[sites]
            heapq.heappop(heap)
            offers = [self._offer(entry[1], site, clock, booked[site]) for site in sites]
            policy = self._policy_for(entry[1], clock)
            chosen = policy.choose(offers)
            if chosen != WAIT:
                yield entry[1], sites[chosen]
            else:
                aside[sites].append(entry)
                best = policy.best(offers) if isinstance(policy, Thrift) else _first(offers)
                booked[sites[best]] += offers[best].run_s / problem.sites[sites[best]].slots
            if heap and len(aside[sites]) < PATIENCE:
                heapq.heappush(heads, (heap[0], sites))
        for sites, entries in aside.items():
            for entry in entries:
                heapq.heappush(self._kinds[sites], entry)
        self._kinds = {sites: heap for sites, heap in self._kinds.items() if heap}

    def finished(self, task: int, clock: Clock) -> None:
        """See clock.Rule."""

    def steal(self, site: int, clock: Clock) -> int:
        """See clock.Rule: what is bound late need not be moved."""
        return -1

    def overtakes(self, task: int, first: int, clock: Clock) -> bool:
        """See clock.Rule: no slot idles while something could run."""
        return True

    def _policy_for(self, task: int, clock: Clock) -> Policy:
        if self._prefer == "time":
            return self._policy
        return Thrift(self._prefer, self._due_s[task] - clock.now_s)

    def _offer(self, task: int, site: int, clock: Clock, booked: float) -> Offer:
        where, now = clock.problem.sites[site], clock.now_s
        run_s = clock.problem.run(task, site)
        return Offer(
            worker=where.worker if where.worker >= 0 else site,
            device=where.device,
            room=clock.room(site) + self._window > 0,
            start_s=clock.free_s(site) - now + booked,
            run_s=run_s,
            transfer_s=clock.arrival_s(task, site) - now,
            load=len(clock.running[site]) + len(clock.queued[site]),
            bytes=int(clock.remote_bytes(task, site)),
            price=run_s * where.price_per_s,
            energy_j=run_s * where.watts,
        )


def _first(offers: Sequence[Offer]) -> int:
    return min(range(len(offers)), key=lambda n: max(offers[n].start_s, offers[n].transfer_s) + offers[n].run_s)
