"""One workflow on one fleet: every plan and policy, with exact predictions and with wrong ones.

Makespans are those of the model that the reference states: contention free, one slot a site, work over speed. `online`
is what a run would see: the portfolio's best plan, searched a while, followed by a guide that revises it. Deterministic
but for the seconds of CPU. It must not know what is promised of any of it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from orchestrator.placement.clock import follow, play
from orchestrator.placement.dice import Dice
from orchestrator.placement.draft import Ground
from orchestrator.placement.forecast import PORTFOLIO, Spread, foremost
from orchestrator.placement.guided import Guided
from orchestrator.placement.heft import heft
from orchestrator.placement.late_binding import LateBinding
from orchestrator.placement.locality import frugal, moved_bytes
from orchestrator.placement.portfolio import end_s, portfolio
from orchestrator.placement.problem import Problem, Schedule, Site, topological
from orchestrator.placement.rank import upward
from orchestrator.placement.search import search
from orchestrator.placement.selection import policy_named

from .workflow import Workflow, read_workflow

NOISE: Final = 0.5
"""Deviation of the logarithm of a run time around its prediction."""
POLICIES: Final = ("eft", "fastest", "round_robin", "random")
LEAST_FUTURES: Final = 16
"""With fewer, luck would be taken for regret: eft and fastest are not played in them."""


class Known(msgspec.Struct, frozen=True):
    """What the reference says of it."""

    heft_s: float
    lb2_s: float
    best_s: float


class Job(msgspec.Struct, frozen=True):
    """`decodes`: how many tasks the search may place on sites; `futures`: how many noisy courses of each kind."""

    path: Path
    fleet: str
    sites: tuple[Site, ...]
    known: Known | None
    decodes: int
    futures: int


class Row(msgspec.Struct, frozen=True):
    """Seconds and bytes; `noise` holds makespan over the bound of what really happened, a number a future."""

    instance: str
    fleet: str
    tasks: int
    synthetic: bool
    lb_s: float
    known: Known | None
    heft_s: float
    plan: str = ""
    plan_s: float = 0.0
    searched_s: float = 0.0
    online_s: float = 0.0
    frugal_s: float = 0.0
    shared: dict[str, float] = {}
    """When HEFT's plan and the portfolio's pick end if transfers compete for links; `believed`: as HEFT tells it."""
    policies: dict[str, float] = {}
    bytes: dict[str, float] = {}
    noise: dict[str, tuple[float, ...]] = {}
    pick: str = ""
    """Which way of PORTFOLIO the forecast expects to end first, of run times that are as wrong as those of `noise`."""
    cpu_s: dict[str, float] = {}

    @property
    def lb2_s(self) -> float:
        """The tighter bound, if anybody has told it."""
        return self.known.lb2_s if self.known is not None else self.lb_s


def measure(job: Job) -> Row:
    """All of one case. A synthetic workflow is only held against the reference."""
    workflow = read_workflow(job.path)
    problem = workflow.on(job.sites)
    started = time.process_time()
    first = heft(problem)
    cpu_s = {"heft": round(time.process_time() - started, 4)}
    lb_s = bound(problem, workflow.work_s)
    row = Row(workflow.name, job.fleet, problem.size, workflow.synthetic, lb_s, job.known, first.makespan_s)
    if workflow.synthetic:
        return msgspec.structs.replace(row, cpu_s=cpu_s)
    ground, rank = Ground(problem), upward(problem)
    started = time.process_time()
    name, plan = portfolio(problem, ground)
    cpu_s["portfolio"] = round(time.process_time() - started, 4)
    moves = max(1, job.decodes // (problem.size * len(problem.sites)))
    started = time.process_time()
    searched = search(problem, plan, moves=moves, ground=ground)
    cpu_s["search"] = round(time.process_time() - started, 4)
    near = frugal(problem, first, rank=rank, ground=ground)
    late = {name: play(problem, LateBinding(policy_named(name), rank)) for name in POLICIES}
    online = play(problem, Guided(first=searched))
    started = time.process_time()
    pick = foretell(problem) if job.futures >= LEAST_FUTURES else ""
    cpu_s["pick"] = round(time.process_time() - started, 4)
    return msgspec.structs.replace(
        row,
        plan=name,
        plan_s=plan.makespan_s,
        searched_s=searched.makespan_s,
        online_s=online.schedule.makespan_s,
        frugal_s=near.makespan_s,
        shared=_shared(problem, first, ground),
        policies={name: one.schedule.makespan_s for name, one in late.items()},
        bytes={
            "heft": moved_bytes(problem, first),
            "frugal": moved_bytes(problem, near),
            "eft": late["eft"].moved_bytes,
            "random": _scattered(problem),
        },
        noise=_noise(workflow, problem, first, rank, job.futures),
        pick=pick,
        cpu_s=cpu_s,
    )


def bound(problem: Problem, work_s: Sequence[float]) -> float:
    """No schedule is shorter: the critical path on the fastest site, all work on all of their slots."""
    path = [0.0] * problem.size
    for task in reversed(topological(problem)):
        path[task] = work_s[task] + max((path[child] for child, _ in problem.children[task]), default=0.0)
    fastest = max(site.speed for site in problem.sites)
    return max(max(path) / fastest, sum(work_s) / sum(site.speed * site.slots for site in problem.sites))


def _shared(problem: Problem, plan: Schedule, ground: Ground) -> dict[str, float]:
    competing = msgspec.structs.replace(problem, contention="shared")
    _, pick = portfolio(competing, ground)
    return {"believed": plan.makespan_s, "heft": end_s(competing, plan), "portfolio": end_s(competing, pick)}


def _scattered(problem: Problem) -> float:
    """Bytes that move when every task goes to any site alike, in expectation."""
    whole = sum(size for edges in problem.parents for _, size in edges)
    return whole * (1.0 - 1.0 / len(problem.sites))


def foretell(problem: Problem) -> str:
    """The pick, from futures drawn by a seed of their own: none of them is one that it is then judged by."""
    doubtful = msgspec.structs.replace(problem, doubt=[NOISE] * problem.size)
    spread = Spread((NOISE,) * problem.size, (0,) * problem.size, (0.0,))
    return foremost(doubtful, PORTFOLIO, spread, seed=1).policy


def _noise(
    workflow: Workflow, problem: Problem, plan: Schedule, rank: Sequence[float], futures: int
) -> dict[str, tuple[float, ...]]:
    """Each course in the same futures: a task's run time is off by one factor, wherever it runs. `heft` is planned and
    revised, `static` replays the plan."""
    doubtful = msgspec.structs.replace(problem, doubt=[NOISE] * problem.size)
    courses: dict[str, Callable[[Callable[[int, int], float]], Schedule]] = {
        "online": lambda took: play(doubtful, Guided(), took=took).schedule,
        "static": lambda took: follow(problem, plan, took=took).schedule,
    }
    if futures >= LEAST_FUTURES:
        courses["eft"] = lambda took: play(problem, LateBinding(policy_named("eft"), rank), took=took).schedule
        courses["fastest"] = lambda took: play(problem, LateBinding(policy_named("fastest"), rank), took=took).schedule
    found: dict[str, list[float]] = {name: [] for name in courses}
    for seed in range(futures):
        dice = Dice(seed)
        factor = [math.exp(NOISE * dice.normal()) for _ in workflow.work_s]
        least = bound(problem, [work * each for work, each in zip(workflow.work_s, factor)])

        def took(task: int, site: int, factor: Sequence[float] = factor) -> float:
            return problem.run(task, site) * factor[task]

        for name, course in courses.items():
            found[name].append(course(took).makespan_s / least)
    return {name: tuple(ratios) for name, ratios in found.items()}
