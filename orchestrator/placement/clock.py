"""The virtual clock: a Problem played to its end, by a rule that decides as it goes or by a plan that is followed.

What happens is the clock's, what is decided is the rule's. A task may take another time than its prediction (`took`):
a rule sees predictions until it has happened. Inputs travel free of contention, or over links that are shared max-min
fairly (`Problem.contention`); then one output goes to one worker once, and two sites of one worker share its link.
Deterministic: equal arguments give an equal course. It must not know runs, skills or predictors.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import msgspec

from .flow import Flows
from .problem import INF, Placed, Problem, Schedule

_FREE, _LANDED, _RELEASE, _FINISH, _ARRIVE = range(5)
"""Events, in the order in which those of one instant happen."""
_OVERDUE: Final = 0.1
"""What runs longer than predicted is expected to take this part of its prediction more, or as long again as it is
late: waiting for it gets ever less attractive (as core.fleet has it)."""

Took = Callable[[int, int], float]
"""(task, site) -> the seconds that it really takes there."""


class Rule(Protocol):
    """Decides on a clock, which it only reads. One object plays once: it may remember."""

    def place(self, fresh: Sequence[int], clock: Clock) -> Iterable[tuple[int, int]]:
        """(task, site) of what is placed now. `fresh`: what became ready since the last call; what is left out the rule
        keeps in mind. Asked whenever something is fresh or a slot has become idle. What is placed before it is ready
        gets its inputs pushed as they are made, and what has not begun may be placed again, elsewhere or behind."""
        ...

    def finished(self, task: int, clock: Clock) -> None:
        """A task has just finished; `place` follows at the same instant."""
        ...

    def steal(self, site: int, clock: Clock) -> int:
        """A task that is queued elsewhere and moves to this site, which has an idle slot and no queue; -1 for none."""
        ...

    def overtakes(self, task: int, first: int, clock: Clock) -> bool:
        """Whether a task whose inputs are there begins before the first of its site's queue, which misses some."""
        ...


class Played(msgspec.Struct, frozen=True):
    """How it went. `moved_bytes` crossed from worker to worker."""

    schedule: Schedule
    moved_bytes: float


def play(problem: Problem, rule: Rule, *, took: Took | None = None) -> Played:
    """Let `rule` place every task once it is ready; it pulls its inputs from then on."""
    return Clock(problem, took, rule).run()


def follow(problem: Problem, plan: Schedule, *, took: Took | None = None) -> Played:
    """Let every task run where `plan` says, each slot in the plan's order, however long things take. Outputs are pushed
    to where they are planned to be read."""
    clock = Clock(problem, took)
    clock.bind(plan)
    return clock.run()


