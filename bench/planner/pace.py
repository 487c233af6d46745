"""How fast a plan becomes work, on real processes: streamed against waiting, brace to dispatch, makespans against gold.

The model is the scripted server at a fixed pace; all else is real. It must not know how numbers are shown.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

import anyio
import msgspec

from protocol.errors import RunFailed

from ..metric import Spread, spread
from .asynchow import Case, bound_s, document
from .makespan import Makespan, Ratio, makespan, ratio
from .sample import Document
from .shape import TASKS, shaped
from .shape import bound_s as shape_bound_s
from .stage import Stage
from .timeline import Timeline

SLACK_S: Final = 0.002
AT_ONCE: Final = 4
"""Plans of AsyncHow that are played beside each other: mostly they wait."""


class Speedup(msgspec.Struct, frozen=True):
    """One shape of 16 tasks whose tools take as long as its writing. `ideal`: the speedup if all else took no time.

    `overlap`: the share of the time in which the model wrote that some task ran.
    """

    shape: str
    task_s: float
    streamed_s: Spread
    whole_s: Spread
    speedup: Spread
    ideal: float
    overlap: Spread
    first_dispatch_s: Spread


class Lag(msgspec.Struct, frozen=True):
    """From the moment the server wrote the token with a task's closing brace to the task's dispatch.

    `mean_s`: of the means of the runs. `allowed_s`: one token and 2 ms.
    """

    tasks: int
    mean_s: Spread
    max_s: float
    allowed_s: float


class Pace(msgspec.Struct, frozen=True):
    """AsyncHow on real processes: a plan takes about `plan_s` seconds."""

    plan_s: float
    at_once: int
    streamed: Makespan
    whole: Makespan


async def speedup(stage: Stage, shape: str, times: int, token_s: float) -> Speedup:
    """Streamed and whole are played at the same time: both mostly wait. Raises: RunFailed."""
    plan, task_s = shaped(shape, token_s)
    pairs = [await _both(stage, plan, token_s) for _ in range(times)]
    took = [(_span(streamed), _span(whole)) for streamed, whole in pairs]
    bounds = [shape_bound_s(shape, task_s, token_s, streamed=streamed) for streamed in (True, False)]
    return Speedup(
        shape=shape,
        task_s=task_s,
        streamed_s=spread(streamed for streamed, _ in took),
        whole_s=spread(whole for _, whole in took),
        speedup=spread(whole / streamed for streamed, whole in took),
        ideal=round(bounds[1] / bounds[0], 3),
        overlap=spread(one.busy_s() / one.planning_s for one, _ in pairs),
        first_dispatch_s=spread(one.first_s or 0.0 for one, _ in pairs),
    )


async def lag(stage: Stage, times: int, token_s: float) -> Lag:
    """Tasks that need nothing, so that each may be dispatched the moment it is known. Raises: RunFailed."""
    rows = [{"id": f"step-{at}", "skill": "flow.echo", "args": {"value": at}} for at in range(TASKS)]
    means, most = [], 0.0
    for _ in range(times):
        one = await stage.play({"tasks": rows, "outputs": []}, token_s, streamed=True)
        late = [one.dispatched[name] - at for name, at in one.written.items()]
        means.append(statistics.fmean(late))
        most = max(most, *late)
    return Lag(TASKS, spread(means), round(most, 6), token_s + SLACK_S)


async def asynchow(stage: Stage, cases: Sequence[Case], plan_s: float, token_s: float) -> Pace:
    """Each case streamed and whole, scaled so that its longest way takes `plan_s`."""
    found: dict[bool, list[Ratio]] = {True: [], False: []}
    failed: dict[bool, list[str]] = {True: [], False: []}
    room = anyio.Semaphore(AT_ONCE)

    async def play(case: Case, streamed: bool) -> None:
        scale = plan_s / bound_s(case)
        async with room:
            try:
                played = (await stage.play(document(case, scale), token_s, streamed=streamed)).played()
            except RunFailed as error:
                failed[streamed].append(f"{case.id}: {error.message}")
            else:
                found[streamed].append(ratio(case, scale, played, streamed=streamed))

    async with anyio.create_task_group() as group:
        for case in cases:
            for streamed in (True, False):
                group.start_soon(play, case, streamed)
    return Pace(plan_s, AT_ONCE, *(makespan(found[way], failed[way]) for way in (True, False)))


async def _both(stage: Stage, plan: Document, token_s: float) -> tuple[Timeline, Timeline]:
    found: dict[bool, Timeline] = {}

    async def play(streamed: bool) -> None:
        found[streamed] = await stage.play(plan, token_s, streamed=streamed)

    async with anyio.create_task_group() as group:
        group.start_soon(play, True)
        group.start_soon(play, False)
    return found[True], found[False]


def _span(one: Timeline) -> float:
    return one.settled - one.submitted
