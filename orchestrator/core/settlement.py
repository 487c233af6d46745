"""What follows when an attempt or a task has ended: the next means, the verdict of the task, then of its run.

Next means (graph.md): lost work goes elsewhere uncounted, transient failures back off and retry, permanent ones try
the next `alt`, refused ones ask. Then the run's `on_failure` decides.
"""

from __future__ import annotations

from typing import Final

from protocol.frame import Cancel
from protocol.ids import AttemptId
from protocol.outcome import Failure, Outcome, Stopped, Success, Usage
from protocol.task import AnyRef, FirstOf, Retry

from . import event as e
from .consult import bounds
from .expectation import noted
from .graph import Attempt, Run, Task
from .lifecycle import Closed, Expanded, Running, Settled, Unknown, Waiting
from .poison import evidence
from .quarantine import failed, went_well, went_wrong
from .stagnation import failure_digest
from .turn import Turn
from .warmth import left

_CUT_OFF: Final = frozenset({"HostDied", "Timeout"})
"""Failures that are not the skill's own word."""


def end_attempt(
    turn: Turn, run: Run, task: Task, attempt: Attempt, outcome: Outcome, usage: Usage, *, lost: bool = False,
    death: bool = False,
) -> None:  # fmt: skip
    """The attempt is over; decide what becomes of its task. Of a run that was set aside nothing is decided."""
    if run.aside:
        turn.count("run_aside")
        return
    turn.focus = run.ix
    session = turn.fleet.sessions.get(attempt.worker)
    load = session.drop((run.ix, task.ix, attempt.number)) if session is not None else None
    moved = load.displaced or load.recalled if load is not None and isinstance(outcome, Stopped) else None
    if moved is not None:
        outcome = Stopped(moved.why)
    if turn.ledger.counts and session is not None and load is not None:
        turn.ledger.used(run, session, load, usage.run_s, usage.price, turn.now)
    if load is not None and load.charged_s:
        won = isinstance(outcome, Success) and type(task.state) is not Settled
        cost = 0.0 if won else turn.now - attempt.at  # what it ended before would have run on
        turn.watch.charge(run.ix, cost - load.charged_s)
    turn.emit(e.AttemptEnded(run.ix, task.ix, attempt.number, outcome, usage, lost, turn.now, death))
    if (usage.tokens_in or usage.tokens_out or usage.price) and overspent(run):
        turn.overspent[run.ix] = None
    if type(task.state) is Settled:
        return
    turn.joins.pop((run.ix, task.ix), None)
    if isinstance(outcome, Failure) and session is not None and not lost:
        failed(turn, session, attempt.skill or task.skill, outcome)
    if isinstance(outcome, Success):
        if session is not None:
            if session.health.rate:
                went_well(turn, session)
            if load is not None and load.warm_s:
                left(turn, run, attempt.skill or task.skill, session, load.warm_s)
            if load is None or not load.resumed:
                noted(turn, session, run, task, attempt, load, usage)
        if usage.run_s > 0.001:  # less is nothing that a copy could be paid with
            turn.watch.done_s[run.ix] = turn.watch.done_s.get(run.ix, 0.0) + usage.run_s
        if task.cancelling:
            _stopped(turn, run, task, attempt.number, "stopped as it finished")
        else:
            settle(turn, run, task, "succeeded", winner=attempt.number)
        return
    if task.live():
        return  # a hedge goes on
    if task.cancelling or run.cancelled:
        _stopped(turn, run, task, attempt.number, "")
    elif attempt.began and turn.effect(task) == "once" and (why := _unclear(outcome, lost=lost)):
        if type(task.state) is not Unknown:
            turn.emit(e.TaskUnknown(run.ix, task.ix, attempt.number, why, turn.now))
    elif moved is not None:
        turn.emit(e.TaskRequeued(run.ix, task.ix, turn.now, moved.why, False, "", moved.avoid, turn.now, lost=False))
    elif isinstance(outcome, Stopped):
        _again(turn, run, task, attempt, Failure("Stopped", outcome.why or "stopped by its worker", "infra"))
    else:
        _again(turn, run, task, attempt, outcome)


def _unclear(outcome: Stopped | Failure, *, lost: bool) -> str:
    """Why nobody can say how far an effect came: its code was cut off rather than ended. "" if it said itself."""
    if isinstance(outcome, Stopped):
        return outcome.why or "stopped by its worker"
    if lost or outcome.klass == "infra" or outcome.code in _CUT_OFF:
        return f"{outcome.code}: {outcome.message}" if outcome.message else outcome.code
    return ""


def _stopped(turn: Turn, run: Run, task: Task, winner: int, message: str) -> None:
    """Every attempt of a task that was asked to stop has ended: cancelled, or failed for what stopped it."""
    if task.stop_code:
        fail(turn, run, task, task.stop_code, message or task.stop_code, winner=winner)
    else:
        settle(turn, run, task, "cancelled", winner=winner, message=message)


