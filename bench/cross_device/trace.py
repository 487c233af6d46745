"""What the time of one run went by, read from its events: every attempt as a span, the longest way through the graph,
and the way that really decided when the run ended, instant by instant.

Invariant: pure, and the parts of `Shares` add up to the run's own time: each instant of the deciding way is counted
once. It must not know how a case is played, nor what is made of the numbers.
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
_STEPS: Final = 100_000
"""More than a run of the suite has attempts: the way back ends, whatever the events say."""
_NEAR_S: Final = 0.001
"""What is dispatched this soon after it could be did not wait for a place."""


class Span(msgspec.Struct, frozen=True):
    """One attempt on its machine, in seconds since the run was submitted. `bring_s` before `start_s` it waited for
    `bytes_in` to be fetched. `won`: its outcome is that of the task."""

    task: str
    worker: str
    start_s: float
    end_s: float
    end: End = "succeeded"
    won: bool = True
    hedge: bool = False
    bring_s: float = 0.0
    bytes_in: int = 0


class Shares(msgspec.Struct, frozen=True):
    """What the deciding way through a run consists of. Together they are its time from submission to end.

    `work_s`: user code ran. `bring_s`: inputs were fetched. `link_s`: words were under way on links that are that slow.
    `planner_s`: nothing could go on before a planner had written. `person_s`: a person was asked. `again_s`: attempts
    that did not count, and what was waited before the next. `engine_s`: all the rest, and it is ours.
    """

    work_s: float = 0.0
    bring_s: float = 0.0
    link_s: float = 0.0
    planner_s: float = 0.0
    person_s: float = 0.0
    again_s: float = 0.0
    engine_s: float = 0.0

    @property
    def total_s(self) -> float:
        return math.fsum(msgspec.structs.astuple(self))


class Trace(msgspec.Struct, frozen=True):
    """`critical_path_s`: the longest way through the graph if every attempt took what it took and none ever waited.

    `way`: the tasks that decided when the run ended, in order.
    """

    spans: tuple[Span, ...] = ()
    critical_path_s: float = 0.0
    shares: Shares = Shares()
    way: tuple[str, ...] = ()
    bytes_moved: int = 0


def trace(
    rows: Iterable[Mapping[str, Any]],
    graph: Mapping[str, Any],
    latencies: Mapping[str, float],
    slots: Mapping[str, int] | None = None,
) -> Trace:
    """`rows` are all events of a run, `graph` is what `asterism graph -o json` says at its end; `latencies` are seconds
    one way to a machine, where its link is shaped or simulated; `slots` how many attempts it takes at once."""
    story = _Story(rows, graph, latencies, slots or {})
    parts, way = _Way(story).walked()
    return Trace(
        tuple(one.span(story.zero) for one in story.attempts),
        round(_Longest(story).seconds, 6),
        Shares(**{name: round(seconds, 6) for name, seconds in parts.items()}),
        way,
        sum(one.bytes_in for one in story.attempts),
    )


class _Attempt(msgspec.Struct, eq=False):
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

    def span(self, zero: float) -> Span:
        end = max(self.start, self.ended - self.latency) if self.ended else self.start
        return Span(
            self.task, self.worker, round(self.start - zero, 6), round(end - zero, 6), self.end, self.won, self.hedge,
            round(self.bring_s, 6), self.bytes_in,
        )  # fmt: skip


class _Call(msgspec.Struct):
    """A planner's; `by`: the running task that asked for it."""

    opened: float
    closed: float
    by: str = ""
    first: bool = True


