"""The durable state: everything the orchestrator knows that must survive it. One mutator, `State.apply(event)`.

Live and in recovery the same events in the same order make the same state, byte for byte (`snapshot`). Counters and
lists that follow from the rest (`waits`, `due`, `fresh`, `live`) are kept here too, so that a settled task costs its
downstreams one decrement each. This module decides nothing and knows no fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from protocol.builtin import BUILTINS
from protocol.outcome import Failure, Stopped, Success
from protocol.profile import Policy
from protocol.resource import Resources
from protocol.skill import SkillSpec
from protocol.task import TaskSpec

from . import event as e
from .graph import Attempt, PlannerCall, Run, Spawned, Spread, Task, Version, Wiring, is_map, wire, would_cycle
from .invariant import check_run
from .lifecycle import (
    EXPANDED,
    OPEN,
    PAUSED,
    PENDING,
    RUN,
    RUNNING,
    TASK,
    AwaitingApproval,
    Closed,
    Pending,
    Ready,
    Settled,
    Unknown,
    Waiting,
    next_state,
)


class WorkerRecord(msgspec.Struct, array_like=True):
    """An enrolled identity and what it last announced."""

    ix: int
    name: str
    secret_hash: str
    serves: str = ""
    gone: bool = False
    skills: dict[str, str] = {}
    """Skill name -> digest of the contract it announced."""
    labels: dict[str, str] = {}
    devices: tuple[str, ...] = ()
    capacity: Resources = Resources(cpu=0)
    policies: tuple[tuple[str, Policy], ...] = ()


class _Head(msgspec.Struct, array_like=True):
    epoch: int
    journal: str
    runs_made: int
    workers: dict[int, WorkerRecord]
    catalog: dict[str, SkillSpec]
    keys: dict[str, int]
    digests: dict[str, str]


_ENCODER = msgspec.msgpack.Encoder()
_HEAD = msgspec.msgpack.Decoder(_Head)
_RUN = msgspec.msgpack.Decoder(Run)


class State:
    """See the module. `live` and `fresh` are derived: live attempts by worker, tasks that became ready."""

    def __init__(self, epoch: int = 0, journal: str = "") -> None:
        self.epoch = epoch
        self.journal = journal
        self.runs: dict[int, Run] = {}
        self.runs_made = 0
        self.workers: dict[int, WorkerRecord] = {}
        self.catalog: dict[str, SkillSpec] = {}
        """Digest -> every contract ever announced (and not forgotten with the last worker of it)."""
        self.digests: dict[str, str] = {}
        """Skill name -> the digest that runs pin: what most workers announce, the newest on a tie."""
        for skill in BUILTINS:
            digest = skill.digest()
            self.catalog[digest] = skill
            self.digests[skill.name] = digest
        self.keys: dict[str, int] = {}
        self.live: dict[int, dict[tuple[int, int, int], None]] = {}
        self.fresh: list[tuple[int, int]] = []
        self.due: list[tuple[int, int]] = []
        """Derived: tasks for the machine to decide on (conditions, expansions, completed maps and joins)."""
        self.changed: set[int] = set()
        """Parts (0, or a run) changed since the last `snapshot`."""
        self._appliers: dict[type, Callable[[Any], None]] = {
            kind: getattr(self, "_" + "".join("_" + c.lower() if c.isupper() else c for c in kind.__name__).lstrip("_"))
            for kind in e.Event.__args__
        }

    def apply(self, event: e.Event) -> None:
        """The only way state changes. Raises: InvalidTransition, KeyError for an unknown event."""
        self.changed.add(getattr(event, "run", 0))
        self._appliers[type(event)](event)

    # The orchestrator and its fleet

    def _epoch_started(self, event: e.EpochStarted) -> None:
        self.epoch, self.journal = event.epoch, event.journal

    def _worker_enrolled(self, event: e.WorkerEnrolled) -> None:
        self.workers[event.worker] = WorkerRecord(event.worker, event.name, event.secret_hash, event.serves)

    def _worker_forgotten(self, event: e.WorkerForgotten) -> None:
        record = self.workers[event.worker]
        record.gone, record.secret_hash = True, ""
        record.skills = {}
        self._elect()

    def _skills_announced(self, event: e.SkillsAnnounced) -> None:
        record = self.workers[event.worker]
        record.labels, record.devices, record.capacity = event.labels, event.devices, event.capacity
        record.policies = event.policies
        record.skills = {}
        for skill in event.skills:
            digest = skill.digest()
            self.catalog[digest] = skill
            record.skills[skill.name] = digest
        self._elect()

    def _elect(self) -> None:
        votes: dict[str, dict[str, int]] = {}
        for record in self.workers.values():
            for name, digest in record.skills.items():
                counts = votes.setdefault(name, {})
                counts[digest] = counts.get(digest, 0) + 1
        for name, counts in votes.items():
            order = list(self.catalog)
            self.digests[name] = max(counts, key=lambda digest: (counts[digest], order.index(digest)))

    def skill(self, name: str) -> SkillSpec | None:
        """The contract of `name` that runs use; None if nobody ever announced it."""
        digest = self.digests.get(name)
        return self.catalog[digest] if digest else None

    # Runs and graphs

    def _run_submitted(self, event: e.RunSubmitted) -> None:
        self.runs_made = max(self.runs_made, event.run)
        self.runs[event.run] = Run(
            ix=event.run,
            request=event.request,
            key=event.key,
            author=event.author,
            settings=event.settings,
            inputs=event.inputs,
            home=event.home,
            submitted_at=event.at,
            fork_of=event.fork_of,
            labels=event.labels,
        )
        if event.key:
            self.keys[event.key] = event.run
        self.changed.add(0)

    def _patch_accepted(self, event: e.PatchAccepted) -> None:
        run, patch = self.runs[event.run], event.patch
        if not run.versions or run.versions[-1].number != event.version:
            run.versions.append(Version(event.version, patch.author, patch.why, [], event.at))
        run.versions[-1].patches.append(patch)
        for pin, value in event.reused:
            run.reuse[pin] = value
        if patch.outputs is not None:
            run.outputs = patch.outputs
        parent = run.find(patch.parent) if patch.parent else None
        touched = [self._place(run, spec, event.version, parent, event.key) for spec in patch.tasks]
        for up, down in patch.links:
            task = run.tasks[run.names[down]]
            self._respec(run, task, msgspec.structs.replace(task.spec, after=(*task.spec.after, up)))
            touched.append(task)
        for up, down in patch.unlinks:
            task = run.tasks[run.names[down]]
            after = tuple(name for name in task.spec.after if name != up)
            self._respec(run, task, msgspec.structs.replace(task.spec, after=after))
            touched.append(task)
        for ix in dict.fromkeys(task.ix for task in touched):
            self._connect(run, run.tasks[ix], event.at)
        self._rank(run, [task.ix for task in touched])

    def _place(self, run: Run, spec: TaskSpec, version: int, parent: Task | None, key: str) -> Task:
        if parent is None and spec.id in run.names:
            task = run.tasks[run.names[spec.id]]
            self._respec(run, task, spec)
            task.version = version
            return task
        ix = len(run.tasks)
        task = Task(ix=ix, spec=spec, version=version)
        if parent is None:
            run.names[spec.id] = ix
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
        if task.final or type(task.state) is Settled:
            run.unsettled += 1
        task.spec, task.state, task.wiring, task.judged = spec, PENDING, Wiring(), False
        task.alt = task.tries = 0

    def _connect(self, run: Run, task: Task, at: float) -> None:
        task.wiring = wiring = wire(task.spec, run.names, run.tasks)
        task.waits = 0
        for up in wiring.upstreams():
            source = run.tasks[up]
            if would_cycle(run, up, task.ix):
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

    def _patch_refused(self, event: e.PatchRefused) -> None:
        pass

    def _plan_closed(self, event: e.PlanClosed) -> None:
        run = self.runs[event.run]
        run.planned = True
        self.fresh.extend((run.ix, task.ix) for task in run.tasks if type(task.state) is Ready)
        run.plan_error = (event.code, event.message)

    def _file_pinned(self, event: e.FilePinned) -> None:
        self.runs[event.run].files[event.uri] = event.ref

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

    def _when_judged(self, event: e.WhenJudged) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        task.judged = True
        if event.held:
            self._arrive(run, task, event.at)

    # Attempts

    def _attempt_dispatched(self, event: e.AttemptDispatched) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        if event.start:
            self._enter(run, task, event)
            task.state = RUNNING
        if task.parent >= 0:
            spread = run.tasks[task.parent].spread
            if spread is not None:
                spread.busy += 1
        task.attempts = [
            *task.attempts,
            Attempt(
                event.number, event.worker, event.fence, event.pin, event.device, event.at, event.skill, event.why,
                event.hedge,
            ),
        ]  # fmt: skip
        run.spend.attempts += 1
        self.live.setdefault(event.worker, {})[event.run, event.task, event.number] = None

    def _attempt_ended(self, event: e.AttemptEnded) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        attempt = task.attempt(event.number)
        if attempt is None:
            raise AssertionError(f"G6: no attempt {event.number} of {run.name}/{run.name_of(task)}")
        self._enter(run, task, event)
        outcome = event.outcome
        if not attempt.ended:
            self.live[attempt.worker].pop((event.run, event.task, event.number), None)
            if task.parent >= 0:
                spread = run.tasks[task.parent].spread
                if spread is not None:
                    spread.busy -= 1
        attempt.ended_at, attempt.usage = event.at, event.usage
        run.spend.tokens_in += event.usage.tokens_in
        run.spend.tokens_out += event.usage.tokens_out
        run.spend.price += event.usage.price
        if type(outcome) is Success:
            attempt.ended = "succeeded"
            if type(task.state) is not Settled:
                task.value = outcome.value
        elif type(outcome) is Stopped:
            attempt.ended, attempt.message = "stopped", outcome.why
        elif type(outcome) is Failure:
            attempt.ended = "lost" if event.lost else "failed"
            attempt.code, attempt.message = outcome.code, outcome.message

    def _task_requeued(self, event: e.TaskRequeued) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        if type(task.state) is Settled:
            run.unsettled += 1
            if task.parent >= 0 and (spread := run.tasks[task.parent].spread) is not None and not task.state.open:
                spread.left += 1
        if event.skill:
            task.alt = task.spec.alt.index(event.skill) + 1 if event.skill in task.spec.alt else 0
            task.tries = 0
        elif event.counted:
            task.tries += 1
        else:
            task.losses += 1
        task.state = Ready(event.until, event.avoid, False, event.why)
        task.ready_at = event.at
        self.fresh.append((run.ix, task.ix))

    def _result_reused(self, event: e.ResultReused) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        task.value = run.reuse[event.pin]
        task.reused = True

    def _task_settled(self, event: e.TaskSettled) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        task.state = Settled(event.state, event.winner, event.code, event.message, event.open, event.at)
        if event.state != "succeeded":
            task.value = None
        if not event.open:
            self._finish(run, task, event.at)

    def _failure_settled(self, event: e.FailureSettled) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        if isinstance(task.state, Settled) and task.state.open:
            task.state = msgspec.structs.replace(task.state, open=False)
            self._finish(run, task, event.at)

    def _finish(self, run: Run, task: Task, at: float) -> None:
        run.unsettled -= 1
        if task.parent >= 0:
            parent = run.tasks[task.parent]
            if parent.spread is not None:
                parent.spread.left -= 1
                if not parent.spread.left:
                    self.due.append((run.ix, parent.ix))
            elif type(parent.state) is Waiting:
                self.due.append((run.ix, parent.ix))
        for ix in task.down or ():
            self._release(run, ix, at)
        if task.chained and task.spread is None:
            for ix in task.chained:
                self._release(run, ix, at)

    def _release(self, run: Run, ix: int, at: float) -> None:
        task = run.tasks[ix]
        task.waits -= 1
        if not task.waits and type(task.state) is Pending:
            self._arrive(run, task, at)

    def _arrive(self, run: Run, task: Task, at: float) -> None:
        """All upstreams are final: ready at once if nothing is left to decide, else due for the machine."""
        wiring = task.wiring
        if task.parent < 0 and (is_map(task) or (not task.judged and self._to_judge(run, task))):
            self.due.append((run.ix, task.ix))
            return
        elements = self.elements(run, task) if task.parent >= 0 and wiring.chain else ()
        if not all(run.tasks[ix].succeeded for ix in elements):
            self.due.append((run.ix, task.ix))
            return
        task.state, task.ready_at = _READY, at
        self.fresh.append((run.ix, task.ix))

    @staticmethod
    def _to_judge(run: Run, task: Task) -> bool:
        wiring, tasks = task.wiring, run.tasks
        return bool(
            task.spec.when
            or wiring.firsts
            or not all(tasks[ix].succeeded for ix in (*wiring.needs, *wiring.ons))
            or any(tasks[ix].bad for ix in wiring.after)
        )

    def _effect_begun(self, event: e.EffectBegun) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        attempt = task.attempt(event.number)
        if attempt is not None:
            attempt.began = True

    def _task_unknown(self, event: e.TaskUnknown) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        task.state = Unknown(event.number)

    def _unknown_resolved(self, event: e.UnknownResolved) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        task.value = event.value

    def _task_waited(self, event: e.TaskWaited) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        task.state = Waiting(event.number, event.what, event.detail, event.deadline)
        self.due.append((run.ix, task.ix))

    def _task_resumed(self, event: e.TaskResumed) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        task.state = RUNNING

    def _call_answered(self, event: e.CallAnswered) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        spawned = task.spawned = task.spawned or Spawned()
        spawned.calls[event.number * 1_000_000 + event.k] = (event.value, event.error)

    def _emitted(self, event: e.Emitted) -> None:
        pass

    # Persons, planners, budgets

    def _approval_asked(self, event: e.ApprovalAsked) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        task.state = AwaitingApproval(event.pin, event.why, event.deadline)

    def _approval_given(self, event: e.ApprovalGiven) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        task.by = event.by
        task.state = Ready(approved=True, why=f"approved by {event.by}")
        self.fresh.append((run.ix, task.ix))

    def _approval_refused(self, event: e.ApprovalRefused) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        task.by = event.by

    def _cancel_asked(self, event: e.CancelAsked) -> None:
        run = self.runs[event.run]
        if event.task < 0:
            run.cancelled, run.stop_code = True, event.code
        else:
            run.tasks[event.task].cancelling = True

    def _claim_taken(self, event: e.ClaimTaken) -> None:
        self.runs[event.run].claims[event.claim] = (event.tasks, event.deadline)

    def _claim_released(self, event: e.ClaimReleased) -> None:
        run = self.runs[event.run]
        tasks, _ = run.claims.pop(event.claim, ((), 0.0))
        self.fresh.extend((run.ix, ix) for ix in tasks if type(run.tasks[ix].state) is Ready)

    def _budget_reserved(self, event: e.BudgetReserved) -> None:
        self.runs[event.run].spend.reserved[event.call] = event.tokens

    def _budget_spent(self, event: e.BudgetSpent) -> None:
        spend = self.runs[event.run].spend
        spend.reserved.pop(event.call, None)
        spend.tokens_in += event.tokens_in
        spend.tokens_out += event.tokens_out
        spend.price += event.price

    def _planner_call_opened(self, event: e.PlannerCallOpened) -> None:
        run = self.runs[event.run]
        run.calls[event.call] = PlannerCall(event.call, event.kind, event.claim, event.deadline, event.why, event.at)
        run.spend.calls += 1
        run.planner = event.planner or run.planner
        run.rounds += event.kind == "replan"

    def _planner_call_closed(self, event: e.PlannerCallClosed) -> None:
        run = self.runs[event.run]
        run.calls.pop(event.call, None)
        if event.first_task_s >= 0 and run.spend.first_task_s < 0:
            run.spend.first_task_s = event.first_task_s

    def _planner_call_lost(self, event: e.PlannerCallLost) -> None:
        self.runs[event.run].calls.pop(event.call, None)

    def _run_paused(self, event: e.RunPaused) -> None:
        run = self.runs[event.run]
        next_state(RUN, run.state, event, run.name)
        run.state = PAUSED

    def _run_resumed(self, event: e.RunResumed) -> None:
        run = self.runs[event.run]
        next_state(RUN, run.state, event, run.name)
        run.state = OPEN
        self.fresh.extend((run.ix, task.ix) for task in run.tasks if type(task.state) is Ready)

    def _run_settled(self, event: e.RunSettled) -> None:
        run = self.runs[event.run]
        next_state(RUN, run.state, event, run.name)
        run.state = Closed(event.state, event.code, event.message)
        run.settled_at = event.at

    def _run_removed(self, event: e.RunRemoved) -> None:
        run = self.runs.pop(event.run)
        self.keys.pop(run.key, None)
        self.changed.add(0)

    # Copies and checks

    @staticmethod
    def _enter(run: Run, task: Task, event: e.Event) -> None:
        if (type(task.state), type(event)) not in TASK:
            next_state(TASK, task.state, event, f"{run.name}/{run.name_of(task)} with {task.attempts} got {event}")

    def check(self) -> None:
        """The invariants of graph.md that one instant shows. Raises: AssertionError with the story."""
        for run in self.runs.values():
            check_run(run)

    def snapshot(self) -> dict[int, bytes]:
        """Every part: 0 is all but the runs, N is run N. Equal states give equal bytes."""
        return {0: self.part(0), **{run: self.part(run) for run in self.runs}}

    def part(self, part: int) -> bytes:
        """One part of `snapshot`."""
        if part:
            return _ENCODER.encode(self.runs[part])
        head = _Head(
            self.epoch, self.journal, self.runs_made, self.workers, self.catalog, self.keys, self.digests
        )  # fmt: skip
        return _ENCODER.encode(head)

    @classmethod
    def restore(cls, parts: Mapping[int, bytes]) -> State:
        """The state that `snapshot` copied. Raises: msgspec.DecodeError for anything else."""
        state = cls()
        if 0 in parts:
            head = _HEAD.decode(parts[0])
            state.epoch, state.journal, state.runs_made = head.epoch, head.journal, head.runs_made
            state.workers, state.catalog, state.keys = head.workers, head.catalog, head.keys
            state.digests = head.digests
        for number in sorted(part for part in parts if part):
            run = state.runs[number] = _RUN.decode(parts[number])
            for task in run.tasks:
                if task.parent >= 0 and (parent := run.tasks[task.parent]).spread is not None:
                    task.spec, task.wiring = parent.spec, parent.wiring
                for attempt in task.attempts:
                    if not attempt.ended:
                        state.live.setdefault(attempt.worker, {})[run.ix, task.ix, attempt.number] = None
        return state


_READY = Ready()
