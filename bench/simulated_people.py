"""Simulated people and planners: what they ask of the orchestrator, chosen among what they can see at that moment.

They read, think for a while, and act on what they read, so their edits may be stale; some of them err on purpose.
They are users of the core like any other: everything goes through stimuli.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final, Protocol

import msgspec

from orchestrator.core import command as c
from orchestrator.core import stimulus as s
from orchestrator.core.graph import Run, Task
from orchestrator.core.lifecycle import AwaitingApproval, Closed, Paused, Pending, Ready, Settled, Unknown, Waiting
from orchestrator.core.state import State
from protocol.document import canonical
from protocol.patch import Edit, Patch
from protocol.plan import parse_plan
from protocol.task import TaskSpec

from .schedule import Act, Rival, Schedule

THINKS_S: Final = 0.6
_EDITABLE: Final = (Pending, Ready, AwaitingApproval)


class World(Protocol):
    up: bool
    now: float

    @property
    def state(self) -> State: ...
    def at(self, when: float, act: Callable[[], Any]) -> None: ...
    def handle(self, stimulus: s.Stimulus) -> None: ...
    def new_reply(self) -> int: ...


class SimulatedPeople:
    """Everybody who is no worker. `plan`: the document of the first run."""

    def __init__(self, world: World, schedule: Schedule, plan: dict[str, Any]) -> None:
        self.world = world
        self.schedule = schedule
        self.first = parse_plan(plan)
        self._calls = 0

    def submit(self) -> None:
        """The run of the schedule; the same again if it was asked for before."""
        plan = self.first
        patch = None if self.schedule.streamed else Patch("person:sim", plan.tasks, outputs=plan.outputs or None)
        made = s.Submitted(
            self.world.new_reply(), "do it", "first", "sim", plan.settings, {}, "w1", plan=patch is None, patch=patch
        )
        self.world.handle(made)

    def rival(self, rival: Rival) -> None:
        """Somebody else's run; later while the orchestrator is away."""
        world, plan = self.world, parse_plan(rival.plan())
        if not world.up:
            world.at(world.now + 0.3, lambda: self.rival(rival))
            return
        patch = Patch(f"person:{rival.author}", plan.tasks)
        key = f"{rival.author} at {rival.at}"
        made = s.Submitted(world.new_reply(), "me too", key, rival.author, plan.settings, {}, "w1", patch=patch)
        world.handle(made)

    def act(self, act: Act) -> None:
        """Look, think, act; later while the orchestrator is away."""
        world = self.world
        if not world.up:
            world.at(world.now + 0.3, lambda: self.act(act))
            return
        luck = Random(act.pick)
        runs = [run for run in world.state.runs.values() if type(run.state) is not Closed]
        if not runs:
            if not world.state.runs:
                self.submit()
            return
        run = luck.choice(runs)
        stimulus = _ACTS[act.what](self, run, luck)
        if stimulus is None:
            return
        if luck.random() < 0.5:
            world.handle(stimulus)
        else:
            world.at(world.now + luck.uniform(0.0, THINKS_S), lambda: world.handle(stimulus))

    def tidy(self, luck: Random) -> None:
        """What a person does in the end so that everything can end: go on, approve, answer, resolve."""
        world = self.world
        if not world.up:
            return
        if not world.state.runs:
            self.submit()
        for run in list(world.state.runs.values()):
            if type(run.state) is Paused:
                world.handle(s.PauseRequested(world.new_reply(), run.ix, "ann", resume=True))
            for task in list(run.tasks):
                name = run.name_of(task)
                if type(task.state) is AwaitingApproval:
                    world.handle(s.ApprovalDecided(world.new_reply(), run.ix, name, "ann", luck.random() < 0.8))
                elif isinstance(task.state, Waiting) and task.state.what == "ask":
                    world.handle(s.AnswerGiven(world.new_reply(), run.ix, name, "ann", b"42"))
                elif type(task.state) is Unknown:
                    world.handle(self._resolved(run, name, luck))

    def rewrite(self, luck: Random) -> list[s.Stimulus]:
        """Another argument for most of what has not begun."""
        runs = [run for run in self.world.state.runs.values() if type(run.state) is not Closed]
        return [
            self._propose(run, Patch("person:ann", (other(task, luck),), "anew"))
            for run in runs
            for task in run.roots()
            if editable(task) and luck.random() < 0.9
        ]

    # What they do

    def _resolved(self, run: Run, name: str, luck: Random) -> s.Stimulus:
        how = luck.choice(["succeeded", "retry", "fail"])
        return s.UnknownResolved(self.world.new_reply(), run.ix, name, "ann", how, b'{"value":"resolved"}')  # type: ignore[arg-type]

    def _propose(self, run: Run, patch: Patch) -> s.Stimulus:
        return s.PatchProposed(self.world.new_reply(), run.ix, patch)

    def _replace(self, run: Run, luck: Random) -> s.Stimulus | None:
        task = _one(luck, [task for task in run.roots() if editable(task)])
        if task is None:
            return None
        version = run.version if luck.random() < 0.7 else -1
        return self._propose(run, Patch("person:ann", (other(task, luck),), "better", version))

    def _stale(self, run: Run, luck: Random) -> s.Stimulus | None:
        task = _one(luck, [task for task in run.roots() if editable(task)])
        if task is None:
            return None
        return self._propose(run, Patch("person:ann", (other(task, luck),), "old", task.version - 1))

    def _touch(self, run: Run, luck: Random) -> s.Stimulus | None:
        task = _one(luck, [task for task in run.roots() if task.attempts])
        return self._propose(run, Patch("person:ann", (other(task, luck),), "late")) if task is not None else None

    def _add(self, run: Run, luck: Random) -> s.Stimulus:
        names = [task.spec.id for task in run.roots()]
        refs = luck.sample(names, min(len(names), luck.randint(0, 2)))
        value = [luck.randrange(100), *({"ref": name} for name in refs)]
        spec = TaskSpec(f"n{luck.randrange(100)}", "sim.work", canonical({"value": value, "run_s": 0.05}))
        return self._propose(run, Patch("person:bob", (spec,), "more", run.version))

    def _cycle(self, run: Run, luck: Random) -> s.Stimulus | None:
        """An edge back from a task to one that it needs."""
        found = []
        for task in run.roots():
            for ix in task.wiring.upstreams():
                if editable(run.tasks[ix]) and run.tasks[ix].parent < 0:
                    found.append((task.spec.id, run.tasks[ix].spec.id))
        pair = _one(luck, found)
        return self._propose(run, Patch("person:bob", why="round", links=(pair,))) if pair is not None else None

    def _link(self, run: Run, luck: Random, off: bool = False) -> s.Stimulus | None:
        names = [task.spec.id for task in run.roots()]
        if len(names) < 2:
            return None
        up, down = luck.sample(names, 2)
        pair = ((up, down),)
        patch = Patch("person:bob", unlinks=pair) if off else Patch("person:bob", links=pair)
        return self._propose(run, patch)

    def _unlink(self, run: Run, luck: Random) -> s.Stimulus | None:
        return self._link(run, luck, off=True)

    def _edit(self, run: Run, luck: Random, op: str = "remove") -> s.Stimulus | None:
        name = "" if op == "finish" else luck.choice([task.spec.id for task in run.roots()] or [""])
        return self._propose(run, Patch("person:ann", edits=(Edit(op, name, "as told"),)))  # type: ignore[arg-type]

    def _edits(self, run: Run, luck: Random) -> s.Stimulus | None:
        """Several at once, of which one may undo what the next is about."""
        names = [task.spec.id for task in run.roots()]
        if not names:
            return None
        names = luck.sample(names, min(len(names), 2))
        ops = ["retry", "cancel", "remove", "give_up", "finish"]
        edits = tuple(Edit(luck.choice(ops), luck.choice(names), "at once") for _ in range(luck.randint(2, 4)))  # type: ignore[arg-type]
        return self._propose(run, Patch("person:ann", edits=edits))

    def _finish(self, run: Run, luck: Random) -> s.Stimulus | None:
        return self._edit(run, luck, "finish")

    def _cancel(self, run: Run, luck: Random) -> s.Stimulus | None:
        task = _one(luck, run.tasks)
        if task is None:
            return None
        return s.CancelRequested(self.world.new_reply(), run.ix, run.name_of(task), "ann")

    def _cancel_run(self, run: Run, luck: Random) -> s.Stimulus:
        return s.CancelRequested(self.world.new_reply(), run.ix, "", "ann")

    def _undo(self, run: Run, luck: Random) -> s.Stimulus:
        return s.UndoRequested(self.world.new_reply(), run.ix, luck.randint(1, max(1, run.version)), "ann")

    def _pause(self, run: Run, luck: Random) -> s.Stimulus:
        return s.PauseRequested(self.world.new_reply(), run.ix, "ann")

    def _resume(self, run: Run, luck: Random) -> s.Stimulus:
        return s.PauseRequested(self.world.new_reply(), run.ix, "ann", resume=True)

    def _approve(self, run: Run, luck: Random) -> s.Stimulus:
        return s.ApprovalDecided(self.world.new_reply(), run.ix, "", "ann", True)

    def _reject(self, run: Run, luck: Random) -> s.Stimulus:
        return s.ApprovalDecided(self.world.new_reply(), run.ix, "", "ann", False, "no")

    def _answer(self, run: Run, luck: Random) -> s.Stimulus | None:
        task = _one(luck, [task for task in run.tasks if type(task.state) is Waiting])
        if task is None:
            return None
        return s.AnswerGiven(self.world.new_reply(), run.ix, run.name_of(task), "ann", b"41")

    def _resolve(self, run: Run, luck: Random) -> s.Stimulus | None:
        task = _one(luck, [task for task in run.tasks if type(task.state) is Unknown])
        return self._resolved(run, run.name_of(task), luck) if task is not None else None

    def _drain(self, run: Run, luck: Random) -> s.Stimulus:
        return s.DrainAsked(self.world.new_reply(), f"w{luck.randint(1, 4)}", luck.choice([0.5, 5.0]))

    def _fork(self, run: Run, luck: Random) -> s.Stimulus | None:
        if len(self.world.state.runs) > 1 or not run.version:
            return None
        return s.ForkRequested(self.world.new_reply(), run.ix, -1, "ann")

    def _again(self, run: Run, luck: Random) -> None:
        self.submit()

    # Planners

    def plan(self, command: c.StartPlanner, later: Callable[[float, Callable[[], None]], None]) -> None:
        """Answer a planner call as the schedule says. `later`: within this life of the orchestrator."""
        self._calls += 1
        how = self.schedule.planner[self._calls % len(self.schedule.planner)]
        luck = Random(f"{self.schedule.seed} {self._calls}")
        if how == "silent":
            return
        delay = luck.choice([0.05, 0.5, 2.0])
        run = self.world.state.runs.get(command.run)
        call = run.calls.get(command.call) if run is not None else None
        if call is None:
            return  # it was over before it was on disk
        if call.kind == "next":
            patches = self._sub_plan(how, command, luck)
        else:
            patches = self._first_plan(how) if call.kind == "plan" else self._replan(how, command, luck)
        for patch in patches:
            later(delay, lambda patch=patch: self.world.handle(s.PatchProposed(0, command.run, patch, command.call)))  # type: ignore[misc]
            delay += 0.05
        outcome = "failed" if how == "fails" else "complete"
        later(delay, lambda: self.world.handle(s.PlanFinished(command.run, command.call, outcome, "", 10, 5)))

    def _first_plan(self, how: str) -> list[Patch]:
        tasks = self.first.tasks
        parts = [Patch("planner", tasks[at : at + 3]) for at in range(0, len(tasks), 3)]
        if how == "garbage":
            parts.insert(1, Patch("planner", (TaskSpec("g", "no.such", b'{"value":{"ref":"nobody"}}'),)))
        return parts

    def _sub_plan(self, how: str, command: c.StartPlanner, luck: Random) -> list[Patch]:
        """Of a plan.next task: two tasks of its fact; then more, once more, or nothing."""
        failed = command.digest.failed if command.digest is not None else ()
        if how in ("fails", "gives up") or (command.digest is not None and not failed and how != "adds"):
            return [Patch("planner", edits=(Edit("give_up", name),)) for name in failed]
        if how in ("garbage", "cycle"):
            return [Patch("planner", (TaskSpec("s9", "no.such", b'{"value":{"ref":"nobody"}}'),))]
        if failed and how == "retries":
            return [Patch("planner", edits=tuple(Edit("retry", name) for name in failed))]
        first = TaskSpec(f"s{luck.choice([0, 0, 5])}", luck.choice(["sim.work", "sim.idem", "sim.once"]),
                         canonical({"value": [{"ref": "input/x"}, luck.randrange(9)], "run_s": 0.05}))  # fmt: skip
        then = TaskSpec(f"t{luck.randrange(9)}", "sim.work", canonical({"value": {"ref": first.id}, "run_s": 0.05}))
        return [Patch("planner", (first,)), Patch("planner", (then,))]

    def _replan(self, how: str, command: c.StartPlanner, luck: Random) -> list[Patch]:
        assert command.digest is not None
        base, failed = command.digest.base, command.digest.failed
        run = self.world.state.runs[command.run]
        if how == "retries":
            return [Patch("planner", edits=(Edit("retry", name),), base=base) for name in failed]
        if how == "gives up":
            return [Patch("planner", edits=(Edit("give_up", name),), base=base) for name in failed]
        if how == "fails":
            return []
        if how == "garbage":
            return [Patch("planner", (TaskSpec("g", "no.such", b'{"value":{"ref":"nobody"}}'),), base=base)]
        if how == "cycle":
            pairs = [(task.spec.id, name) for task in run.roots() for name in failed if task.spec.id != name]
            return [Patch("planner", links=tuple(pairs[:2]), base=base)]
        skill = ("sim.work", "sim.other", "sim.once")[self._calls % 3]  # some of them are not in the plan
        spec = TaskSpec(f"p{luck.randrange(100)}", skill, canonical({"value": luck.randrange(100)}))
        return [Patch("planner", (spec,), base=base - (how == "stale"), relies=failed)]


