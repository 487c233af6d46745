"""The suites that can be swept, each with the params it knows; a point of a sweep is one small run of its suite.

`overhead` starts real processes for each play; `schedule` plays drawn graphs by the placement's own code on a virtual
clock; `scale` plays a whole server in a process of its own; `cross-device` plays a few tasks on five machines, started
for each play. It must not know which points are played.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from random import Random
from statistics import median
from typing import Final

import msgspec

from orchestrator.placement.clock import play
from orchestrator.placement.guided import Guided
from orchestrator.placement.late_binding import LateBinding
from orchestrator.placement.problem import Problem, Site
from orchestrator.placement.rank import upward
from orchestrator.placement.selection import policy_named
from protocol.errors import RunFailed, UsageError

from .cross_device.case import FOLDER, load_cases
from .cross_device.figure import figures, why
from .cross_device.machine import FIVE, Member
from .cross_device.play import PLANNERS, Play
from .cross_device.play import play as play_case
from .cross_device.site import FiveMachines
from .cross_device.warm import warm_all
from .guard import guarded
from .metric import MIB
from .placement.case import bound
from .scaling import SHAPES, play_apart
from .scenario import Machine, Scenario
from .stopwatch import timed
from .sweep import Param, Suite, Value
from .workload import chain, fan_out, layered

POLICIES: Final = ("eft", "heft", "fastest", "round_robin", "random")
_PLAYS: Final = 3
_TASKS: Final = ("two-chained-maps", "thirty-two-logs", "twelve-months")
"""Wide enough for slots and placement to count, and short."""


class OverheadSweep:
    """One orchestrator with its journal on the disk and so many workers, fresh for every play."""

    name = "overhead"
    figures = ("fanout_tasks_per_s", "layered_tasks_per_s", "chain_ms_per_hop")
    configured = True

    def __init__(self, quick: bool) -> None:
        self.params = (
            Param("tasks", 2_000 if quick else 10_000),
            Param("workers", 2),
            Param("slots", 4),
            Param("policy", "auto", choices=("auto", *POLICIES)),
        )

    async def play(self, point: Mapping[str, Value], environ: Mapping[str, str], seed: int) -> dict[str, float]:
        tasks, side = int(point["tasks"]), max(1, math.isqrt(int(point["tasks"])))
        policy = {"ASTERISM_PLACEMENT__POLICY": str(point["policy"])}
        machines = [Machine(f"bench-{n}", slots=int(point["slots"])) for n in range(1, int(point["workers"]) + 1)]
        async with Scenario(environ={**policy, **environ}) as fleet, fleet.client() as client:
            for machine in machines:
                await fleet.start_worker(client, machine)
            await fleet.joined(client, *(machine.name for machine in machines))
            length = max(2, tasks // 10)
            hop = [(await timed(client, chain(length)))[0] * 1000 / length for _ in range(_PLAYS)]
            wide = [tasks / (await timed(client, fan_out(tasks)))[1] for _ in range(_PLAYS)]
            deep = [side * side / (await timed(client, layered(side, side)))[1] for _ in range(_PLAYS)]
        return dict(zip(self.figures, (median(wide), median(deep), median(hop))))


class ScheduleSweep:
    """A graph, its run times and a fleet of unlike devices drawn from the seed, the same for every point."""

    name = "schedule"
    figures = ("speedup", "makespan_over_bound", "moved_mib")
    configured = False

    def __init__(self, quick: bool) -> None:
        self.params = (
            Param("tasks", 100 if quick else 400),
            Param("devices", 6),
            Param("slots", 1),
            Param("policy", "heft", choices=POLICIES),
            Param("noise", 0.0, least=0.0),
            Param("bandwidth", 1.0, least=0.001),
        )

    async def play(self, point: Mapping[str, Value], environ: Mapping[str, str], seed: int) -> dict[str, float]:
        problem, work_s = _drawn(seed, point)
        luck, noise = Random(f"{seed} luck"), float(point["noise"])
        factor = [math.exp(noise * luck.gauss(0.0, 1.0)) for _ in work_s]
        name = str(point["policy"])
        rule = Guided() if name == "heft" else LateBinding(policy_named(name), upward(problem))
        found = play(problem, rule, took=lambda task, site: problem.run(task, site) * factor[task])
        real_s = [work * each for work, each in zip(work_s, factor)]
        alone_s = sum(real_s) / max(site.speed for site in problem.sites)
        makespan_s = found.schedule.makespan_s
        least_s = bound(problem, real_s)
        return dict(zip(self.figures, (alone_s / makespan_s, makespan_s / least_s, found.moved_bytes / MIB)))


def _drawn(seed: int, point: Mapping[str, Value]) -> tuple[Problem, list[float]]:
    """Each task reads up to three of the twenty before it. The same seed gives the first N of one series of tasks and
    of devices, whatever else is asked. `bandwidth` multiplies every link's, `noise` is what is doubted."""
    luck, fleet = Random(f"{seed} tasks"), Random(f"{seed} devices")
    tasks, slots, factor = int(point["tasks"]), int(point["slots"]), float(point["bandwidth"])
    sites: list[Site] = []
    for n in range(int(point["devices"])):
        speed, bandwidth = fleet.choice((1.0, 1.0, 2.0, 4.0)), fleet.choice((12.5e6, 125e6)) * factor
        sites.append(Site(f"d{n}", n, n, speed=speed, slots=slots, bandwidth=bandwidth, latency_s=0.01))
    work_s: list[float] = []
    parents: list[list[tuple[int, float]]] = []
    children: list[list[tuple[int, float]]] = [[] for _ in range(tasks)]
    for task in range(tasks):
        work_s.append(luck.lognormvariate(2.0, 1.0))
        wanted = [(luck.randint(1, 20), luck.lognormvariate(15.0, 1.5)) for _ in range(luck.randint(0, 3))]
        above = {task - back: size for back, size in wanted if back <= task}
        parents.append(list(above.items()))
        for parent, size in above.items():
            children[parent].append((task, size))
    run_s = [[work / site.speed for site in sites] for work in work_s]
    return Problem(tuple(sites), run_s, parents, children, doubt=[float(point["noise"])] * tasks), work_s