class Clock:
    """The world as it is at `now_s`. For a rule: what is where, what waits, what is expected."""

    def __init__(self, problem: Problem, took: Took | None = None, rule: Rule | None = None) -> None:
        self.problem = problem
        self._rule = rule
        self.now_s = problem.now_s
        count, sites = problem.size, problem.sites
        self.site = [-1] * count
        """Where each task is placed; -1 before."""
        self.start_s = [INF] * count
        self.finish_s = [INF] * count
        """INF until it has finished."""
        self.queued: list[deque[int]] = [deque() for _ in sites]
        """Placed at a site and not started, in the order in which they were placed."""
        self.running: list[dict[int, None]] = [{} for _ in sites]
        self.idle: list[list[int]] = [[] for _ in sites]
        self._took = took or problem.run
        self._slot = [-1] * count
        self._order: list[int] = []
        links = problem.links()
        self._latency, self._pace, self._near = links.latency, links.pace, links.near
        self._worker = [site.worker if site.worker >= 0 else -1 - n for n, site in enumerate(sites)]
        self._waits = [len(parents) for parents in problem.parents]
        """Parents that are not finished."""
        self._missing = [0] * count
        """Inputs of a placed task that are not there."""
        self._arrives = [0.0] * count
        """When the last input of a placed task is expected."""
        self._moves = [0] * count
        """How often a task was placed: what travels for an earlier place doesn't count at a later one."""
        self._fresh: list[int] = []
        self._roused = False
        self._deciding = False
        self._lanes: list[list[deque[int]]] | None = None
        """Under a plan: what each slot still has to run, in its order."""
        self._expected: list[list[float]] = [[] for _ in sites]
        """When each slot is expected to be free of what is placed there: a heap, empty when it must be made again."""
        self._landed = dict(problem.sent)
        """(task, site) -> when its output is there; over shared links only once it is."""
        self._sent: dict[tuple[int, int], float] = {}
        """(task, site) -> when all of its output that is under way is there, where links are not shared."""
        self._awaited: dict[tuple[int, int], list[tuple[int, int]]] = {}
        """(task, worker) -> (who waits for its output there, its place's number)."""
        self._opens: list[dict[int, float]] = [{} for _ in sites]
        """Slots that are not free yet for what was there before, and until when."""
        self._events: list[tuple[float, int, int, int, int]] = []
        self._made = 0
        self._moved = 0.0
        self._flows: Flows[tuple[int, int, int]] | None = None
        if problem.contention == "shared":
            self._line = {worker: n for n, worker in enumerate(dict.fromkeys(self._worker))}
            width = [0.0] * len(self._line)
            for n, site in enumerate(sites):
                line = self._line[self._worker[n]]
                width[line] = max(width[line], site.bandwidth)
            self._flows = Flows(width, problem.relayed)
        for n, site in enumerate(sites):
            for slot, free in enumerate(site.free_s or (0.0,) * site.slots):
                at = self._opens[n][slot] = max(self.now_s, free)
                if at > self.now_s:
                    self._post(at, _FREE, n, slot)
        if any(at <= self.now_s for opens in self._opens for at in opens.values()):
            self._post(self.now_s, _FREE, -1, 0)

    # for rules

    def free_s(self, site: int) -> float:
        """When a slot there is expected to be free of everything that is placed, by prediction; never in the past."""
        heap = self._expected[site] or self._expect(site)
        return heap[0] if heap[0] > self.now_s else self.now_s

    def room(self, site: int) -> int:
        """Idle slots less what is queued for them."""
        return len(self.idle[site]) - len(self.queued[site])

    def arrival_s(self, task: int, site: int) -> float:
        """When its inputs would be there if it were placed there now, and had the links to itself."""
        last = self.now_s
        for parent, size in self.problem.parents[task]:
            at = self._landed.get((parent, site))
            if at is None:
                source = self.site[parent]
                at = self.now_s + self._latency[source][site] + size * self._pace[source][site]
            if at > last:
                last = at
        return last

    def remote_bytes(self, task: int, site: int) -> float:
        """How much of its inputs would have to move there."""
        return sum(
            size
            for parent, size in self.problem.parents[task]
            if not self._near[self.site[parent]][site] and (parent, site) not in self._landed
        )

    def ends_s(self, task: int) -> float:
        """When a task that runs is expected to end, by prediction; never in the past."""
        run, passed = self.problem.run(task, self.site[task]), self.now_s - self.start_s[task]
        return self.now_s + max(run - passed, run * _OVERDUE, passed - run)

    def rest(self) -> Problem:
        """What is left, as a problem of its own: all that has begun is its past."""
        free = []
        placed = dict(self.problem.placed) | {
            task: Placed(site, self.finish_s[task])
            for task, site in enumerate(self.site)
            if self.finish_s[task] < INF and site >= 0
        }
        for site, running in enumerate(self.running):
            ends = [self.ends_s(task) for task in running]
            placed.update((task, Placed(site, end)) for task, end in zip(running, ends))
            free.append((*ends, *(max(self.now_s, at) for at in self._opens[site].values())))
        sites = tuple(
            msgspec.structs.replace(site, free_s=(*ends, *(self.now_s,) * (site.slots - len(ends))))
            for site, ends in zip(self.problem.sites, free)
        )
        sent = self._landed | self._sent
        return msgspec.structs.replace(self.problem, sites=sites, placed=placed, sent=sent, now_s=self.now_s)

    # time

    def bind(self, plan: Schedule) -> None:
        """Follow this plan."""
        self._lanes = [[deque() for _ in range(site.slots)] for site in self.problem.sites]
        for task in sorted(plan.order, key=lambda task: (plan.start_s[task], plan.finish_s[task])):
            site = plan.site[task]
            if site >= 0:
                self.site[task] = site
                self._missing[task] = len(self.problem.parents[task])
                self._lanes[site][plan.slot[task]].append(task)

    def run(self) -> Played:
        """To the end. Tasks that may run nowhere, or that no rule places, never finish."""
        problem, flows = self.problem, self._flows
        for task, placed in problem.placed.items():
            self.site[task] = placed.site
            self._post(max(self.now_s, placed.finish_s), _FINISH, task, 0)
        for task, count in enumerate(self._waits):
            if not count and task not in problem.placed:
                self._release(task)
        while True:
            at = self._events[0][0] if self._events else INF
            if flows is not None:
                at = min(at, flows.next_s())
            if at == INF:
                break
            self.now_s = at
            if flows is not None:
                for task, source, target in flows.advance(at):
                    self._post(at + self._latency[source][target], _LANDED, task, target)
            while self._events and self._events[0][0] <= at:
                _, kind, _, a, b = heapq.heappop(self._events)
                self._happen(kind, a, b)
            if self._rule is not None and (self._fresh or self._roused):
                self._decide(self._rule)
        makespan = max(self.finish_s, default=self.now_s)
        schedule = Schedule(self.site, self._slot, self.start_s, self.finish_s, self._order, makespan)
        return Played(schedule, self._moved)

    def _post(self, at: float, kind: int, a: int, b: int) -> None:
        self._made += 1
        heapq.heappush(self._events, (at, kind, self._made, a, b))

    def _happen(self, kind: int, a: int, b: int) -> None:
        if kind == _FINISH:
            self._finished(a)
        elif kind == _FREE and a < 0:
            self._open()
        elif kind == _FREE:
            del self._opens[a][b]
            self._vacant(a, b)
        elif kind == _RELEASE:
            self._release(a)
        elif kind == _ARRIVE:
            self._arrived(a, b)
        else:
            for site, worker in enumerate(self._worker):
                if worker == self._worker[b]:
                    self._landed[a, site] = self.now_s
            for task, move in self._awaited.pop((a, self._worker[b]), ()):
                self._arrived(task, move)

    def _decide(self, rule: Rule) -> None:
        fresh, self._fresh, self._roused = self._fresh, [], False
        self._deciding = True  # nothing begins between two placements of one decision
        for task, site in rule.place(fresh, self):
            self._place(task, site)
        self._deciding = False
        for site, idle in enumerate(self.idle):
            if idle and self.queued[site]:
                self._next(site)
            while idle and not self.queued[site]:
                task = rule.steal(site, self)
                if task < 0:
                    break
                self._place(task, site)

    # tasks

    def _release(self, task: int) -> None:
        """Its parents are finished."""
        at = self.problem.release_s[task] if self.problem.release_s else 0.0
        if at > self.now_s:
            self._post(at, _RELEASE, task, 0)
        elif self.site[task] >= 0:
            self._next(self.site[task])
        elif self._lanes is None:
            self._fresh.append(task)

    def _finished(self, task: int) -> None:
        site, problem = self.site[task], self.problem
        self.finish_s[task] = self.now_s
        past = task in problem.placed
        if not past:
            del self.running[site][task]
            self._expected[site] = []
        if self._rule is not None:
            self._rule.finished(task, self)
        for child, size in problem.children[task]:
            self._waits[child] -= 1
            if self.site[child] >= 0:
                self._carry(task, child, size)
            if not self._waits[child]:
                self._release(child)
        if not past:
            self._vacant(site, self._slot[task])

    def _place(self, task: int, site: int) -> None:
        problem, before = self.problem, self.site[task]
        if before >= 0:
            self.queued[before].remove(task)
            self._expected[before] = []
        if before != site and not self._waits[task]:
            self._arrives[task] = arrives = self.arrival_s(task, site)
            heap = self._expected[site] or self._expect(site)
            heapq.heapreplace(heap, max(heap[0], arrives, self.now_s) + problem.run(task, site))
        self.queued[site].append(task)
        if before == site:
            return
        self.site[task] = site
        self._moves[task] += 1
        self._missing[task] = len(problem.parents[task])
        if not self._missing[task]:
            self._next(site)
        for parent, size in problem.parents[task]:
            if self.finish_s[parent] < INF:
                self._carry(parent, task, size)

    def _arrived(self, task: int, move: int) -> None:
        """One more of its inputs is there."""
        if move == self._moves[task]:
            self._missing[task] -= 1
            if not self._missing[task]:
                self._next(self.site[task])

    def _carry(self, parent: int, task: int, size: float) -> None:
        """Bring an output to where the task is placed."""
        source, target, move = self.site[parent], self.site[task], self._moves[task]
        there = self.now_s if self._near[source][target] else self._landed.get((parent, target))
        if there is None and self._flows is None:
            self._moved += size
            there = self.now_s + self._latency[source][target] + size * self._pace[source][target]
            self._sent[parent, target] = max(there, self._sent.get((parent, target), 0.0))
        if there is None:
            self._send(parent, target, size).append((task, move))
        elif there > self.now_s:
            self._post(there, _ARRIVE, task, move)
        else:
            self._arrived(task, move)

    def _send(self, parent: int, target: int, size: float) -> list[tuple[int, int]]:
        """Begin a flow over shared links, once to a worker; who waits for it."""
        assert self._flows is not None
        key = parent, self._worker[target]
        waiting = self._awaited.get(key)
        if waiting is None:
            waiting = self._awaited[key] = []
            self._moved += size
            source = self.site[parent]
            lines = self._line[self._worker[source]], self._line[key[1]]
            self._flows.begin(*lines, size, (parent, source, target))
        return waiting

    # sites

    def _open(self) -> None:
        """All that is free from the first."""
        for site, opens in enumerate(self._opens):
            free = [slot for slot, at in opens.items() if at <= self.now_s]
            if free:
                self._opens[site] = {slot: at for slot, at in opens.items() if at > self.now_s}
                self.idle[site] += free
                self._roused = True
                self._next(site)

    def _vacant(self, site: int, slot: int) -> None:
        self.idle[site].append(slot)
        self._roused = True
        self._next(site)

    def _next(self, site: int) -> None:
        """Start what may start there: under a plan the next of each slot, else the first that is complete."""
        idle = self.idle[site]
        if not idle or self._deciding:
            return
        if self._lanes is not None:
            for slot in tuple(idle):
                lane = self._lanes[site][slot]
                if lane and not self._missing[lane[0]] and not self._waits[lane[0]] and self._due(lane[0]):
                    idle.remove(slot)
                    self._begin(lane.popleft(), site, slot)
            return
        queue = self.queued[site]
        while idle:
            complete = (task for task in queue if not self._missing[task] and self._due(task))
            task = next((task for task in complete if task == queue[0] or self._overtakes(task, queue[0])), -1)
            if task < 0:
                return
            queue.remove(task)
            self._begin(task, site, idle.pop())

    def _overtakes(self, task: int, first: int) -> bool:
        return self._rule is None or self._rule.overtakes(task, first, self)

    def _due(self, task: int) -> bool:
        return not self.problem.release_s or self.problem.release_s[task] <= self.now_s

    def _begin(self, task: int, site: int, slot: int) -> None:
        self._slot[task] = slot
        self.start_s[task] = self.now_s
        self.running[site][task] = None
        self._order.append(task)
        self._post(self.now_s + self._took(task, site), _FINISH, task, 0)

    def _expect(self, site: int) -> list[float]:
        """Play what is placed there by prediction."""
        problem, now = self.problem, self.now_s
        heap = [now] * len(self.idle[site])
        heap.extend(max(now, at) for at in self._opens[site].values())
        heap.extend(self.ends_s(task) for task in self.running[site])
        heapq.heapify(heap)
        for task in self.queued[site]:
            heapq.heapreplace(heap, max(heap[0], self._arrives[task]) + problem.run(task, site))
        self._expected[site] = heap
        return heap