def editable(task: Task) -> bool:
    """What a person sees as not begun."""
    if isinstance(task.state, Settled):
        return task.state.open
    return type(task.state) in _EDITABLE and not task.attempts


def other(task: Task, luck: Random) -> TaskSpec:
    """The same task with another argument."""
    args = msgspec.json.decode(task.spec.args)
    if "goal" in args:
        return msgspec.structs.replace(task.spec, args=canonical(args | {"goal": f"more {luck.randrange(9)}"}))
    if "value" not in args:
        return msgspec.structs.replace(task.spec, args=canonical({"items": [luck.randrange(9)]}))
    value = args["value"]
    args["value"] = [luck.randrange(100, 200), *value[1:]] if isinstance(value, list) else value
    return msgspec.structs.replace(task.spec, args=canonical(args), label=f"v{luck.randrange(100)}")


def _one(luck: Random, found: list[Any]) -> Any:
    return luck.choice(found) if found else None


_ACTS: Final[dict[str, Callable[[SimulatedPeople, Run, Random], s.Stimulus | None]]] = {
    "replace": SimulatedPeople._replace,
    "add": SimulatedPeople._add,
    "stale": SimulatedPeople._stale,
    "touch": SimulatedPeople._touch,
    "cycle": SimulatedPeople._cycle,
    "link": SimulatedPeople._link,
    "unlink": SimulatedPeople._unlink,
    "remove": SimulatedPeople._edit,
    "edits": SimulatedPeople._edits,
    "finish": SimulatedPeople._finish,
    "cancel": SimulatedPeople._cancel,
    "cancel_run": SimulatedPeople._cancel_run,
    "undo": SimulatedPeople._undo,
    "pause": SimulatedPeople._pause,
    "resume": SimulatedPeople._resume,
    "approve": SimulatedPeople._approve,
    "reject": SimulatedPeople._reject,
    "answer": SimulatedPeople._answer,
    "resolve": SimulatedPeople._resolve,
    "drain": SimulatedPeople._drain,
    "fork": SimulatedPeople._fork,
    "again": SimulatedPeople._again,
}
