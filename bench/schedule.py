"""A schedule: what a simulated run is asked, what its people and planners do, and what goes wrong. Drawn from a seed.

Data only. Invariant: the same seed gives the same schedule for ever in one version, and every part of it has a name
by which it can be left out, so that a failing one can be made smaller without another draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, Final

import msgspec

from protocol.task import SLA_CLASSES

from .fault import Faults

MOST_TASKS: Final = 12
MOST_WORKERS: Final = 4
MOST_STEPS: Final = 400
SPAN_S: Final = 8.0
"""Faults and people act within this time from the start; only so much of it happens as the steps allow."""
LISTS: Final = (
    "kills",
    "cuts",
    "one_way",
    "freezes",
    "outboxes",
    "disks",
    "crashes",
    "effects",
    "aheads",
    "snapshots",
    "hostile",
)
RATES: Final = ("loss", "duplicate", "reorder")
_ACTS: Final = (
    ("replace", 6), ("add", 4), ("stale", 3), ("touch", 3), ("cycle", 3), ("link", 3), ("unlink", 1), ("remove", 1),
    ("cancel", 2), ("cancel_run", 1), ("undo", 2), ("pause", 2), ("resume", 3), ("approve", 4), ("reject", 1),
    ("answer", 3), ("resolve", 2), ("finish", 1), ("edits", 2), ("drain", 1), ("fork", 1), ("again", 1),
)  # fmt: skip
_SKILLS: Final = (
    "sim.work", "sim.work", "sim.work", "sim.light", "sim.idem", "sim.idem", "sim.once", "sim.once", "sim.own",
    "sim.asks", "sim.parent", "sim.parent",
)  # fmt: skip


class Act(msgspec.Struct, frozen=True, array_like=True, order=True):
    """What a person does at a time; `pick` chooses among what there is then."""

    at: float
    what: str
    pick: int


class Rival(msgspec.Struct, frozen=True, array_like=True):
    """Somebody else's run of so many tasks of one skill, at a time."""

    at: float
    author: str
    sla: str
    priority: int
    skill: str
    count: int
    run_s: float
    cpu: int = 1

    def plan(self) -> dict[str, Any]:
        """The document of the run."""
        args = {"value": self.author, "run_s": self.run_s}
        more = {"needs": {"cpu": self.cpu}} if self.cpu > 1 else {}
        tasks = [{"id": f"v{n}", "skill": self.skill, "args": args, **more} for n in range(self.count)]
        return {"tasks": tasks, "run": {"sla": self.sla, "priority": self.priority}}


class Schedule(msgspec.Struct, frozen=True):
    """See the module. `slots` and `speeds`: one worker each. `script`: how the program of a task behaves, by its name.

    `planner`: what each planner call gives, in order; with `streamed` the first plan is a planner's too. `hasty`:
    somebody edits as soon as a crashed orchestrator is back. `steps`: decisions of the core until the faults end.
    """

    seed: int
    slots: tuple[int, ...]
    tasks: tuple[dict[str, Any], ...]
    script: dict[str, str]
    settings: dict[str, Any]
    acts: tuple[Act, ...]
    planner: tuple[str, ...]
    faults: Faults
    streamed: bool = False
    hasty: bool = False
    stubborn_s: float = 0.0
    approval_s: float = 1000.0
    fsync_s: float = 0.004
    ahead: bool = True
    steps: int = MOST_STEPS
    policy: str = "auto"
    speeds: tuple[float, ...] = ()
    rivals: tuple[Rival, ...] = ()

    def parts(self) -> Iterator[str]:
        """The names of everything that may be left out, what makes most difference first."""
        yield from (f"{name}:{n}" for name in LISTS for n in range(len(getattr(self.faults, name))))
        yield from (f"rate:{name}" for name in RATES if getattr(self.faults, name))
        yield from (f"act:{n}" for n in range(len(self.acts)))
        yield from (f"task:{task['id']}" for task in reversed(self.tasks) if len(self.tasks) > 1)
        yield from (f"worker:{n}" for n in range(len(self.slots) - 1, 0, -1))
        yield from (f"script:{name}" for name in self.script)
        yield from (f"rival:{n}" for n in range(len(self.rivals)))

    def without(self, parts: set[str]) -> Schedule:
        """The same schedule without these parts; a task goes with everything that needs it."""
        faults: dict[str, Any] = {}
        for name in LISTS:
            faults[name] = tuple(one for n, one in enumerate(getattr(self.faults, name)) if f"{name}:{n}" not in parts)
        faults |= {name: 0.0 for name in RATES if f"rate:{name}" in parts}
        gone = {part.partition(":")[2] for part in parts if part.startswith("task:")}
        tasks: list[dict[str, Any]] = []
        for task in self.tasks:
            if task["id"] in gone or not gone.isdisjoint(_mentioned(task)):
                gone.add(task["id"])
            else:
                tasks.append(task)
        fewer = sum(part.startswith("worker:") for part in parts)
        return msgspec.structs.replace(
            self,
            faults=msgspec.structs.replace(self.faults, **faults),
            acts=tuple(act for n, act in enumerate(self.acts) if f"act:{n}" not in parts),
            tasks=tuple(tasks) or self.tasks[:1],
            slots=self.slots[: max(1, len(self.slots) - fewer)],
            script={name: how for name, how in self.script.items() if f"script:{name}" not in parts},
            rivals=tuple(one for n, one in enumerate(self.rivals) if f"rival:{n}" not in parts),
        )


