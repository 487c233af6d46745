"""The events of one run, by what they are about: attempts, maps, planner calls, questions, and what each task needed.

Invariant: pure; every time is the server's. It must not know what is asked of it.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, Literal

import msgspec

End = Literal["succeeded", "failed", "stopped", "lost", "running"]
_EACH: Final = re.compile(r"([a-z][a-z0-9_-]*)\[\]")


class Attempt(msgspec.Struct, eq=False):
    """All times are the server's."""

    task: str
    number: int
    worker: str
    skill: str
    at: float
    latency: float
    hedge: bool = False
    ended: float = 0.0
    end: End = "running"
    won: bool = False
    run_s: float = 0.0
    bring_s: float = 0.0
    bytes_in: int = 0
    waits: list[list[Any]] = []
    """[from, until, for what] while it gave its place away."""

    @property
    def start(self) -> float:
        """When user code began: its end was told one latency later."""
        return max(self.at, self.ended - self.latency - self.run_s) if self.run_s else self.at

    @property
    def weight_s(self) -> float:
        """Its own part of a way through the graph, without what it waited for."""
        waited = math.fsum(max(0.0, until - since) for since, until, _ in self.waits)
        return max(0.0, self.run_s - waited) + self.bring_s + 2 * self.latency


class Call(msgspec.Struct):
    """A planner's; `by`: the running task that asked for it."""

    opened: float
    closed: float
    by: str = ""
    first: bool = True


