"""What second attempts of stragglers win, and what they cost, where one attempt in twenty takes 3 to 10 times as long.

The same work with the same luck is done with hedging and without it: by the real core with simulated workers on a
virtual clock, deterministic by seed; or by real processes whose tasks sleep (`live`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from statistics import geometric_mean
from typing import Any, Final

import msgspec

from orchestrator.core.setting import CoreSettings, HedgeSettings

from ..scenario import Machine, Scenario
from ..simulated_skill import Program, SimulatedJob, profile_of
from ..simulator import Simulator
from .sulking import attempt_s

WORKERS: Final = 8
SLOTS: Final = 4
SHAPES: Final = {"stages": (10, 24), "wide stages": (4, 96), "bag": (1, 300)}
"""(stages that wait for the whole of the one before, tasks of each)"""
_LIMIT_S: Final = 10_000.0


class Hedged(msgspec.Struct, frozen=True):
    """One shape of work, played both ways; makespans in (virtual) seconds. `extra`: the time of copies as a share of
    the time of all others, whichever of the two ended first."""

    shape: str
    tasks: int
    alone_s: float
    hedged_s: float
    copies: int
    extra: float


class Hedging(msgspec.Struct, frozen=True):
    """`shorter`: by which share makespans fall, geometrically; `extra`: the most that it cost anywhere."""

    shorter: float
    extra: float
    cases: tuple[Hedged, ...]


def hedging(seeds: Iterable[int] = range(3)) -> Hedging:
    """Every shape with every seed: about a second each."""
    cases = tuple(compare(shape, seed) for seed in seeds for shape in SHAPES)
    ratio = geometric_mean(one.hedged_s / one.alone_s for one in cases)
    return Hedging(1.0 - ratio, max(one.extra for one in cases), cases)


def compare(shape: str, seed: int) -> Hedged:
    """The same work with the same luck, without copies and with them."""
    plan = tasks_of(*SHAPES[shape])
    alone, _, _ = _play(plan, seed, HedgeSettings(on=False))
    return Hedged(shape, len(plan), alone, *_play(plan, seed, HedgeSettings()))


def tasks_of(stages: int, width: int, skill: str = "sim.work", **args: Any) -> list[dict[str, Any]]:
    """Stages of independent tasks, with a task of no length between them."""
    found: list[dict[str, Any]] = []
    after: list[str] = []
    for stage in range(stages):
        names = [f"s{stage}x{n}" for n in range(width)]
        found += [{"id": name, "skill": skill, "args": {"value": name, **args}, "after": after} for name in names]
        if stage + 1 < stages:
            after = [f"gate{stage}"]
            found.append({"id": after[0], "skill": "flow.list", "args": {"items": []}, "after": names})
    return found


def _program(seed: int) -> Program:
    def program(job: SimulatedJob) -> Generator[Any, Any, Any]:
        yield attempt_s(seed, job.name, job.number) if job.skill == "sim.work" else 0.0
        return {"items": []}

    return program


def _play(plan: list[dict[str, Any]], seed: int, hedge: HedgeSettings) -> tuple[float, int, float]:
    """(makespan, copies, their share)"""
    sim = Simulator(
        seed=seed,
        workers=[profile_of(SLOTS) for _ in range(WORKERS)],
        program={"*": _program(seed)},
        settings=CoreSettings(hedge=hedge),
        check=False,
    )
    sim.submit({"tasks": plan})
    sim.settle(_LIMIT_S)
    run = sim.state.runs[1]
    spans = [(one.hedge, (one.ended_at or run.settled_at) - one.at) for task in run.tasks for one in task.attempts]
    return run.settled_at - run.submitted_at, *_share(spans)


def _share(spans: list[tuple[bool, float]]) -> tuple[int, float]:
    """(copies, their time as a share of the others') of attempts: whether each is a copy, and how long it took."""
    copied = [took for copy, took in spans if copy]
    return len(copied), sum(copied) / sum(took for copy, took in spans if not copy)


async def live(seed: int = 0, scale: float = 0.5) -> Hedged:
    """`stages` by real processes: a server and eight workers, all on this machine."""
    plan = tasks_of(*SHAPES["stages"], skill="bench.sulk", seed=seed, scale=scale)
    alone, _, _ = await _work(plan, "false")
    return Hedged("stages, real processes", len(plan), alone, *await _work(plan, "true"))


async def _work(plan: list[dict[str, Any]], enabled: str) -> tuple[float, int, float]:
    names = [f"m{n}" for n in range(WORKERS)]
    async with Scenario(environ={"ASTERISM_HEDGE__ENABLED": enabled}) as fleet, fleet.client() as client:
        for name in names:
            machine = Machine(name, SLOTS, skills=("bench.placement.sulking",), resources=(f"cpu={SLOTS}",))
            await fleet.start_worker(client, machine)
        await fleet.joined(client, *names)
        found = (await client.run({"tasks": plan})).report
        again = [name for name, row in found["tasks"].items() if row["attempts"] > 1]
        told = [await client.ask("explain", found["run"], task=name) for name in again]
    spans = [(one["hedge"], one["finished_s"] - one["started_s"]) for row in told for one in row["attempts"]]
    rest = [row["finished_s"] - row["started_s"] for row in found["tasks"].values() if row["attempts"] == 1]
    return found["makespan_s"], *_share([*spans, *((False, took) for took in rest)])
