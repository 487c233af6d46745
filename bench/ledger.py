"""What the journal says, read by somebody who does not trust the core: names, versions, attempts, ends.

A fold over committed events only, so a crash takes nothing back. It keeps its own books and shares none of the
core's: what `bench.witness` holds the core to is what stands here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from orchestrator.core import event as e
from orchestrator.core.graph import LATER
from protocol.builtin import BUILTINS
from protocol.ids import Fence
from protocol.patch import Patch
from protocol.profile import Policies, ruling
from protocol.skill import SkillSpec
from protocol.task import FirstOf, Output, Ref, TaskSpec, references

Key = tuple[int, int, int]
"""(run, task, attempt number)"""


class TaskRecord(msgspec.Struct):
    """One task by its place. `settled`: "" while it is open; `open_`: a failure that may still be retried."""

    name: str
    spec: TaskSpec
    version: int
    parent: int = -1
    settled: str = ""
    open_: bool = False
    winner: int = 0
    value: Any = None
    attempted: bool = False
    cancelled: bool = False
    unknown: bool = False
    began: int = 0
    """Effects that may have happened."""
    allowed: int = 1
    """Effects that may happen: one, and one more each time a person or a planner says so."""
    first: int = -1
    count: int = 0
    chunk: int = 1
    items: int = 0
    skill: str = ""
    approved: bytes = b""
    by_person: bool = False
    above: int = -1
    """Who spawned it, or had it planned."""


class AttemptRecord(msgspec.Struct):
    """One attempt. `ended`: "" while live."""

    worker: int
    fence: Fence
    pin: bytes
    ended: str = ""
    began: bool = False


class RunRecord(msgspec.Struct):
    """One run."""

    tasks: list[TaskRecord] = []
    names: dict[str, int] = {}
    inputs: dict[str, bytes] = {}
    outputs: tuple[Output, ...] = ()
    settled: str = ""
    authors: dict[int, int] = {}
    """Version -> the planner call that made it, 0: none."""
    envelope: set[str] = set()
    """Skills of the first plan and of persons, and what those say they spawn."""
    plans: set[int] = set()
    """Calls for the first plan."""
    planned: bool = False
    partial: bool = False


class Ledger:
    """`note` every committed event, in order. Raises: AssertionError for one that must not be."""

    def __init__(self) -> None:
        self.runs: dict[int, RunRecord] = {}
        self.attempts: dict[Key, AttemptRecord] = {}
        self.skills: dict[str, SkillSpec] = {one.name: one for one in BUILTINS if one.place == "engine"}
        self.policies: Policies = ()

    def note(self, event: Any) -> None:
        act = _NOTE.get(type(event))
        if act is not None:
            act(self, event)

    def task(self, event: Any) -> TaskRecord:
        """The task an event is about."""
        found: TaskRecord = self.runs[event.run].tasks[event.task]
        return found

    def _submitted(self, event: e.RunSubmitted) -> None:
        self.runs[event.run] = RunRecord(inputs=dict(event.inputs))

    def _removed(self, event: e.RunRemoved) -> None:
        self.runs.pop(event.run, None)

    def _patched(self, event: e.PatchAccepted) -> None:
        run, patch = self.runs[event.run], event.patch
        if patch.base >= 0:
            for name in _named(patch):
                at = run.names.get(name)
                version = run.tasks[at].version if at is not None else 0
                mine = event.call > 0 and event.call == run.authors.get(version)  # an earlier part of the same call
                assert version <= patch.base or mine, (
                    f"a patch written against version {patch.base} was accepted though {name} is of version {version}"
                )
        run.authors.setdefault(event.version, event.call)
        self._trusted(run, event)
        own = bool(patch.parent) and not event.key  # a sub-plan: its tasks are roots, its outputs its own
        if patch.outputs is not None and not own:
            run.outputs = patch.outputs
        touched = {spec.id for spec in patch.tasks if not patch.parent} | {
            down for _, down in (*patch.links, *patch.unlinks)
        }
        for name in sorted(touched & run.names.keys()):
            self._editable(run.tasks[run.names[name]], patch)
        for spec in patch.tasks:
            if (own or not patch.parent) and spec.id in run.names:
                task = run.tasks[run.names[spec.id]]
                task.spec, task.skill, task.version = spec, spec.skill, event.version
                task.by_person = patch.author.startswith("person")
                _again(task)
                continue
            name = spec.id if not patch.parent or own else f"{patch.parent}.{event.key}"
            run.names[name] = len(run.tasks)
            above = run.names[patch.parent] if patch.parent else -1
            task = TaskRecord(name, spec, event.version, -1 if own else above, skill=spec.skill, above=above)
            task.by_person = patch.author.startswith("person")
            run.tasks.append(task)
        for up, down in patch.links:
            task = run.tasks[run.names[down]]
            if up not in task.spec.after:
                task.spec = msgspec.structs.replace(task.spec, after=(*task.spec.after, up))
                task.version = event.version
                _again(task)
        for up, down in patch.unlinks:
            task = run.tasks[run.names[down]]
            task.spec = msgspec.structs.replace(task.spec, after=tuple(one for one in task.spec.after if one != up))
            task.version = event.version
            _again(task)

    def _trusted(self, run: RunRecord, event: e.PatchAccepted) -> None:
        """What the patch adds to the envelope: all that a person wrote, and what is a part of the first plan."""
        restored = {name for name, origin in event.written if origin == LATER}
        person = event.patch.author.startswith("person")
        first = event.patch.author == "planner" and not run.planned and event.call in run.plans
        names = [
            name
            for spec in event.patch.tasks
            if (person or first) and spec.id not in restored
            for name in (spec.skill, *spec.alt)
        ]
        while names:
            name = names.pop()
            if name not in run.envelope:
                run.envelope.add(name)
                spawns = self.skills[name].spawns
                names.extend(() if isinstance(spawns, bool) else (one for one in spawns if one[0] != "@"))

    def _announced(self, event: e.SkillsAnnounced) -> None:
        self.skills |= {one.name: one for one in event.skills}

    def _called(self, event: e.PlannerCallOpened) -> None:
        if event.kind == "plan":
            self.runs[event.run].plans.add(event.call)

    def _plan_closed(self, event: e.PlanClosed) -> None:
        run = self.runs[event.run]
        run.planned, run.partial = True, event.partial

    def _may(self, run: RunRecord, task: TaskRecord, event: e.AttemptDispatched) -> None:
        """Nothing acts before the plan is whole, nothing outside it without a person."""
        once = "once" in (self.skills[event.skill].effect, task.spec.effect)
        assert run.planned or not once, f"{task.name} acts once, and was dispatched before the plan was whole"
        inside = event.skill in run.envelope or event.skill.startswith("flow.") or self._is_tool(run, task, event.skill)
        inside = inside or ruling(self.policies, event.skill) == "allow"
        assert inside or event.pin == task.approved, (
            f"{task.name} ({event.skill}) is outside the plan: nobody allowed it"
        )
        allowed = task.by_person or event.pin == task.approved
        assert not (run.partial and once) or allowed, f"{task.name} acts once, of a plan that is not whole"

    def _is_tool(self, run: RunRecord, task: TaskRecord, skill: str) -> bool:
        """The task that spawned it was given this skill by name."""
        parent = run.tasks[task.above].spec if task.above >= 0 else None
        spawns = self.skills[parent.skill].spawns if parent is not None else False
        if parent is None or isinstance(spawns, bool):
            return False
        args = msgspec.json.decode(parent.args)
        return any(skill in args.get(one[1:], ()) for one in spawns if one[0] == "@")

    @staticmethod
    def _editable(task: TaskRecord, patch: Patch) -> None:
        running = task.attempted and not task.open_
        assert not running, f"a patch by {patch.author} changed {task.name}, which had been dispatched"
        assert not task.settled or task.open_, f"a patch by {patch.author} changed {task.name}, which was settled"

    def _expanded(self, event: e.MapExpanded) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        task.count = len(event.workers) if event.workers else -(-event.items // event.chunk)
        task.first, task.chunk, task.items = len(run.tasks), event.chunk, event.items
        for k in range(task.count):
            child = TaskRecord(f"{task.name}.{k}", task.spec, task.version, event.task, skill=task.spec.skill)
            child.by_person, child.above = task.by_person, task.above
            run.names[child.name] = len(run.tasks)
            run.tasks.append(child)

    def _dispatched(self, event: e.AttemptDispatched) -> None:
        key = (event.run, event.task, event.number)
        assert key not in self.attempts, f"the number of {key} was given twice"
        self.attempts[key] = AttemptRecord(event.worker, event.fence, event.pin)
        task = self.task(event)
        assert not task.settled, f"{task.name} was dispatched again though it is {task.settled}"
        self._may(self.runs[event.run], task, event)
        task.attempted, task.skill = True, event.skill

    def _ended(self, event: e.AttemptEnded) -> None:
        attempt = self.attempts[event.run, event.task, event.number]
        assert attempt.ended in ("", "lost"), f"attempt {event} ended twice"
        attempt.ended = "lost" if event.lost else type(event.outcome).__name__

    def _requeued(self, event: e.TaskRequeued) -> None:
        task = self.task(event)
        assert not task.settled or task.open_, f"{task.name} runs again though it is {task.settled}"
        if task.count:
            for child in self.runs[event.run].tasks[task.first : task.first + task.count]:
                if child.settled != "succeeded":
                    _again(child)
        _again(task)

    def _approved(self, event: e.ApprovalGiven) -> None:
        task = self.task(event)
        task.allowed, task.approved = task.began + 1, event.pin

    def _settled(self, event: e.TaskSettled) -> None:
        task = self.task(event)
        assert not task.settled, f"{task.name} was {task.settled}, then {event.state}"
        task.settled, task.open_, task.winner, task.unknown = event.state, event.open, event.winner, False

    def _dealt_with(self, event: e.FailureSettled) -> None:
        self.task(event).open_ = False

    def _effect(self, event: e.EffectBegun) -> None:
        self.attempts[event.run, event.task, event.number].began = True

    def _unknown(self, event: e.TaskUnknown) -> None:
        self.task(event).unknown = True

    def _cancelled(self, event: e.CancelAsked) -> None:
        run = self.runs[event.run]
        for task in run.tasks if event.task < 0 else [run.tasks[event.task]]:
            task.cancelled = True

    def _run_settled(self, event: e.RunSettled) -> None:
        run = self.runs[event.run]
        assert not run.settled, f"r{event.run} was settled twice"
        run.settled = event.state


def _again(task: TaskRecord) -> None:
    """It may run again: a failure or an effect of unknown outcome, because somebody says so."""
    if task.unknown or task.settled:
        task.allowed = task.began + 1
    task.unknown, task.settled, task.open_ = False, "", False


def _named(patch: Patch) -> Iterable[str]:
    """Whom the patch touches or relies on."""
    yield from patch.relies
    yield from (edit.id for edit in patch.edits if edit.id)
    yield from (name for pair in (*patch.links, *patch.unlinks) for name in pair)
    for spec in patch.tasks:
        yield spec.id
        yield from spec.after
        yield from (line.ref.source for line in spec.when)
        for ref in references(msgspec.json.decode(spec.args)):
            yield from (one.source for one in (ref.refs if isinstance(ref, FirstOf) else (ref,)))
        yield from (word.source for word in spec.on if isinstance(word, Ref))


_NOTE: dict[type, Any] = {
    e.RunSubmitted: Ledger._submitted,
    e.RunRemoved: Ledger._removed,
    e.SkillsAnnounced: Ledger._announced,
    e.PlannerCallOpened: Ledger._called,
    e.PlanClosed: Ledger._plan_closed,
    e.PatchAccepted: Ledger._patched,
    e.MapExpanded: Ledger._expanded,
    e.AttemptDispatched: Ledger._dispatched,
    e.AttemptEnded: Ledger._ended,
    e.TaskRequeued: Ledger._requeued,
    e.ApprovalGiven: Ledger._approved,
    e.TaskSettled: Ledger._settled,
    e.FailureSettled: Ledger._dealt_with,
    e.EffectBegun: Ledger._effect,
    e.TaskUnknown: Ledger._unknown,
    e.CancelAsked: Ledger._cancelled,
    e.RunSettled: Ledger._run_settled,
}
