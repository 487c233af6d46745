"""One attempt on its way: its inputs, its pin and fence, what it is lent of the budget, and its place in the books.

Invariant: whatever leaves here has its AttemptDispatched and holds its worker's resources; which worker was decided
before.
"""

from __future__ import annotations

from protocol.skill import SkillSpec

from . import event as e
from .assignment import assign
from .binding import Bound, RefMissing
from .budget import lend
from .expectation import promise
from .fleet import Load, Session
from .graph import Run, Task
from .lifecycle import Ready
from .settlement import fail, settle
from .turn import Turn
from .warmth import taken


def bind(turn: Turn, run: Run, task: Task) -> Bound | None:
    """The inputs of its next attempt; None if it has failed for want of one."""
    try:
        return turn.binder.bind(run, task, turn.state.journal, turn.state.digests.get(task.skill, ""))
    except RefMissing as error:
        fail(turn, run, task, "RefMissing", str(error))
        return None


def send(
    turn: Turn, run: Run, task: Task, session: Session, spec: SkillSpec, device: str, needs: dict[str, float],
    why: str, hedge: bool, bound: Bound | None,
) -> None:  # fmt: skip
    bound = bound or bind(turn, run, task)
    if bound is None:
        return
    if run.reuse and bound.pin in run.reuse and task.spec.cache is not False and not hedge:
        turn.emit(e.ResultReused(run.ix, task.ix, bound.pin))
        settle(turn, run, task, "succeeded")
        return
    budget = run.settings.budget
    if budget.attempts and run.spend.attempts >= budget.attempts:
        if hedge:
            turn.hedges.discard((run.ix, task.ix))
        else:
            fail(turn, run, task, "BudgetSpent", f"the run may have {budget.attempts} attempts")
        return
    tokens, price = 0, 0.0
    if spec.spends:
        over = run.spend.spent(budget)
        if over and hedge:
            turn.hedges.discard((run.ix, task.ix))
        elif over and run.spend.lends:
            turn.dry.setdefault(run.ix, {})[task.ix] = None
        elif over:
            fail(turn, run, task, "BudgetSpent", over)
        if over:
            return
        tokens, price = lend(turn, run)
    if task.attempts and type(task.state) is Ready and task.state.why:
        why = "; ".join(filter(None, (why, f"after {task.state.why}")))
    number = run.next_attempt(task)
    if turn.passed:
        number = max(number, turn.passed.get((run.ix, task.ix), 0) + 1)
    fence, skill = turn.fence(), task.skill
    if hedge:
        turn.hedges.discard((run.ix, task.ix))
    by_person = bool(task.approved) and task.approved == bound.pin
    turn.emit(
        e.AttemptDispatched(
            run.ix, task.ix, number, session.worker, fence, bound.pin, device, skill, why, hedge, True, turn.now,
            tokens, price,
        )
    )  # fmt: skip
    load = Load(needs, fence, skill, device, turn.now, False)
    promise(turn, session, run, task, load)
    if spec.warm_s:
        load.warm_s = spec.warm_s
        taken(turn, run, skill, session)
    session.take((run.ix, task.ix, number), load)
    if session.queue:
        turn.hoards = True
    effect = turn.stricter(spec, task)
    # An approval must be on disk before its task may act, as must every input of idempotent work.
    ahead = turn.settings.dispatch_ahead and not by_person and (
        effect == "pure" or (effect == "idempotent" and not bound.inputs and not bound.items)
    )  # fmt: skip
    item = assign(turn, run, task, spec, number, fence, bound, device, needs)
    turn.send(session, item, after_commit=not ahead)
