"""Two ways through a run that is over: the longest through its graph, and the one that decided when it ended.

Invariant: pure. On the deciding way each instant from submission to end is counted once, as one part; what can't be
shown to be anything else is the engine's. It must not know what is made of the parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from .chronicle import Attempt, Chronicle

PARTS: Final = ("work_s", "bring_s", "link_s", "planner_s", "person_s", "again_s", "engine_s")
_STEPS: Final = 100_000
"""More than a run of the suite has attempts: the way back ends, whatever the events say."""
_NEAR_S: Final = 0.001
"""What is dispatched this soon after it could be did not wait for a place."""


class Longest:
    """The longest way through the graph, each task as long as its last attempt and the links to it are."""

    def __init__(self, story: Chronicle) -> None:
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


class Way:
    """From the end of the run back to its beginning: at each point, what this had been waiting for last."""

    def __init__(self, story: Chronicle) -> None:
        self._story = story
        self._parts = dict.fromkeys(PARTS, 0.0)
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

    def _back(self, one: Attempt, now: float) -> tuple[float, Attempt | None]:
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

    def _before(self, one: Attempt, now: float) -> tuple[float, Attempt | None]:
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
        name = story.plain(one.task)
        last = self._last(self._beside(name), one.at)
        if last is not None and last.ended > ready:  # what a running task had planned: its edges are in nobody's graph
            ready, cause, again = last.ended, last, False
        written, number = story.written.get(name, (story.zero, 0))
        call = story.calls.get(number)
        asker = story.parent(one.task) if story.spawned(one.task) else story.proposed.get(name, call.by if call else "")
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

    def _place(self, one: Attempt, ready: float) -> Attempt | None:
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

    def _gap(self, one: Attempt, ready: float, now: float, written: float, again: bool) -> None:
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
        call = self._story.calls.get(self._story.written.get(self._story.plain(one.task), (0.0, 0))[1])
        if call is not None and ready < call.opened < now and call.opened in self._story.refused:
            self._idle(call.opened, now)  # planned anew because somebody refused
            now = self._take("person_s", call.opened, max(ready, self._story.refused[call.opened]))
        self._idle(ready, now)

    def _idle(self, since: float, until: float) -> None:
        """Nothing of the run could go on: until a deadline passed, a machine that is away was waited for."""
        expired = max((at for at in self._story.expired if since < at <= until), default=since)
        self._unplanned("engine_s", expired, until)
        self._unplanned("again_s", since, expired)

    def _unplanned(self, part: str, since: float, until: float) -> None:
        """A planner's share where one was writing, of this part where none was."""
        now = until
        for call in sorted(self._story.calls.values(), key=lambda call: -call.closed):
            if call.opened < now and call.closed > since:
                now = self._take(part, now, min(now, call.closed))
                now = self._take("planner_s", now, max(since, call.opened))
        self._take(part, now, since)

    def _take(self, part: str, now: float, until: float) -> float:
        self._parts[part] += max(0.0, now - until)
        return min(now, until)

    def _beside(self, name: str) -> Iterator[Attempt]:
        """What the task that has spawned or planned this one has spawned or planned besides."""
        owner = self._story.parent(name)
        for other in self._story.attempts if owner else ():
            if other.task.startswith(f"{owner}.") and not f"{other.task}.".startswith(f"{name}."):
                yield other

    def _last(self, attempts: Iterable[Attempt], until: float, after: float = -1.0) -> Attempt | None:
        """The one that ended last, and by then."""
        ended = [one for one in attempts if after < one.ended <= until and one.ended]
        return max(ended, key=lambda one: (one.ended, one.won), default=None)