def _mentioned(node: Any) -> set[str]:
    """Ids of tasks anywhere in a task: in references, `after` and `when`."""
    if isinstance(node, str):
        return {node.partition("/")[0].partition("[")[0]}
    if isinstance(node, dict):
        return {name for key, one in node.items() if key != "id" for name in _mentioned(one)}
    if isinstance(node, list):
        return {name for one in node for name in _mentioned(one)}
    return set()


def draw(seed: int) -> Schedule:
    """The schedule of a seed."""
    luck, fleet = Random(f"schedule {seed}"), Random(f"placement {seed}")
    tasks, script = _tasks(luck)
    settings: dict[str, Any] = {"on_failure": luck.choice(["continue", "continue", "stop", "replan", "replan"])}
    if luck.random() < 0.1:
        settings["deadline"] = luck.choice([2, 10, 30])
    if luck.random() < 0.1:
        settings["budget"] = {"attempts": luck.randint(3, 12)}
    rivals = _rivals(Random(f"rivals {seed}"), settings)
    _plan_more(Random(f"plans {seed}"), tasks, script, settings)
    acts = sorted(_act(luck) for _ in range(luck.choice([0, 1, 3, 6, 10])))
    return Schedule(
        seed=seed,
        slots=tuple(luck.choice([1, 1, 2, 3]) for _ in range(luck.choice([1, 2, 2, 3, 3, 4]))),
        tasks=tuple(tasks),
        script=script,
        settings=settings,
        acts=tuple(acts),
        planner=tuple(luck.choice(_PLANNERS) for _ in range(4)),
        faults=_faults(luck),
        streamed=luck.random() < 0.2,
        hasty=luck.random() < 0.7,
        stubborn_s=luck.choice([0.0, 0.0, 1.0]),
        approval_s=luck.choice([3.0, 1000.0, 1000.0]),
        fsync_s=luck.choice([0.001, 0.004, 0.02, 0.1]),
        ahead=luck.random() < 0.9,
        steps=luck.choice([60, 120, 200, MOST_STEPS]),
        policy=fleet.choice(_POLICIES),
        speeds=tuple(fleet.choice(_SPEEDS) for _ in range(MOST_WORKERS)) if fleet.random() < 0.5 else (),
        rivals=rivals,
    )


def _rivals(luck: Random, settings: dict[str, Any]) -> tuple[Rival, ...]:
    """Runs of other users, or of the same, that want the same slots."""
    if luck.random() < 0.5:
        return ()
    settings["sla"] = luck.choice(SLA_CLASSES)
    found = [Rival(round(luck.uniform(0.0, 0.5), 4), "cy", "batch", 0, "sim.keeps", luck.choice((2, 6)), 4.0)]
    for _ in range(luck.choice((1, 1, 2))):
        at, author, sla = luck.uniform(0.0, SPAN_S / 2), luck.choice(("sim", "ann", "ben")), luck.choice(SLA_CLASSES)
        skill, count = luck.choice(("sim.keeps", "sim.work", "sim.light")), luck.choice((1, 2, 6))
        run_s = luck.choice((0.05, 1.0, 4.0))
        priority, cpu = luck.choice((0, 0, 5)), luck.choice((1, 1, 2))
        found.append(Rival(round(at, 4), author, sla, priority, skill, count, run_s, cpu))
    return tuple(found)


