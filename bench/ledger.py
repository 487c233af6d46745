"""What the journal says, read by somebody who does not trust the core: names, versions, attempts, ends.

A fold over committed events only, so a crash takes nothing back. It keeps its own books and shares none of the
core's: what `bench.witness` holds the core to is what stands here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from orchestrator.core import event as e
from protocol.ids import Fence
from protocol.patch import Patch
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


class Ledger:
    """`note` every committed event, in order. Raises: AssertionError for one that must not be."""

    def __init__(self) -> None:
        self.runs: dict[int, RunRecord] = {}
        self.attempts: dict[Key, AttemptRecord] = {}

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
                _again(task)
                continue
            name = spec.id if not patch.parent or own else f"{patch.parent}.{event.key}"
            run.names[name] = len(run.tasks)
            parent = run.names[patch.parent] if patch.parent and not own else -1
            run.tasks.append(TaskRecord(name, spec, event.version, parent, skill=spec.skill))
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
            run.names[child.name] = len(run.tasks)
            run.tasks.append(child)

    def _dispatched(self, event: e.AttemptDispatched) -> None:
        key = (event.run, event.task, event.number)
        assert key not in self.attempts, f"the number of {key} was given twice"
        self.attempts[key] = AttemptRecord(event.worker, event.fence, event.pin)
        task = self.task(event)
        assert not task.settled, f"{task.name} was dispatched again though it is {task.settled}"
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
        task.allowed = task.began + 1

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