class Chronicle:
    """The events of a run, by what they are about."""

    def __init__(
        self,
        rows: Iterable[Mapping[str, Any]],
        graph: Mapping[str, Any],
        latencies: Mapping[str, float],
        slots: Mapping[str, int],
    ) -> None:
        self.slots = slots
        self.attempts: list[Attempt] = []
        self.settled: dict[str, float] = {}
        self.expired: list[float] = []
        """When tasks failed that no machine had taken by then: they waited for one that is away."""
        self.written: dict[str, tuple[float, int]] = {}
        """When a task became part of the graph, and by which planner's call."""
        self.proposed: dict[str, str] = {}
        """By which running task, where it was no planner's."""
        self.calls: dict[int, Call] = {}
        self.asked: dict[str, list[float]] = {}
        self.refused: dict[float, float] = {}
        """When a person was asked, by the moment at which they refused."""
        self.maps: dict[str, tuple[int, int]] = {}
        """Of a map its items and how many a child takes."""
        self.zero = self.end = 0.0
        found: dict[tuple[str, int], Attempt] = {}
        settled = False
        for row in rows:
            self._note(row, found, latencies)
            settled = settled or row["kind"] == "run_settled"
            self.end = self.end if settled and row["kind"] != "run_settled" else row["at"]
        for one in self.calls.values():
            one.closed = one.closed or self.end
        self.upstreams: dict[str, set[str]] = defaultdict(set)
        for source, target, _ in graph.get("edges", ()):
            self.upstreams[target].add(source)
        self.chained = {
            task["id"]: set(_EACH.findall(_text(task))).difference(task.get("after", ()))
            for task in graph.get("tasks", ())
        }
        """Of a map the maps whose elements it takes one by one, unless it waits for all of such a map besides."""
        self.limits = {task["id"]: (task.get("map") or {}).get("limit", 0) for task in graph.get("tasks", ())}
        self.of: dict[str, list[Attempt]] = defaultdict(list)
        for attempt in self.attempts:
            self.of[attempt.task].append(attempt)
        self.below: dict[str, set[str]] = defaultdict(set)
        """The tasks that a running one has spawned."""
        for name in self.of:
            if self.spawned(name):
                self.below[self.parent(name)].add(name)

    def _note(
        self, row: Mapping[str, Any], found: dict[tuple[str, int], Attempt], latencies: Mapping[str, float]
    ) -> None:
        kind, at, task = row["kind"], float(row["at"]), str(row.get("task", ""))
        attempt = found.get((task, row.get("attempt", 0)))
        match kind:
            case "run_submitted":
                self.zero = at
            case "patch_accepted":
                by, number = str(row.get("author", "")).partition(":")[2], int(row.get("call") or 0)
                for name in [f"{by}.{row['key']}"] if by and row.get("key") else row.get("ids", ()):
                    self.written.setdefault(name, (at, number))
                    if by and not number and str(row["author"]).startswith("task:"):
                        self.proposed.setdefault(name, by)
            case "planner_call_opened":
                by = "" if row.get("purpose") in ("plan", "replan", "review") else task
                self.calls[row["call"]] = Call(at, 0.0, by, row.get("purpose") == "plan")
            case "planner_call_closed" | "planner_call_lost" if row.get("call") in self.calls:
                self.calls[row["call"]].closed = at
            case "plan_closed":
                for call in self.calls.values():
                    call.closed = call.closed or (at if call.first else 0.0)
            case "map_expanded":
                self.maps[task] = (int(row["items"]), max(1, int(row.get("chunk") or 1)))
            case "approval_asked":
                self.asked[task] = [at, 0.0]
            case "approval_given" | "approval_refused" if task in self.asked:
                self.asked[task][1] = at
                if kind == "approval_refused":
                    self.refused[at] = self.asked[task][0]
            case "attempt_dispatched":
                worker = str(row["worker"])
                new = Attempt(task, row["attempt"], worker, str(row.get("skill", "")), at, latencies.get(worker, 0.0))
                new.hedge = bool(row.get("hedge"))
                found[(task, row["attempt"])] = new
                self.attempts.append(new)
            case "attempt_ended" if attempt is not None:
                usage = row.get("usage") or {}
                attempt.ended, attempt.end = at, "lost" if row.get("lost") else row.get("outcome", "failed")
                attempt.run_s, attempt.bring_s = float(usage.get("run_s", 0)), float(usage.get("bring_s", 0))
                attempt.bytes_in = int(usage.get("bytes_in", 0))
            case "task_waited" if attempt is not None:
                attempt.waits = [*attempt.waits, [at, 0.0, row.get("what", "")]]
            case "task_resumed" if attempt is not None and attempt.waits:
                attempt.waits[-1][1] = at
            case "task_settled":
                self.settled[task] = at
                if row.get("code") == "TimedOut" and not any(one.task == task for one in self.attempts):
                    self.expired.append(at)
                winner = found.get((task, row.get("winner", 0)))
                if winner is not None:
                    winner.won = True
            case _:
                pass

    def at_once(self, moment: float, which: Callable[[Attempt], bool]) -> int:
        """How many of them were out just before this moment."""
        return sum(one.at < moment <= (one.ended or self.end) and which(one) for one in self.attempts)

    def single(self, one: Attempt) -> bool:
        """Of this skill, there, no two ever ran side by side."""
        alike = [other for other in self.attempts if (other.skill, other.worker) == (one.skill, one.worker)]
        alike.sort(key=lambda other: other.start)
        return all(first.ended - first.latency <= then.start for first, then in pairwise(alike))

    def parent(self, task: str) -> str:
        return task.rpartition(".")[0]

    def spawned(self, task: str) -> bool:
        parent = self.parent(task)
        return bool(parent) and parent not in self.maps

    def plain(self, task: str) -> str:
        """Its name in the graph, without its place in a map."""
        while self.parent(task) in self.maps:
            task = self.parent(task)
        return task

    def needed(self, task: str) -> Iterator[str]:
        """What this task could not start without, by name; of a map that feeds it one by one, those elements only."""
        parent = self.parent(task)
        if self.spawned(task):
            return
        written = parent or task
        for source in self.upstreams.get(written, ()):
            if parent and source in self.maps and source in self.chained.get(written, ()):
                yield from (f"{source}.{k}" for k in self._elements(task, source))
            else:
                yield source

    def _elements(self, child: str, source: str) -> Sequence[int]:
        k, chunk = int(child.rpartition(".")[2]), self.maps[self.parent(child)][1]
        items, theirs = self.maps[source]
        return range(k * chunk // theirs, max(k * chunk, min(items, (k + 1) * chunk) - 1) // theirs + 1)

    def attempts_of(self, task: str) -> Iterator[Attempt]:
        """Its own and, of a map, those of its children."""
        yield from self.of.get(task, ())
        if task in self.maps:
            items, chunk = self.maps[task]
            for k in range(-(-items // chunk)):
                yield from self.of.get(f"{task}.{k}", ())


def _text(task: Mapping[str, Any]) -> str:
    return msgspec.json.encode(task.get("args", {})).decode()