_POLICIES: Final = ("auto", "auto", "heft", "eft", "fastest", "round_robin", "random")
_SPEEDS: Final = (0.25, 1.0, 1.0, 2.0, 8.0)
_PLANNERS: Final = ("adds", "adds", "retries", "gives up", "stale", "cycle", "silent", "garbage", "fails")


_DEATHS: Final = ("boot", "boot", "power", "stream", "half", "half")


def _act(luck: Random) -> Act:
    what = luck.choices([name for name, _ in _ACTS], [weight for _, weight in _ACTS])[0]
    return Act(round(luck.uniform(0.0, SPAN_S * luck.random()), 4), what, luck.randrange(1_000_000))


def _tasks(luck: Random) -> tuple[list[dict[str, Any]], dict[str, str]]:
    count = luck.choice([2, 3, 5, 8, MOST_TASKS])
    tasks: list[dict[str, Any]] = []
    script: dict[str, str] = {}
    plain: list[str] = []
    maps: list[str] = []
    if luck.random() < 0.6:
        tasks.append({"id": "l", "skill": "flow.list", "args": {"items": list(range(luck.randint(0, 4)))}})
        plain.append("l")
    while len(tasks) < count:
        name = f"t{len(tasks)}"
        task: dict[str, Any] = {"id": name, "skill": luck.choice(_SKILLS)}
        run_s = luck.choice([0.001, 0.05, 0.05, 0.5, 2.0, 4.0])
        if "l" in plain and luck.random() < 0.3:
            _map(luck, task, maps, min(run_s, 0.5))
            maps.append(name)
        else:
            _plain(luck, task, plain, maps, run_s)
            plain.append(name)
        how = _behaviour(luck, task["skill"])
        if how:
            script[name] = how
        tasks.append(task)
    return tasks, script


def _map(luck: Random, task: dict[str, Any], maps: list[str], run_s: float) -> None:
    sources = ["l/items[]", *(f"{name}[]" for name in maps)]
    first = luck.choice(sources)
    value: Any = {"ref": first}
    if luck.random() < 0.3:
        value = [{"ref": first}, {"ref": luck.choice(sources)}]
    if task["skill"] in ("sim.parent", "sim.asks"):
        task["skill"] = "sim.work"
    task["args"] = {"value": value, "run_s": run_s}
    task["map"] = {
        "limit": luck.choice([0, 0, 1, 2]),
        "chunk": luck.choice([1, 1, 2, 3]),
        "on_error": luck.choice(["fail", "collect"]),
    }


def _plain(luck: Random, task: dict[str, Any], plain: list[str], maps: list[str], run_s: float) -> None:
    known = plain + maps
    sources = luck.sample(known, min(len(known), luck.choice([0, 1, 1, 2, 3])))
    value: Any = [luck.randrange(100), *({"ref": name} for name in sources)]
    if len(sources) > 1 and luck.random() < 0.3:
        value = {"ref": sources}
    task["args"] = {"value": value, "run_s": run_s}
    if plain and luck.random() < 0.2:
        task["after"] = [luck.choice(plain)]
    if known and luck.random() < 0.2:
        task["when"] = [{"ref": luck.choice(known), "is": luck.choice(["succeeded", "failed", "finished"])}]
    once = task["skill"] in ("sim.once", "sim.own")
    if not once and luck.random() < 0.15:
        task["alt"] = ["sim.other"]
    if not once and luck.random() < 0.2:
        task["retry"] = {"max": luck.randint(0, 3), "backoff": luck.choice([0.05, 1.0])}
    if luck.random() < 0.06:
        task["deadline"] = luck.choice([0.5, 3, 20])
    if luck.random() < 0.08:
        task["approve"] = True
    if luck.random() < 0.06:
        task["on"] = ["w1"]
    if luck.random() < 0.04:
        task["timeout"] = 1


