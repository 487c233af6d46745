"""How tasks go on: attempts begin and end, tasks are requeued, wait, are approved and settle.

A part of `State`: appliers of events, nothing is decided.
"""

from __future__ import annotations

from typing import Final

import msgspec

from protocol.outcome import Failure, Stopped, Success

from . import event as e
from .graph import CHECKPOINT, Attempt, Run, Spawned, Task, Wiring
from .growth import Growth
from .lifecycle import EXPANDED, PENDING, RUNNING, AwaitingApproval, Pending, Ready, Settled, Unknown, Waiting
from .planner_call import SubPlan, Wish

_SAID: Final = 8
"""Words of persons that a run keeps for its planner."""


class Progress(Growth):
    """See the module. `live`: live attempts by worker, derived."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, dict[tuple[int, int, int], None]] = {}
        self._settled = Settled("skipped")
        """The last one: what is settled in one turn is settled alike, and shares it."""

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
        attempt = Attempt(
            event.number, event.worker, event.fence, event.pin, event.device, event.at, event.skill, event.why,
            event.hedge, tokens=event.tokens, price=event.price,
        )  # fmt: skip
        task.attempts = (*task.attempts, attempt)
        spend = run.spend
        spend.attempts += 1
        spend.lent_tokens += event.tokens
        spend.lent_price += event.price
        self.live.setdefault(event.worker, {})[event.run, event.task, event.number] = None

    def _attempt_regained(self, event: e.AttemptRegained) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        attempt = task.attempt(event.number)
        if attempt is None:
            raise AssertionError(f"G6: no attempt {event.number} of {run.name}/{run.name_of(task)}")
        self._enter(run, task, event)
        task.state = RUNNING
        task.losses = max(0, task.losses - 1)
        self._lost(run, attempt, -1)
        run.spend.lent_tokens += attempt.tokens
        run.spend.lent_price += attempt.price
        attempt.ended, attempt.code, attempt.message, attempt.ended_at = "", "", "", 0.0
        attempt.hedge, attempt.death = event.hedge, False
        if task.parent >= 0:
            spread = run.tasks[task.parent].spread
            if spread is not None:
                spread.busy += 1
        self.live.setdefault(attempt.worker, {})[event.run, event.task, event.number] = None

    @staticmethod
    def _lost(run: Run, attempt: Attempt, sign: int) -> None:
        """Nobody knows what a lost attempt has used: what it was lent counts, until it says so itself."""
        run.spend.tokens_in += sign * attempt.tokens
        run.spend.price += sign * attempt.price

    def _attempt_ended(self, event: e.AttemptEnded) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        attempt = task.attempt(event.number)
        if attempt is None:
            raise AssertionError(f"G6: no attempt {event.number} of {run.name}/{run.name_of(task)}")
        self._enter(run, task, event)
        outcome = event.outcome
        if not attempt.ended:
            run.spend.lent_tokens -= attempt.tokens
            run.spend.lent_price -= attempt.price
            self.live[attempt.worker].pop((event.run, event.task, event.number), None)
            if task.parent >= 0:
                spread = run.tasks[task.parent].spread
                if spread is not None:
                    spread.busy -= 1
        elif attempt.ended == "lost":
            self._lost(run, attempt, -1)  # it has come to light what it used
        if event.lost:
            self._lost(run, attempt, 1)
        usage = event.usage
        attempt.ended_at, attempt.run_s = event.at, usage.run_s
        if usage.tokens_in or usage.tokens_out or usage.price:
            run.spend.tokens_in += usage.tokens_in
            run.spend.tokens_out += usage.tokens_out
            run.spend.price += usage.price
            run.spend.uses += 1
        if type(outcome) is Success:
            attempt.ended = "succeeded"
            if type(task.state) is not Settled:
                task.value = outcome.value
        elif type(outcome) is Stopped:
            attempt.ended, attempt.message = "stopped", outcome.why
        elif type(outcome) is Failure:
            attempt.ended, attempt.death = "lost" if event.lost else "failed", event.death
            attempt.code, attempt.message = outcome.code, outcome.message

    def _task_requeued(self, event: e.TaskRequeued) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        unborn = type(task.state) is Settled and not task.attempts
        if type(task.state) is Settled:
            task.cancelling, task.stop_code = False, ""
            if task.spread is not None:
                self._expand_again(run, task, event.at)
                return
        if event.skill:
            task.alt = task.spec.alt.index(event.skill) + 1 if event.skill in task.spec.alt else 0
            task.tries = 0
        elif event.counted:
            task.tries += 1
            run.spend.retries += 1
        elif event.lost:
            task.losses += 1
            run.spend.losses += 1
        if unborn:  # it failed before it could run: its upstreams are not final yet, or not judged
            task.state = PENDING
            if not task.waits:
                self._arrive(run, task, event.at)
            return
        task.state = Ready(event.until, event.avoid, False, event.why)
        task.ready_at = event.at
        self.fresh.append((run.ix, task.ix))

    def _expand_again(self, run: Run, task: Task, at: float) -> None:
        """A failed map is retried: its elements that did not succeed run again, under their own numbers."""
        task.state = EXPANDED
        for ix in run.children(task):
            child = run.tasks[ix]
            if child.final and not child.succeeded and task.spread is not None:
                task.spread.left += 1
                run.unsettled += 1
                child.alt = child.tries = 0
                child.cancelling, child.stop_code, child.state = False, "", PENDING
                for ix in child.down or ():  # elements of a chained map that wait for it once more
                    if type(run.tasks[ix].state) is Pending:
                        run.tasks[ix].waits += 1
                self._arrive(run, child, at)
        if task.spread is not None and not task.spread.left:
            self.due.append((run.ix, task.ix))

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
        state = Settled(event.state, event.winner, event.code, event.message, event.open, event.at)
        if state == self._settled:
            state = self._settled
        task.state = self._settled = state
        if event.state != "succeeded":
            task.value = None
        elif event.winner:
            run.spend.successes += 1
        if not event.open:
            self._finish(run, task, event.at)

    def _failure_settled(self, event: e.FailureSettled) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        run.spend.refused += event.how == "unaffordable"
        if isinstance(task.state, Settled) and task.state.open:
            task.state = msgspec.structs.replace(task.state, open=False)
            self._finish(run, task, event.at)

    def _finish(self, run: Run, task: Task, at: float) -> None:
        run.unsettled -= 1
        if task.owner >= 0:
            self._part_finished(run, run.tasks[task.owner], task)
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
        if task.wiring.refs and task.parent < 0 and task.spread is None and task.succeeded and not task.reused:
            wiring = task.wiring  # bound for the last time: without its references most of its memory
            task.wiring = Wiring((), wiring.needs, wiring.after, wiring.when, wiring.firsts, wiring.chain, wiring.ons)
        if task.chained and task.spread is not None:
            self._look_again(run, task)
        if task.chained and task.spread is None:
            for ix in task.chained:
                self._release(run, ix, at)

    def _part_finished(self, run: Run, owner: Task, task: Task) -> None:
        if owner.plan is not None and task.spec.id.startswith(f"{owner.plan.prefix}."):
            owner.plan.open -= 1
            if not owner.plan.open:
                self.due.append((run.ix, owner.ix))

    def _look_again(self, run: Run, task: Task) -> None:
        """A map is final: what still waits to learn whether its failed elements run again is due."""
        for ix in task.chained or ():
            for child in run.children(run.tasks[ix]):
                if type(run.tasks[child].state) is Pending and not run.tasks[child].waits:
                    self.due.append((run.ix, child))

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
        if event.how == "succeeded":
            task.value = event.value
        attempt = task.attempt(event.number)
        if attempt is not None:
            attempt.resolved = event.how

    def _task_waited(self, event: e.TaskWaited) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        task.state = Waiting(event.number, event.what, event.detail, event.deadline)
        if event.what == "plan":
            again = run.sub_plans[task.ix] = run.sub_plans.get(task.ix, 0) + 1
            name = run.name_of(task)
            task.plan = SubPlan(name if again == 1 else f"{name}.r{again}", Wish.read(event.detail).rounds)
        self.due.append((run.ix, task.ix))

    def _sub_plan_finished(self, event: e.SubPlanFinished) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        task.value = event.value

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
        if event.kind == CHECKPOINT:
            task = self.runs[event.run].tasks[event.task]
            spawned = task.spawned = task.spawned or Spawned()
            spawned.checkpoint = (task.alt, event.body)

    def _approval_asked(self, event: e.ApprovalAsked) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        task.state = AwaitingApproval(event.pin, event.why, event.deadline)

    def _approval_given(self, event: e.ApprovalGiven) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        task.by, task.approved = event.by, event.pin
        task.state = Ready(approved=True, why=f"approved by {event.by}")
        self.fresh.append((run.ix, task.ix))

    def _approval_refused(self, event: e.ApprovalRefused) -> None:
        run = self.runs[event.run]
        task = run.tasks[event.task]
        self._enter(run, task, event)
        task.by = event.by
        if event.message:
            run.said = [*run.said, (event.task, event.by, event.message)][-_SAID:]