class ScaleSweep:
    """A whole server and its simulated workers in a process of their own, over loopback."""

    name = "scale"
    figures = ("cpu_us_per_task", "tasks_per_s", "kept_bytes_per_task")
    configured = False

    def __init__(self, quick: bool) -> None:
        self.params = (
            Param("tasks", 2_000 if quick else 10_000),
            Param("workers", 2),
            Param("shape", "fan-out", choices=tuple(SHAPES)),
        )

    async def play(self, point: Mapping[str, Value], environ: Mapping[str, str], seed: int) -> dict[str, float]:
        cost = play_apart(str(point["shape"]), int(point["tasks"]), int(point["workers"]))
        assert cost.wall_s is not None
        assert cost.kept_bytes is not None
        rates = (cost.cpu_s * 1e6 / cost.tasks, cost.tasks / cost.wall_s, cost.kept_bytes / cost.tasks)
        return dict(zip(self.figures, rates))


class CrossDeviceSweep:
    """A few tasks of the cross-device suite in gold mode, none of them a second time one after the other."""

    name = "cross-device"
    figures = ("latency_s", "mean_width", "critical_path_ratio", "hop_ms", "bytes_moved")
    configured = True

    def __init__(
        self, quick: bool, select: Sequence[str] = (), names: Sequence[str] = (), members: Sequence[Member] = FIVE
    ) -> None:
        """Raises: UsageError for a choice of tasks that is none or broken, NotFound."""
        if not select and not names:
            names = _TASKS[:1] if quick else _TASKS
        loaded = load_cases(FOLDER, select, names)
        if loaded.problems or not loaded.cases:
            raise UsageError("; ".join(loaded.problems) or "no task is chosen", hint="asterism bench cross-device")
        self._cases = loaded.cases
        self._members = members
        self.params = (
            Param("slots", 0, least=0),
            Param("policy", "auto", choices=("auto", *POLICIES)),
            Param("speed", 1.0, least=0.01),
        )

    async def play(self, point: Mapping[str, Value], environ: Mapping[str, str], seed: int) -> dict[str, float]:
        slots, speed = int(point["slots"]), float(point["speed"])
        members = [
            msgspec.structs.replace(one, slots=slots or one.slots, speed=min(1.0, one.speed * speed))
            for one in self._members
        ]
        settings = {"ASTERISM_PLACEMENT__POLICY": str(point["policy"]), **environ}
        made: list[Play] = []
        with guarded("asterism-sweep-") as guard:
            async with FiveMachines(guard, seed, members=members, environ=settings) as stage:
                for name, reason in stage.missing.items():
                    raise RunFailed(f"{name} could not be started: {reason}")
                await warm_all(stage, self._cases, PLANNERS["gold"])
                for case in self._cases:
                    made.append(await play_case(stage, case, Play(case=case.name, category=case.category, seed=seed)))
        for one in made:
            if not one.succeeded:
                raise RunFailed(f"{one.case}: {'; '.join(why(one))}", hint="its numbers mean nothing")
        found = figures(made)
        return {name: float(getattr(found, name)) for name in self.figures}


SUITES: Final[dict[str, Callable[[bool], Suite]]] = {
    "overhead": OverheadSweep,
    "schedule": ScheduleSweep,
    "scale": ScaleSweep,
    "cross-device": CrossDeviceSweep,
}


def suite_named(name: str, quick: bool, select: Sequence[str] = (), names: Sequence[str] = ()) -> Suite:
    """`select` and `names` choose the tasks of a suite that has some. Raises: UsageError, NotFound."""
    if name not in SUITES:
        raise UsageError(f"{name} can't be swept", hint=f"one of {', '.join(SUITES)}")
    if name == CrossDeviceSweep.name:
        return CrossDeviceSweep(quick, select, names)
    if select or names:
        raise UsageError(f"{name} has no tasks to choose from", hint=f"--suite {CrossDeviceSweep.name}")
    return SUITES[name](quick)