def _again(turn: Turn, run: Run, task: Task, attempt: Attempt, failure: Failure) -> None:
    now, settings, over = turn.now, turn.settings, ""
    why = f"{failure.code}: {failure.message}" if failure.message else failure.code
    if failure.klass == "infra":
        if attempt.death and task.deaths > settings.poison_deaths:
            fail(turn, run, task, "Poison", evidence(turn, run, task), winner=attempt.number)
            return
        over = budget_of(turn, run, "losses")
        if task.losses < settings.max_losses and not over:
            turn.emit(e.TaskRequeued(run.ix, task.ix, now, why, False, "", attempt.worker, now))
            return
    elif failure.klass == "policy":
        turn.emit(e.TaskRequeued(run.ix, task.ix, now, why, False, "", -1, now, lost=False))
        deadline = now + settings.approval_s
        turn.emit(e.ApprovalAsked(run.ix, task.ix, attempt.pin, why, deadline))
        turn.wake(deadline, "approval", run.ix, task.ix)
        return
    elif failure.klass == "transient":
        retry = retry_of(turn, task)
        over = budget_of(turn, run, "retries") if task.tries < retry.max else ""
        if task.tries < retry.max and not over and not _spent(run):
            delay = min(retry.backoff_s * 2.0**task.tries, settings.backoff_cap_s) * turn.luck
            turn.emit(e.TaskRequeued(run.ix, task.ix, now + delay, why, True, "", attempt.worker, now))
            return
    if task.alt < len(task.spec.alt) and not _spent(run):
        following = task.spec.alt[task.alt]
        turn.emit(e.TaskRequeued(run.ix, task.ix, now, f"{why}; next: {following}", True, following, -1, now))
        return
    message = "; ".join(filter(None, (failure.message, over)))
    fail(turn, run, task, failure.code, message, winner=attempt.number)


def budget_of(turn: Turn, run: Run, what: str) -> str:
    """Whether the run has used up what it may do again, so that an outage can't multiply its load: "" if not.

    A floor, and a share of what succeeded: retry budgets as in the SRE book (Google, chapter 22) and Finagle.
    """
    settings, spend = turn.settings, run.spend
    if what == "losses":
        used, floor, ratio = spend.losses, settings.loss_floor, settings.loss_ratio
    else:
        used, floor, ratio = spend.retries, settings.retry_floor, settings.retry_ratio
    most = floor + int(ratio * spend.successes)
    return f"the run's budget of {most} {what} is used up ({spend.successes} tasks succeeded)" if used >= most else ""


def overspent(run: Run) -> str:
    """What the run has used more of than its budget has: "" if nothing."""
    return run.spend.over(run.settings.budget)


def retry_of(turn: Turn, task: Task) -> Retry:
    """The task's retry policy: its own, else the skill's; none for `once`."""
    if task.spec.retry is not None:
        return task.spec.retry
    spec = turn.contract(task)
    return Retry(max=0 if turn.effect(task) == "once" else spec.retry_max if spec else 2)


def _spent(run: Run) -> bool:
    cap = run.settings.budget.attempts
    return bool(cap) and run.spend.attempts >= cap


def settle(
    turn: Turn, run: Run, task: Task, state: e.SettledState, *, winner: int = 0, code: str = "", message: str = "",
    open_: bool = False,
) -> None:  # fmt: skip
    """The task is final as `state`; other live attempts of it are cancelled."""
    turn.emit(e.TaskSettled(run.ix, task.ix, state, winner, code, message, open_, turn.now))
    turn.hedges.discard((run.ix, task.ix))
    turn.joins.pop((run.ix, task.ix), None)
    for attempt in task.attempts:
        if not attempt.ended:
            _outrun(turn, run, task, attempt)
            stop_attempt(turn, run, task, attempt)
    if state != "succeeded":
        for ix in _below(task):
            cancel_task(turn, run, run.tasks[ix], "its parent ended")
        if task.plan is not None:
            turn.asking[run.ix] = None  # its open failures, too


def _outrun(turn: Turn, run: Run, task: Task, attempt: Attempt) -> None:
    """Its copy ended first: if it had run over its time, that speaks against its worker."""
    session = turn.fleet.sessions.get(attempt.worker)
    load = session.loads.get((run.ix, task.ix, attempt.number)) if session is not None and task.succeeded else None
    if session is not None and load is not None and load.late:
        went_wrong(turn, session, f"{task.skill} took so long that a copy ended first")


def fail(turn: Turn, run: Run, task: Task, code: str, message: str, *, winner: int = 0) -> None:
    """The task has no means left. Handled by a `when`, by its map or parent, else by the run's on_failure."""
    if task.parent >= 0:
        parent = run.tasks[task.parent]
        settle(turn, run, task, "failed", winner=winner, code=code, message=message)
        if type(parent.state) is Expanded and task.spec.map.on_error == "fail":
            for ix in run.children(parent):  # the map itself fails when the last of them has ended
                cancel_task(turn, run, run.tasks[ix], f"{run.name_of(task)} failed")
        return
    open_, why = _may_replan(turn, run, task, code)
    message = "; ".join(filter(None, (message, why)))
    settle(turn, run, task, "failed", winner=winner, code=code, message=message, open_=open_)
    if open_:
        turn.broke(run.ix, task.ix)
    elif task.owner >= 0:
        return  # its sub-plan's affair
    elif run.settings.on_failure == "stop" and not handled(run, task):
        for other in run.tasks:
            cancel_task(turn, run, other, f"{run.name_of(task)} failed and on_failure is stop")


