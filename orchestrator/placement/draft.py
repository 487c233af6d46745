"""A schedule in the making: tasks are put on sites one after the other, each into the first gap that holds it.

Whatever order and whatever sites somebody chooses, the outcome keeps the problem's rules: this is the one evaluator of
heft, the portfolio and the search. Invariant: a task is put after its parents; nothing that was put moves. It must not
know why a site was chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

from .problem import INF, Problem, Schedule
from .timeline import Timeline


class Ground:
    """What all drafts of one problem share: links, and who is near."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        links = problem.links()
        self.latency, self.pace, self.near = links.latency, links.pace, links.beside
        self.kinds = [site.kind for site in problem.sites]
        self.caution = [exp(doubt) for doubt in problem.doubt] or [1.0] * problem.size
        most = max(problem.memory, default=0.0)
        self.crowds = [site.slots > 1 and most * site.slots > site.memory for site in problem.sites]
        """Sites on which tasks may have to wait for each other's memory."""


class Draft:
    """See the module."""

    __slots__ = ("_earlier", "_ground", "_held", "_lanes", "finish_s", "order", "site", "slot", "start_s")

    def __init__(self, ground: Ground) -> None:
        problem = ground.problem
        self._ground = ground
        self._lanes: list[list[Timeline]] = [[] for _ in problem.sites]
        """Empty until something is looked for there: many sites are never asked, and have many slots."""
        self._held: list[list[tuple[float, float, float]]] = [[] for _ in problem.sites]
        self.site = [-1] * problem.size
        self.slot = [-1] * problem.size
        self.start_s = [INF] * problem.size
        self.finish_s = [INF] * problem.size
        self.order: list[int] = []
        self._earlier: dict[tuple[int, int], float] = {}
        for (task, site), at in problem.sent.items():
            for there in ground.near[site]:
                self._earlier[task, there] = min(at, self._earlier.get((task, there), INF))
        for task, placed in problem.placed.items():
            self.site[task], self.finish_s[task] = placed.site, placed.finish_s
            for there in ground.near[placed.site]:
                self._earlier[task, there] = placed.finish_s

    def ready(self, task: int) -> list[float]:
        """When its inputs are at each site."""
        ground = self._ground
        problem = ground.problem
        now = problem.now_s
        first = max(now, problem.release_s[task]) if problem.release_s else now
        ready = [first] * len(ground.kinds)
        for parent, size in problem.parents[task]:
            source = self.site[parent]
            if source < 0:
                return [INF] * len(ready)
            end = self.finish_s[parent]
            latency, pace = ground.latency[source], ground.pace[source]
            if parent not in problem.placed:
                ready = [
                    at if at > (there := end + delay + size * each) else there
                    for at, delay, each in zip(ready, latency, pace)
                ]
            else:
                end = end if end > now else now
                for site, at in enumerate(ready):
                    there = self._earlier.get((parent, site), -1.0)
                    if there < 0.0:
                        there = end + latency[site] + size * pace[site]
                    if there > at:
                        ready[site] = there
        return ready

    def ready_on(self, task: int, site: int) -> float:
        """When its inputs are at that site."""
        ground = self._ground
        problem = ground.problem
        ready = max(problem.now_s, problem.release_s[task]) if problem.release_s else problem.now_s
        for parent, size in problem.parents[task]:
            source = self.site[parent]
            if source < 0:
                return INF
            end = self.finish_s[parent]
            if parent not in problem.placed:
                there = end + ground.latency[source][site] + size * ground.pace[source][site]
            else:
                there = self._earlier.get((parent, site), -1.0)
                if there < 0.0:
                    end = end if end > problem.now_s else problem.now_s
                    there = end + ground.latency[source][site] + size * ground.pace[source][site]
            if there > ready:
                ready = there
        return ready

    def put_best(self, task: int, ready: Sequence[float] | None = None) -> int:
        """Put it where it finishes first, the first such site if several; -1 if it may run nowhere.

        Where a run time is in doubt, one deviation more than expected counts: what goes wrong on a slow site costs more
        seconds than it does on a fast one, and whatever hangs on the task waits for all of them.
        """
        ground = self._ground
        row, caution = ground.problem.run_s[task], ground.caution[task]
        best, chosen, begin, lane = INF, -1, INF, -1
        for site, at in enumerate(ready or self.ready(task)):
            run = row[ground.kinds[site]]
            wary = run * caution
            if at + wary >= best:
                continue
            slot, start = self._earliest(task, site, at, run)
            if start + wary < best:
                best, chosen, begin, lane = start + wary, site, start, slot
        self._put(task, chosen, lane, begin, begin + row[ground.kinds[chosen]])
        return chosen

    def put_near(self, task: int, by_s: float, share: float) -> int:
        """Put it where the fewest bytes move to, of the sites on which it ends no later than `share` of the way from
        its earliest end to `by_s`; of equals where it ends first. -1 if it may run nowhere."""
        ground, problem = self._ground, self._ground.problem
        row, caution = problem.run_s[task], ground.caution[task]
        ends: list[tuple[float, int, int, float]] = []
        for site, at in enumerate(self.ready(task)):
            run = row[ground.kinds[site]]
            if at + run < INF:
                slot, start = self._earliest(task, site, at, run)
                ends.append((start + run * caution, site, slot, start))
        first = min(ends, default=(INF, -1, -1, INF))
        last = first[0] + max(0.0, by_s - first[0]) * share
        held = [0.0] * len(ground.kinds)
        for parent, size in problem.parents[task]:
            if (source := self.site[parent]) >= 0:
                for site in ground.near[source]:
                    held[site] += size
        chosen = min((one for one in ends if one[0] <= last), key=lambda one: (-held[one[1]], one[0]), default=first)
        _, site, slot, start = chosen
        self._put(task, site if start < INF else -1, slot, start, start + row[ground.kinds[site]])
        return site

    def put(self, task: int, site: int) -> None:
        """Put it there; it never ends if it may not run there."""
        ground = self._ground
        run = ground.problem.run_s[task][ground.kinds[site]]
        ready = self.ready_on(task, site)
        slot, start = self._earliest(task, site, ready, run) if ready + run < INF else (-1, INF)
        self._put(task, site if start < INF else -1, slot, start, start + run)

    def _put(self, task: int, site: int, slot: int, start_s: float, finish_s: float) -> None:
        self.order.append(task)
        if site < 0:
            return
        self.site[task], self.slot[task], self.start_s[task], self.finish_s[task] = site, slot, start_s, finish_s
        self._lanes[site][slot].take(start_s, finish_s)
        if self._ground.crowds[site]:
            self._held[site].append((start_s, finish_s, self._ground.problem.memory[task]))

    def _earliest(self, task: int, site: int, ready: float, run: float) -> tuple[int, float]:
        """The slot and the start; both are the least."""
        problem = self._ground.problem
        if problem.memory and problem.memory[task] > problem.sites[site].memory:
            return -1, INF
        chosen, best = -1, INF
        for slot, lane in enumerate(self._lanes[site] or self._open(site)):
            start = lane.earliest(ready, run)
            while self._ground.crowds[site] and (later := self._room(site, task, start, start + run)) > start:
                start = lane.earliest(later, run)
            if start < best:
                chosen, best = slot, start
                if start <= ready:
                    break
        return chosen, best

    def _open(self, number: int) -> list[Timeline]:
        """Its slots."""
        site, now = self._ground.problem.sites[number], self._ground.problem.now_s
        self._lanes[number] = [Timeline(max(free, now)) for free in site.free_s or (0.0,) * site.slots]
        return self._lanes[number]

    def _room(self, site: int, task: int, start: float, finish: float) -> float:
        """`start` if the site's memory holds the task from then on, else the next instant at which to look again."""
        problem = self._ground.problem
        free = problem.sites[site].memory - problem.memory[task]
        spans = [span for span in self._held[site] if span[0] < finish and span[1] > start]
        for at in [start, *(begin for begin, _, _ in spans if begin > start)]:
            if sum(held for begin, end, held in spans if begin <= at < end) > free:
                return min(end for begin, end, _ in spans if begin <= at < end)
        return start

    def schedule(self) -> Schedule:
        """What has come of it."""
        most = max(self.finish_s, default=self._ground.problem.now_s)
        return Schedule(self.site, self.slot, self.start_s, self.finish_s, self.order, most)
