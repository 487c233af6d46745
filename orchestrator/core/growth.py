"""How a graph grows: patches place and wire tasks, maps expand, and tasks whose upstreams are final arrive.

A part of `State`: appliers of events, nothing is decided. `due` and `fresh` are what follows for the machine.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from protocol.patch import Patch
from protocol.task import AnyRef, TaskSpec, references_of

from . import event as e
from .graph import (
    LATER,
    PERSON,
    PLANNED,
    UNWIRED,
    Expected,
    Run,
    Spawned,
    Spread,
    Task,
    Version,
    Wiring,
    is_map,
    wire,
    would_cycle,
)
from .lifecycle import EXPANDED, PENDING, TASK, Pending, Ready, next_state
from .planner_call import PlannerCall

_READY = Ready()


def origins_of(run: Run, event: e.PatchAccepted) -> Callable[[str], int]:
    """Who wrote each task of the patch, by name."""
    if event.patch.author.startswith("person"):
        author = PERSON
    else:
        author = PLANNED if event.patch.author == "planner" and not run.planned else LATER
    written = dict(event.written)
    return lambda name: written.get(name, author)


def _note(run: Run, call: PlannerCall, event: e.PatchAccepted, new: range) -> None:
    """What the call has made so far."""
    patch = event.patch
    if call.kind == "review" and not call.versions:
        run.rounds += 1
    if event.version not in call.versions:
        call.versions.append(event.version)
    call.added.extend(new)
    call.edits += edits_in(patch, len(patch.tasks) - len(new))
    removed = any(edit.op == "remove" for edit in patch.edits)
    call.changed = call.changed or removed or bool(patch.tasks or patch.links or patch.unlinks)


def edits_in(patch: Patch, replaced: int) -> int:
    """How many changes to what was there before the patch is."""
    return replaced + len(patch.edits) + len(patch.links) + len(patch.unlinks)


class Growth:
    """See the module."""

    def __init__(self) -> None:
        self.runs: dict[int, Run] = {}
        self.fresh: list[tuple[int, int]] = []
        """Derived: (run, task) that became ready."""
        self.due: list[tuple[int, int]] = []
        """Derived: tasks for the machine to decide on (conditions, expansions, completed maps and joins)."""
        self._read: dict[bytes, tuple[AnyRef, ...]] = {}

    def references(self, args: bytes) -> tuple[AnyRef, ...]:
        """Those of a task's encoded arguments; a patch is checked and then wired, and read once."""
        if b'"ref"' not in args:
            return ()
        found = self._read.get(args)
        if found is None:
            found = self._read[args] = references_of(args)
        return found

    def forget_references(self) -> None:
        """The patch they were of is accepted, or refused."""
        self._read.clear()

    def _patch_accepted(self, event: e.PatchAccepted) -> None:
        run, patch = self.runs[event.run], event.patch
        if not run.versions or run.versions[-1].number != event.version:
            run.versions.append(Version(event.version, patch.author, patch.why, [], event.at))
        run.versions[-1].patches.append(patch)
        for pin, value in event.reused:
            run.reuse[pin] = value
        parent = run.find(patch.parent) if patch.parent else None
        plan = parent.plan if parent is not None else None
        if patch.outputs is not None and plan is not None:
            plan.outputs = patch.outputs
        elif patch.outputs is not None:
            run.outputs = patch.outputs
        before = len(run.tasks)
        touched = []
        origins = origins_of(run, event)
        for spec in patch.tasks:
            task = self._place(run, spec, event.version, parent, event.key)
            task.origin = origins(spec.id)
            touched.append(task)
        if event.call in run.calls:
            _note(run, run.calls[event.call], event, range(before, len(run.tasks)))
        for up, down in patch.links:
            task = run.tasks[run.names[down]]
            if up in task.spec.after:
                continue  # wired already: once more would count it twice
            self._respec(run, task, msgspec.structs.replace(task.spec, after=(*task.spec.after, up)))
            task.version = event.version
            touched.append(task)
        for up, down in patch.unlinks:
            task = run.tasks[run.names[down]]
            after = tuple(name for name in task.spec.after if name != up)
            self._respec(run, task, msgspec.structs.replace(task.spec, after=after))
            task.version = event.version
            touched.append(task)
        for ix in dict.fromkeys(task.ix for task in touched):
            self._connect(run, run.tasks[ix], event.at)
        self.forget_references()
        self._rank(run, [task.ix for task in touched if task.wiring is not UNWIRED])

    def _place(self, run: Run, spec: TaskSpec, version: int, parent: Task | None, key: str) -> Task:
        owner = parent if parent is not None and parent.plan is not None else None
        parent = parent if owner is None else None
        if parent is None and spec.id in run.names:
            task = run.tasks[run.names[spec.id]]
            self._respec(run, task, spec)
            task.version = version
            return task
        ix = len(run.tasks)
        task = Task(ix=ix, spec=spec, version=version)
        if parent is None:
            run.names[spec.id] = ix
            if owner is not None and owner.plan is not None:
                task.owner = owner.ix
                owner.plan.tasks.append(ix)
                owner.plan.open += 1
        else:
            spawned = parent.spawned = parent.spawned or Spawned()
            task.parent, task.k = parent.ix, len(spawned.children)
            task.key = key or str(task.k)
            spawned.children[task.key] = ix
            run.spawned += 1
        run.tasks.append(task)
        run.order.append(ix)
        run.rank.append(0.0)
        run.unsettled += 1
        return task

    def _respec(self, run: Run, task: Task, spec: TaskSpec) -> None:
        for up in task.wiring.upstreams():
            down = run.tasks[up].down
            if down and task.ix in down:
                down.remove(task.ix)
        for up in task.wiring.chain:
            chained = run.tasks[up].chained
            if chained and task.ix in chained:
                chained.remove(task.ix)
        # Its downstreams go on counting it: an open failure was as little final as a task that never ran.
        task.spec, task.state, task.wiring, task.judged = spec, PENDING, Wiring(), False
        task.alt = task.tries = 0
        task.cancelling, task.stop_code, task.approved = False, "", b""
        task.spread = task.plan = None

    def _connect(self, run: Run, task: Task, at: float) -> None:
        task.wiring = wiring = wire(task.spec, self.references(task.spec.args), run.names, run.tasks)
        task.waits = 0
        order = run.order
        for up in wiring.upstreams():
            source = run.tasks[up]
            if order[up] >= order[task.ix] and would_cycle(run, up, task.ix):
                raise AssertionError(f"G1: {run.name_of(source)} -> {run.name_of(task)} closes a cycle")
            source.down = source.down if source.down is not None else []
            source.down.append(task.ix)
            task.waits += not source.final
        for up in wiring.chain:
            source = run.tasks[up]
            if would_cycle(run, up, task.ix):
                raise AssertionError(f"G1: {run.name_of(source)} -> {run.name_of(task)} closes a cycle")
            source.chained = source.chained if source.chained is not None else []
            source.chained.append(task.ix)
            task.waits += not (source.final or source.spread)
        if not task.waits:
            self._arrive(run, task, at)

    def _rank(self, run: Run, touched: list[int]) -> None:
        # Upward rank in hops: how much still hangs on a task. New tasks come downstream first; of older ones only
        # those whose maximum moved are visited.
        stack = sorted(touched, key=lambda ix: run.order[ix])
        while stack:
            ix = stack.pop()
            task, need = run.tasks[ix], run.rank[ix] + 1.0
            for up in (*task.wiring.needs, *task.wiring.chain, *task.wiring.after, *task.wiring.when):
                if run.rank[up] < need:
                    run.rank[up] = need
                    if run.tasks[up].version != task.version:
                        stack.append(up)

    def _map_expanded(self, event: e.MapExpanded) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        task.state = EXPANDED
        count = len(event.workers) if event.workers else -(-event.items // event.chunk)
        first = len(run.tasks)
        spread = task.spread = Spread(first, count, event.items, event.chunk, left=count)
        rank = run.rank[task.ix]
        children = []
        for k in range(count):
            child = Task(ix=first + k, spec=task.spec, version=task.version, parent=task.ix, k=k, wiring=task.wiring)
            if event.workers:
                child.at = event.workers[k]
            children.append(child)
        run.tasks.extend(children)
        run.order.extend(range(first, first + count))
        run.rank.extend([rank] * count)
        run.unsettled += count
        for child in children:
            for up in self.elements(run, child):
                source = run.tasks[up]
                if not source.final:
                    source.down = source.down if source.down is not None else []
                    source.down.append(child.ix)
                    child.waits += 1
            if not child.waits:
                self._arrive(run, child, event.at)
        for ix in task.chained or ():
            self._release(run, ix, event.at)
        if not spread.left:
            self.due.append((run.ix, task.ix))

    def elements(self, run: Run, child: Task) -> list[int]:
        """The upstream children that feed this child of a map, element by element."""
        parent = run.tasks[child.parent]
        if not parent.wiring.chain or parent.spread is None:
            return []
        found: list[int] = []
        low = child.k * parent.spread.chunk
        high = min(low + parent.spread.chunk, parent.spread.items)
        for up in parent.wiring.chain:
            spread = run.tasks[up].spread
            if spread is not None and high > low:
                found.extend(spread.first + n for n in range(low // spread.chunk, (high - 1) // spread.chunk + 1))
        return found

    def _run_foreseen(self, event: e.RunForeseen) -> None:
        self.runs[event.run].expected = Expected(
            event.policy, event.makespan_s, event.low_s, event.high_s, event.price, event.energy_j
        )

    def _when_judged(self, event: e.WhenJudged) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        task.judged = True
        if event.held:
            self._arrive(run, task, event.at)

    def _release(self, run: Run, ix: int, at: float) -> None:
        task = run.tasks[ix]
        task.waits -= 1
        if not task.waits and type(task.state) is Pending:
            self._arrive(run, task, at)

    def _arrive(self, run: Run, task: Task, at: float) -> None:
        """All upstreams are final: ready at once if nothing is left to decide, else due for the machine."""
        wiring = task.wiring
        plain = wiring is UNWIRED and not task.spec.on and not task.spec.when
        if task.parent < 0 and not plain and (is_map(task) or (not task.judged and self._to_judge(run, task))):
            self.due.append((run.ix, task.ix))
            return
        if task.parent >= 0 and wiring.chain and not all(run.tasks[ix].succeeded for ix in self.elements(run, task)):
            self.due.append((run.ix, task.ix))
            return
        task.state, task.ready_at = _READY, at
        self.fresh.append((run.ix, task.ix))

    @staticmethod
    def _to_judge(run: Run, task: Task) -> bool:
        wiring, tasks = task.wiring, run.tasks
        if task.spec.when or wiring.firsts:
            return True
        for ix in wiring.needs:
            if not tasks[ix].succeeded:
                return True
        return not all(tasks[ix].succeeded for ix in wiring.ons) or any(tasks[ix].bad for ix in wiring.after)

    @staticmethod
    def _enter(run: Run, task: Task, event: e.Event) -> None:
        if (type(task.state), type(event)) not in TASK:
            next_state(TASK, task.state, event, f"{run.name}/{run.name_of(task)} with {task.attempts} got {event}")