class _Story:
    """The events of a run, by what they are about."""

    def __init__(
        self,
        rows: Iterable[Mapping[str, Any]],
        graph: Mapping[str, Any],
        latencies: Mapping[str, float],
        slots: Mapping[str, int],
    ) -> None:
        self.slots = slots
        self.attempts: list[_Attempt] = []
        self.settled: dict[str, float] = {}
        self.written: dict[str, tuple[float, int]] = {}
        """When a task became part of the graph, and by which planner's call."""
        self.calls: dict[int, _Call] = {}
        self.asked: dict[str, list[float]] = {}
        self.maps: dict[str, tuple[int, int]] = {}
        """Of a map its items and how many a child takes."""
        self.zero = self.end = 0.0
        found: dict[tuple[str, int], _Attempt] = {}
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
        self.chained = {task["id"]: set(_EACH.findall(_text(task))) for task in graph.get("tasks", ())}
        self.limits = {task["id"]: (task.get("map") or {}).get("limit", 0) for task in graph.get("tasks", ())}
        self.of: dict[str, list[_Attempt]] = defaultdict(list)
        for attempt in self.attempts:
            self.of[attempt.task].append(attempt)
        self.below: dict[str, set[str]] = defaultdict(set)
        """The tasks that a running one has spawned."""
        for name in self.of:
            if self.spawned(name):
                self.below[self.parent(name)].add(name)

    def _note(
        self, row: Mapping[str, Any], found: dict[tuple[str, int], _Attempt], latencies: Mapping[str, float]
    ) -> None:
        kind, at, task = row["kind"], float(row["at"]), str(row.get("task", ""))
        attempt = found.get((task, row.get("attempt", 0)))
        match kind:
            case "run_submitted":
                self.zero = at
            case "patch_accepted":
                prefix = str(row.get("author", "")).partition(":")[2] if row.get("key") else ""
                names = [f"{prefix}.{row['key']}"] if prefix else row.get("ids", ())
                for name in names:
                    self.written.setdefault(name, (at, int(row.get("call") or 0)))
            case "planner_call_opened":
                by = "" if row.get("purpose") in ("plan", "replan", "review") else task
                self.calls[row["call"]] = _Call(at, 0.0, by, row.get("purpose") == "plan")
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
            case "attempt_dispatched":
                worker = str(row["worker"])
                new = _Attempt(task, row["attempt"], worker, str(row.get("skill", "")), at, latencies.get(worker, 0.0))
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
                winner = found.get((task, row.get("winner", 0)))
                if winner is not None:
                    winner.won = True
            case _:
                pass

    def at_once(self, moment: float, which: Callable[[_Attempt], bool]) -> int:
        """How many of them were out just before this moment."""
        return sum(one.at < moment <= (one.ended or self.end) and which(one) for one in self.attempts)

    def single(self, one: _Attempt) -> bool:
        """Of this skill, there, no two ever ran side by side."""
        alike = [other for other in self.attempts if (other.skill, other.worker) == (one.skill, one.worker)]
        alike.sort(key=lambda other: other.start)
        return all(first.ended - first.latency <= then.start for first, then in pairwise(alike))

    def parent(self, task: str) -> str:
        return task.rpartition(".")[0]

    def spawned(self, task: str) -> bool:
        parent = self.parent(task)
        return bool(parent) and parent not in self.maps

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

    def attempts_of(self, task: str) -> Iterator[_Attempt]:
        """Its own and, of a map, those of its children."""
        yield from self.of.get(task, ())
        if task in self.maps:
            items, chunk = self.maps[task]
            for k in range(-(-items // chunk)):
                yield from self.of.get(f"{task}.{k}", ())


class _Longest:
    """The longest way through the graph, each task as long as its last attempt and the links to it are."""

    def __init__(self, story: _Story) -> None:
        self._story = story
        self._known: dict[str, float] = {}
        names = {*story.of, *story.settled}
        self.seconds = max((self._end(name, ()) for name in names), default=0.0)

    def _end(self, task: str, above: tuple[str, ...]) -> float:
        if task in above:
            return 0.0
        if task not in self._known:
            story, above = self._story, (*above, task)
            before = max((self._end(name, above) for name in story.needed(task)), default=0.0)
            own = [one for one in story.of.get(task, ()) if one.won] or story.of.get(task, ())[-1:]
            below = max((self._end(name, above) for name in story.below.get(task, ())), default=0.0)
            end = before + (own[0].weight_s if own else 0.0) + below
            if task in story.maps:
                items, chunk = story.maps[task]
                end = max((self._end(f"{task}.{k}", above) for k in range(-(-items // chunk))), default=before)
            self._known[task] = end
        return self._known[task]


class _Way:
    """From the end of the run back to its beginning: at each point, what this had been waiting for last."""

    def __init__(self, story: _Story) -> None:
        self._story = story
        self._parts = dict.fromkeys(Shares.__struct_fields__, 0.0)
        self._way: list[str] = []

    def walked(self) -> tuple[dict[str, float], tuple[str, ...]]:
        story = self._story
        now, attempt = story.end, self._last(story.attempts, story.end)
        if attempt is None:
            self._idle(story.zero, now)
        else:
            self._idle(attempt.ended, now)
            now = attempt.ended
        for _ in range(_STEPS):
            if attempt is None:
                break
            self._way.append(attempt.task)
            now, attempt = self._back(attempt, now)
        return self._parts, tuple(dict.fromkeys(reversed(self._way)))

    def _back(self, one: _Attempt, now: float) -> tuple[float, _Attempt | None]:
        """From a moment in an attempt, or its end, to what it had waited for."""
        if now == one.ended:
            now = self._take("link_s", now, max(one.start, now - one.latency))
        kind = "work_s" if one.end == "succeeded" or one.run_s else "again_s"
        for since, until, what in reversed(one.waits):
            if since >= now:
                continue
            until = until or now
            now = self._take(kind, now, min(now, max(until, one.start)))
            inside = f"{one.task}." if what == "join" else ""
            others = [other for other in self._story.attempts if other is not one and other.task.startswith(inside)]
            helper = self._last(others, now, since)
            if what != "ask" and helper is not None:
                self._idle(helper.ended, now)
                return helper.ended, helper
            now = self._take({"ask": "person_s", "join": "engine_s"}.get(what, "planner_s"), now, since)
        now = self._take(kind, now, min(now, one.start))
        return self._before(one, now)

    def _before(self, one: _Attempt, now: float) -> tuple[float, _Attempt | None]:
        """What the start of this attempt had waited for; the time between is told apart."""
        story = self._story
        ready, cause = story.zero, None
        again = False
        for other in story.of[one.task]:
            if other is not one and not one.hedge and ready < other.ended <= now:
                ready, cause, again = other.ended, other, True
        for name in self._sources(one.task):
            last = self._last(story.attempts_of(name), now)
            if last is not None and last.ended > ready:
                ready, cause, again = last.ended, last, False
        written, number = story.written.get(self._root(one.task), (story.zero, 0))
        call = story.calls.get(number)
        asker = story.parent(one.task) if story.spawned(one.task) else call.by if call is not None else ""
        asked_at = written if story.spawned(one.task) else call.opened if call is not None else written
        parent = next((other for other in reversed(story.of.get(asker, ())) if other.at <= asked_at), None)
        if parent is not None and asked_at > ready:
            ready, cause, again = asked_at, parent, False
        elif call is not None and not call.first and call.opened > ready:
            last = self._last(story.attempts, call.opened)
            ready, cause, again = (last.ended, last, False) if last is not None else (story.zero, None, False)
        place = self._place(one, ready)
        if place is not None:
            ready, cause, again = place.ended, place, False
        self._gap(one, ready, now, written if call is not None else ready, again)
        return ready, cause

    def _sources(self, task: str) -> Iterator[str]:
        """What it needed; through those that never ran, what they needed."""
        seen, stack = set[str](), [*self._story.needed(task)]
        while stack:
            name = stack.pop()
            if name not in seen:
                seen.add(name)
                yield name
                if next(self._story.attempts_of(name), None) is None:
                    stack += self._story.needed(name)

    def _place(self, one: _Attempt, ready: float) -> _Attempt | None:
        """Whose end made room for this one: among the children of a map as many as may run at once, on a machine whose
        slots were all taken, or at a device that took one attempt of this skill at a time."""
        if one.start - one.latency - one.bring_s - ready < _NEAR_S:
            return None
        story, parent = self._story, self._story.parent(one.task)
        limit, slots = story.limits.get(parent, 0), story.slots.get(one.worker, 0)
        earlier = [other for other in story.attempts if other is not one and ready < other.ended <= one.start]
        for other in sorted(earlier, key=lambda other: -other.ended):
            if limit and story.parent(other.task) == parent:
                if story.at_once(other.ended, lambda at: story.parent(at.task) == parent) >= limit:
                    return other
            elif other.worker == one.worker:
                taken = story.at_once(other.ended, lambda at: at.worker == one.worker)
                if (slots and taken >= slots) or (other.skill == one.skill and story.single(one)):
                    return other
        return None

    def _gap(self, one: _Attempt, ready: float, now: float, written: float, again: bool) -> None:
        """Between what it had waited for and its start: fetched, told, asked, planned; the rest is ours."""
        if again:
            self._take("again_s", now, ready)
            return
        now = self._take("bring_s", now, max(ready, now - one.bring_s))
        now = self._take("link_s", now, max(ready, now - one.latency))
        asked, given = self._story.asked.get(one.task, (0.0, 0.0))
        if asked and ready < given <= now:
            now = self._take("engine_s", now, given)
            now = self._take("person_s", now, max(ready, asked))
        if ready < written <= now:
            now = self._take("engine_s", now, written)
        self._idle(ready, now)

    def _idle(self, since: float, until: float) -> None:
        """Nothing of the run could go on: a planner's share where one was writing, ours where none was."""
        now = until
        for call in sorted(self._story.calls.values(), key=lambda call: -call.closed):
            if call.opened < now and call.closed > since:
                now = self._take("engine_s", now, min(now, call.closed))
                now = self._take("planner_s", now, max(since, call.opened))
        self._take("engine_s", now, since)

    def _take(self, part: str, now: float, until: float) -> float:
        self._parts[part] += max(0.0, now - until)
        return min(now, until)

    def _root(self, task: str) -> str:
        return task if self._story.spawned(task) else task.partition(".")[0]

    def _last(self, attempts: Iterable[_Attempt], until: float, after: float = -1.0) -> _Attempt | None:
        """The one that ended last, and by then."""
        ended = [one for one in attempts if after < one.ended <= until and one.ended]
        return max(ended, key=lambda one: (one.ended, one.won), default=None)


def _text(task: Mapping[str, Any]) -> str:
    return msgspec.json.encode(task.get("args", {})).decode()
