"""Examples for planners, read from the runs themselves: requests whose first plan succeeded as it was.

Nothing is stored beside the events, so an example is as durable as its run, and goes with it: `rm`, retention and a
copy of the journal all hold. Invariant: it holds what a person asked and the plan of that moment, never a value of a
run or an input; what looks like a credential keeps its pair out. Bounded in runs looked at, pairs, bytes and time;
looking takes the loop a moment, reading and choosing happen in a thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Final

import anyio
import msgspec

from planner.example import Example, choose, example_of, key_of, tells_secret
from planner.view import PlanView
from protocol.patch import Patch
from protocol.task import Plan

from ..computation import computed
from ..core.graph import Run
from ..core.lifecycle import Closed
from ..core.state import State

PATIENCE_S: Final = 0.5
"""A planner starts without examples rather than later."""
LOOK_RUNS: Final = 5_000
MOST_PAIRS: Final = 500
MOST_TASKS: Final = 40
MOST_BYTES: Final = 16 * 1024
"""Of one pair; a longer plan would not leave room for the request."""


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A run that may be an example, in frozen parts: what a thread may read while the loop turns."""

    run: int
    request: str
    patches: tuple[Patch, ...]


class ExampleDesk:
    """One per engine. `most` examples are offered at most, 0 turns it off."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._judged: dict[int, Example | None] = {}

    async def offer(self, view: PlanView, state: State) -> PlanView:
        """The view with the examples that its request needs; unchanged for a re-plan, or when it takes too long."""
        if not self._most or view.digest is not None:
            return view
        with anyio.move_on_after(PATIENCE_S):
            candidates = list(self._candidates(state))
            work = partial(_choose, view, candidates, self._judged, self._most)
            chosen = await computed(work, abandon_on_cancel=True)
            return msgspec.structs.replace(view, examples=chosen)
        return view

    def _candidates(self, state: State) -> Iterator[Candidate]:
        """The newest runs that may serve, the newest first."""
        kept: dict[int, Example | None] = {}
        found = 0
        for number in islice(reversed(state.runs), LOOK_RUNS):
            run = state.runs[number]
            if number in self._judged:
                kept[number] = self._judged[number]
                fits = kept[number] is not None
                patches: tuple[Patch, ...] = ()
            else:
                fits = _served(run)
                patches = _first_plan(run) if fits else ()
            if fits:
                found += 1
                yield Candidate(number, run.request, patches)
            if found >= MOST_PAIRS:
                break
        self._judged = kept


def _choose(
    view: PlanView, candidates: list[Candidate], judged: dict[int, Example | None], most: int
) -> tuple[Example, ...]:
    """In a thread. Of equal requests the newest counts; what a run came to is kept in `judged`."""
    skills = {spec.name for spec in view.skills}
    pool: dict[str, Example] = {}
    for one in candidates:
        if one.run not in judged:
            judged[one.run] = _example(one)
        example = judged[one.run]
        if example is not None:
            pool.setdefault(key_of(example.request), example)
    return choose(view.request, list(pool.values()), skills=skills, most=most)


def _served(run: Run) -> bool:
    """Whether the first plan alone made the run succeed. Costs no more than the plan is long, if it is short."""
    if not run.request.strip() or type(run.state) is not Closed or run.state.state != "succeeded":
        return False
    if run.fork_of or run.rounds or not run.versions:
        return False
    if any(not patch.parent for version in run.versions[1:] for patch in version.patches):
        return False
    ids = [task.id for patch in _first_plan(run) for task in patch.tasks]
    tasks = [run.tasks[run.names[name]] for name in ids] if len(ids) <= MOST_TASKS else []
    return bool(tasks) and all(task.state_is("succeeded") or task.state_is("skipped") for task in tasks)


def _first_plan(run: Run) -> tuple[Patch, ...]:
    """Its parts, without what running tasks added beneath themselves."""
    return tuple(patch for patch in run.versions[0].patches if not patch.parent)


def _example(candidate: Candidate) -> Example | None:
    tasks = {task.id: task for patch in candidate.patches for task in patch.tasks}
    outputs = next((patch.outputs for patch in reversed(candidate.patches) if patch.outputs), ())
    example = example_of(candidate.request, Plan(tuple(tasks.values()), outputs=outputs), run=candidate.run)
    if example is None or len(example.request) + len(example.plan) > MOST_BYTES:
        return None
    return None if tells_secret(example.request) or tells_secret(example.plan) else example