def _may_replan(turn: Turn, run: Run, task: Task, code: str) -> tuple[bool, str]:
    """Whether a planner is to be asked about this failure, and what people should know if not."""
    plan = run.tasks[task.owner].plan if task.owner >= 0 else None
    if run.cancelled or handled(run, task) or (plan is None and run.settings.on_failure != "replan"):
        return False, ""
    rounds, most = (plan.rounds, plan.most) if plan is not None else (run.rounds, bounds(turn, run).rounds)
    if rounds >= most:
        return False, f"{rounds} re-plans are all it may have" if plan is None and rounds else ""
    if run.stuck:
        return False, "re-plans have come back to a graph that was there before"
    if failure_digest(task, code) in run.failures:
        return False, "it has failed just so before a re-plan"
    return True, ""


def handled(run: Run, task: Task) -> bool:
    """Whether some `when` names this task with failed or finished."""
    for ix in task.down or ():
        for line in run.tasks[ix].spec.when:
            if line.op == "is" and line.ref.source == task.spec.id and line.value in (b'"failed"', b'"finished"'):
                return True
    return False


def cancel_task(turn: Turn, run: Run, task: Task, why: str, by: str = "orchestrator", code: str = "") -> None:
    """Stop it: at once if nothing runs, else when every live attempt has confirmed its exit.

    With `code` it ends as failed, not as cancelled.
    """
    if type(task.state) is Settled:
        return
    live = task.live()
    if not task.cancelling and not run.cancelled:
        turn.emit(e.CancelAsked(run.ix, task.ix, by, why, code))
    for ix in (*run.children(task), *_below(task)):
        cancel_task(turn, run, run.tasks[ix], why, by)
    if type(task.state) is Settled:
        return
    if live and type(task.state) in (Running, Waiting):
        for attempt in live:
            stop_attempt(turn, run, task, attempt)
    elif type(task.state) is Expanded and task.spread is not None and task.spread.left:
        return  # it ends with its last element
    elif code:
        fail(turn, run, task, code, why)
    else:
        settle(turn, run, task, "cancelled", message=why)


def _below(task: Task) -> tuple[int, ...]:
    """What it has spawned or had planned."""
    return (*(task.spawned.children.values() if task.spawned else ()), *(task.plan.tasks if task.plan else ()))


def stop_attempt(turn: Turn, run: Run, task: Task, attempt: Attempt) -> None:
    """Ask the worker to end it. Its resources come back with the confirmed exit."""
    session = turn.fleet.sessions.get(attempt.worker)
    if session is None:
        return
    key = (run.ix, task.ix, attempt.number)
    load = session.loads.get(key)
    if load is not None and load.cancelled_at < 0:
        load.cancelled_at = turn.now
        turn.send(session, Cancel(AttemptId(*key), turn.settings.cancel_grace_s), after_commit=True)


def close_run(turn: Turn, run: Run) -> None:
    """Settle the run if nothing of it is open any more: succeeded iff every declared output was produced."""
    if run.unsettled or not run.planned or run.calls or type(run.state) is Closed:
        return
    state, code, message = verdict_of(run)
    turn.emit(e.RunSettled(run.ix, state, code, message, turn.now))  # type: ignore[arg-type]
    turn.forget(run.ix)


def verdict_of(run: Run) -> tuple[str, str, str]:
    """(state, code, message) of a run whose tasks are all final."""
    if run.cancelled:
        if not run.stop_code:
            return "cancelled", "Cancelled", ""
        over = overspent(run)
        return "failed", run.stop_code, f"it used {over}" if over and run.stop_code == "BudgetSpent" else ""
    if run.plan_error[0]:
        return "failed", *run.plan_error
    failed = [task for task in run.roots() if task.owner < 0 and task.state_is("failed") and not handled(run, task)]
    missing = [output.name for output in run.outputs if not _produced(run, output.ref)]
    if not missing and (run.outputs or not failed):
        return "succeeded", "", ""
    first = failed[0] if failed else next((task for task in run.roots() if task.state_is("failed")), None)
    codes = {task.state.code for task in failed if type(task.state) is Settled}
    code = codes.pop() if len(codes) == 1 and codes <= {"NoEligibleWorker", "BudgetSpent", "TimedOut"} else "TaskFailed"
    if run.spend.refused:
        code = "BudgetSpent"
    message = f"no output {', '.join(missing)}" if missing else ""
    if first is not None and type(first.state) is Settled:
        message = "; ".join(filter(None, (f"{run.name_of(first)}: {first.state.code}: {first.state.message}", message)))
    return "failed", code, message


def _produced(run: Run, ref: AnyRef) -> bool:
    refs = ref.refs if isinstance(ref, FirstOf) else (ref,)
    return any(one.source == "input" or run.tasks[run.names[one.source]].succeeded for one in refs)
