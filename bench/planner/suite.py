"""`asterism bench planner`: everything that is promised of planners, measured; no model is needed but for --live.

Real processes and real HTTP for pace and faults; pure calls for decoding, harm and the catalog; a virtual clock for all
plans of AsyncHow. Invariant: what was started is gone when it ends. It must not know how its numbers are shown.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import msgspec

from orchestrator.runtime import alone

from .abstention import abstention
from .answer import HEADLINE, Answer, Virtual
from .asynchow import Case, bound_s, document, read_cases
from .damage import KINDS, damaged, truncations
from .decoding import SIZES, decoding
from .makespan import Makespan, makespan, ratio
from .matrix import PROFILES, matrix
from .outside import OUTSIDE
from .pace import Pace, asynchow, lag, speedup
from .pattern import PATTERNS
from .reading import Reader, Reading
from .shape import SHAPES
from .simulated_model import TOKEN_S, SimulatedModel
from .stage import Stage

Say = Callable[[str], None]
PLAN_S: Final = 1.0
"""What the longest way through a plan of AsyncHow lasts."""


class Sizes(msgspec.Struct, frozen=True):
    """How much. `plans`: of AsyncHow on real processes; `virtual`: on the virtual clock, 0 is all."""

    runs: int = 5
    shapes: tuple[str, ...] = tuple(SHAPES)
    plans: int = 60
    virtual: int = 0
    seeds: int = 40
    cuts: int = 5
    each: bool = True
    token_s: float = TOKEN_S


QUICK: Final = Sizes(runs=3, shapes=(HEADLINE,), plans=12, virtual=200, seeds=5, cuts=1, each=False)


async def planner(sizes: Sizes, data: Path | None, say: Say) -> Answer:
    """Measure all of it. `data`: where AsyncHow's plans are, else none of them is played.

    Raises: UsageError for a file that is none; RunFailed if a plan that pace is measured with did not succeed.
    """
    began = time.monotonic()
    cases = read_cases(data) if data is not None else []
    say(f"decoding {' and '.join(map(str, SIZES))} tasks")
    decoded = tuple(map(decoding, SIZES))
    say(f"{len(KINDS)} kinds of harm, {sizes.seeds} times each")
    read = _reading(sizes)
    say("the catalog planner")
    abstained = await anyio.to_thread.run_sync(abstention, OUTSIDE, PATTERNS)
    say("every fault of a model's server")
    faults = await matrix(PROFILES, each=sizes.each)
    virtual = await anyio.to_thread.run_sync(_virtual, cases, sizes, say) if cases else None
    try:
        async with Stage() as stage:
            say("brace to dispatch")
            late = await lag(stage, sizes.runs, sizes.token_s)
            say(f"streamed against whole: {', '.join(sizes.shapes)}")
            shapes = tuple([await speedup(stage, shape, sizes.runs, sizes.token_s) for shape in sizes.shapes])
            pace = await _pace(stage, cases, sizes, say) if cases else None
    except BaseExceptionGroup as error:
        raise alone(error) from None
    return Answer(
        speedups=shapes,
        lag=late,
        decoding=decoded,
        reading=read,
        matrix=faults,
        abstention=abstained,
        asynchow=pace,
        asynchow_virtual=virtual,
        cores=os.cpu_count() or 1,
        seconds=round(time.monotonic() - began, 1),
    )


def _reading(sizes: Sizes) -> Reading:
    read = Reader()
    for seed in range(sizes.seeds):
        for kind in KINDS:
            read.take(kind, seed, damaged(kind, seed))
    for seed in range(sizes.cuts):
        for found in truncations(seed):
            read.take("cut off", seed, found, cut=True)
    return read.of()


async def _pace(stage: Stage, cases: list[Case], sizes: Sizes, say: Say) -> Pace:
    some = cases[:: max(1, len(cases) // sizes.plans)][: sizes.plans]
    say(f"{len(some)} plans of AsyncHow on real processes")
    return await asynchow(stage, some, PLAN_S, sizes.token_s)


def _virtual(cases: list[Case], sizes: Sizes, say: Say) -> Virtual:
    some = cases[:: max(1, len(cases) // sizes.virtual)][: sizes.virtual] if sizes.virtual else cases
    say(f"{len(some)} plans of AsyncHow in virtual time")
    return Virtual(PLAN_S, _played(some, streamed=True), _played(some, streamed=False))


def _played(cases: list[Case], *, streamed: bool) -> Makespan:
    world, ratios, failed = SimulatedModel(), [], []
    for case in cases:
        scale = PLAN_S / bound_s(case)
        played = world.play(document(case, scale), streamed=streamed)
        if played.succeeded:
            ratios.append(ratio(case, scale, played, streamed=streamed))
        else:
            failed.append(case.id)
    return makespan(ratios, failed)