def _plan_more(luck: Random, tasks: list[dict[str, Any]], script: dict[str, str], settings: dict[str, Any]) -> None:
    """What planners are asked for while the run goes on; drawn apart, so that the rest is as it is without."""
    for task in tasks:
        if task["skill"] != "flow.list" and luck.random() < 0.12:
            script.pop(task["id"], None)
            _later(luck, task, script)
        elif script.get(task["id"]) == "propose" and luck.random() < 0.5:
            script[task["id"]] = "goal"
    if luck.random() < 0.15:
        settings["review"] = luck.randint(1, 3)


def _later(luck: Random, task: dict[str, Any], script: dict[str, str]) -> None:
    """The same task as one that has its work planned when it runs; what `s0` of that plan does is drawn here."""
    task["skill"] = "plan.next"
    task["args"] = {
        "goal": "more", "facts": {"x": task["args"]["value"]}, "rounds": luck.randint(1, 3),
        "skills": ["sim.work", "sim.idem", "sim.once"],
    }  # fmt: skip
    for key in ("retry", "alt", "on"):
        task.pop(key, None)
    if how := luck.choice(["", "", "permanent", "permanent 1", "transient 1", "infra 1"]):
        script[f"{task['id']}.s0"] = how


def _behaviour(luck: Random, skill: str) -> str:
    if skill == "sim.parent":
        return luck.choice(["spawn", "spawn", "ask", "spawn fails", "propose"])
    if luck.random() < 0.7:
        return ""
    return luck.choice(["permanent", "transient 1", "transient 2", "infra 1", "infra 9", "policy 1", "died 1"])


def _faults(luck: Random) -> Faults:
    if luck.random() < 0.05:
        return Faults()

    def some(most: int) -> range:
        return range(luck.choice([0, 0, 1, most]))

    def at() -> float:
        return round(luck.uniform(0.0, SPAN_S * luck.random()), 4)

    def who() -> int:
        return luck.randrange(MOST_WORKERS)

    return Faults(
        loss=luck.choice([0.0, 0.0, 0.02, 0.1]),
        duplicate=luck.choice([0.0, 0.0, 0.05, 0.2]),
        reorder=luck.choice([0.0, 0.0, 0.02, 0.1]),
        delay_s=luck.choice([(0.0002, 0.002), (0.0002, 0.002), (0.001, 0.05), (0.01, 0.3)]),
        crashes=tuple(sorted(luck.randint(1, luck.choice([10, 50, 200])) for _ in some(2))),
        effects=tuple(sorted(luck.randint(1, luck.choice([20, 100, 400])) for _ in some(3))),
        aheads=tuple(sorted(luck.randint(1, 8) for _ in range(luck.choice([0, 1, 1, 2])))),
        away_s=luck.choice([0.05, 0.2, 1.0, 3.0]),
        torn=luck.random() < 0.5,
        kills=tuple(
            (at(), who(), luck.choice([0.1, 1.0, 7.0]), luck.choice(_DEATHS))
            for _ in some(3)
        ),
        cuts=tuple((at(), who(), luck.choice([0.4, 2.0, 8.0])) for _ in some(2)),
        one_way=tuple((at(), who(), luck.choice([0.4, 2.0, 8.0]), luck.choice(["up", "down"])) for _ in some(2)),
        freezes=tuple((at(), who(), luck.choice([0.4, 3.0, 8.0])) for _ in some(2)),
        disks=tuple((at(), luck.choice([0.2, 1.0, 3.0]), luck.choice(["stall", "full"])) for _ in some(2)),
        snapshots=tuple(sorted(luck.randint(1, 200) for _ in some(3))),
        hostile=tuple((at(), who(), luck.choice(["report", "report", "call", "fence", "pin", "rejected", "held"]))
                      for _ in some(3)),
        outboxes=tuple((at(), who(), luck.choice([0.5, 3.0, 8.0])) for _ in some(2)),
        slips=tuple(sorted(luck.randint(1, luck.choice([20, 100])) for _ in some(3))),
    )  # fmt: skip
