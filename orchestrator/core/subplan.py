"""plan.next: a task that has its own work planned when its facts are known. Served here, never by a worker.

Its tasks are roots of the graph that belong to it: `next.scan` is the `scan` of what `next` had planned, its failures
are the sub-plan's affair, and it goes when `next` goes. A planner is asked at most `rounds` times: first for the plan,
then about open failures, or, when all is done and it had added something, whether that is enough. The task's value are
the sub-plan's outputs. Who it may name and how its facts get in is core.locality's.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from protocol.artifact import INLINE_LIMIT
from protocol.errors import AsterismError, UsageError
from protocol.pointer import descend
from protocol.task import FirstOf, Output, Ref, references, substitute

from . import event as e
from .approval import ask_approval
from .binding import Bound, RefMissing
from .consult import CODES, causes, is_open, open_call, unaffordable
from .digest import Room, digest
from .graph import Run, Task
from .lifecycle import Open, Ready, Waiting
from .locality import fact_views, owners
from .planner_call import SubPlan, Wish
from .proposal import MOST_GOAL
from .replan import closure
from .sending import bind
from .settlement import fail, handled, settle
from .trust import barred, doubt, gate
from .turn import Turn

MOST_ROUNDS: Final = 100


# Its start


def serve(turn: Turn) -> None:
    """Begin the ready tasks of this kind, as far as nothing stands in their way."""
    if turn.disk_full or not turn.started:
        return
    waiting, turn.serving = turn.serving, {}
    for number, ix in waiting:
        run = turn.state.runs.get(number)
        task = run.tasks[ix] if run is not None else None
        if run is None or task is None or type(task.state) is not Ready:
            continue
        if type(run.state) is not Open or run.cancelled or run.held(ix):
            continue  # what brings it back queues it again
        turn.focus = number
        _begin(turn, run, task)


def _begin(turn: Turn, run: Run, task: Task) -> None:
    spec = turn.contract(task)
    assert spec is not None
    if barred(run, task, spec):
        turn.barred.setdefault(run.ix, {})[task.ix] = None
        return
    bound = bind(turn, run, task)
    if bound is None:
        return
    if gate(turn, run, task, spec, bound.pin):
        ask_approval(turn, run, task, spec, doubt(turn, run, task, spec), bound)
        return
    deep = len(owners(run, task))
    if deep > (run.settings.budget.depth or turn.settings.max_depth):
        fail(turn, run, task, "BudgetSpent", f"{deep} sub-plans inside each other")
        return
    try:
        wish = _wish(turn, task, bound)
    except AsterismError as error:
        fail(turn, run, task, "BadValue", error.message)
        return
    limit = turn.now + (task.spec.timeout_s if task.spec.timeout_s is not None else spec.timeout_s)
    turn.emit(e.TaskWaited(run.ix, task.ix, 0, "plan", wish.detail(), limit))
    turn.wake(limit, "approval", run.ix, task.ix)


def _wish(turn: Turn, task: Task, bound: Bound) -> Wish:
    """What it is asked for. Raises: UsageError."""
    args = msgspec.json.decode(task.spec.args)
    values = {one.key: turn.binder.decoded(one.value) for one in bound.inputs if isinstance(one.value, bytes)}
    found: dict[str, Any] = {}
    for name in ("goal", "rounds"):
        try:
            found[name] = substitute(args.get(name), values) if isinstance(args, dict) else None
        except KeyError:
            raise UsageError(f"its {name} is too large") from None
    goal, rounds = found["goal"], 1 if found["rounds"] is None else found["rounds"]
    if not isinstance(goal, str) or not 0 < len(goal.strip()) <= MOST_GOAL:
        raise UsageError(f"its goal is no text of at most {MOST_GOAL:,} characters")
    if type(rounds) is not int or not 0 < rounds <= MOST_ROUNDS:
        raise UsageError(f"its rounds are no number from 1 to {MOST_ROUNDS}")
    return Wish(goal, rounds, quoted=next(references(args["goal"]), None) is not None)


# Its rounds


def go_on(turn: Turn, run: Run) -> None:
    """Look at every sub-plan of the run in which something has come to an end: ask again, or finish it."""
    failed = [ix for ix in turn.failures.get(run.ix, ()) if run.tasks[ix].owner >= 0]
    for ix in failed:
        owner = run.tasks[run.tasks[ix].owner]
        if _waits(owner):
            turn.wants.setdefault(run.ix, {})[owner.ix] = None
        else:
            del turn.failures[run.ix][ix]
            if is_open(run.tasks[ix]):
                turn.emit(e.FailureSettled(run.ix, ix, "stopped", turn.now))
    served = {call.task for call in run.calls.values()}
    for ix in list(turn.wants.get(run.ix, ())):
        task = run.tasks[ix]
        if isinstance(task.state, Waiting) and task.state.what == "propose":
            continue
        if not _waits(task) or ix in served:
            del turn.wants[run.ix][ix]
        elif run.cancelled or len(run.calls) < turn.settings.calls_at_once:
            del turn.wants[run.ix][ix]
            mine = [run.tasks[one] for one in failed if run.tasks[one].owner == ix and is_open(run.tasks[one])]
            _look(turn, run, task, mine)


def _waits(task: Task) -> bool:
    return isinstance(task.state, Waiting) and task.state.what == "plan"


def _look(turn: Turn, run: Run, task: Task, failed: list[Task]) -> None:
    plan = task.plan
    assert plan is not None
    why = unaffordable(run)
    for one in failed:
        del turn.failures[run.ix][one.ix]
        if why or plan.rounds >= plan.most:
            turn.emit(e.FailureSettled(run.ix, one.ix, "unaffordable" if why else "continued", turn.now))
    if not plan.rounds and why:
        fail(turn, run, task, "BudgetSpent", why)
    elif not plan.rounds or (failed and not why and plan.rounds < plan.most):
        _ask(turn, run, task, plan, failed)
    elif plan.open:
        return  # it is looked at again when the last of them is final
    elif plan.added and plan.rounds < plan.most and not why and plan.ended[0] == "complete":
        _ask(turn, run, task, plan, [])
    else:
        _finish(turn, run, task, plan)


def _ask(turn: Turn, run: Run, task: Task, plan: SubPlan, failed: list[Task]) -> None:
    assert isinstance(task.state, Waiting)
    wish, held = Wish.read(task.state.detail), closure(run, failed)
    told = None
    if plan.tasks:
        room = Room(plan.most - plan.rounds - 1, turn.settings.edits_a_round, turn.settings.max_planner_tasks)
        told = digest(
            turn, run, "next", [*held, *plan.tasks], failed=failed, held=held, room=room, feeding=False,
            outputs=plan.outputs, name=lambda one: one.spec.id.removeprefix(f"{plan.prefix}."),
        )  # fmt: skip
        inner = tuple(msgspec.structs.replace(one, ref=one.ref.replace(f"{plan.prefix}.", "")) for one in told.outputs)
        told = msgspec.structs.replace(told, outputs=inner)
    why = causes(run, failed) or f"round {plan.rounds + 1} of {run.name_of(task)}"
    open_call(
        turn, run, "next", run.request if wish.quoted else wish.goal, told, why=why, claim=held, failed=failed,
        task=task.ix, goal=wish.goal if wish.quoted else "", facts=fact_views(turn, run, task),
    )  # fmt: skip


# Its end


def _finish(turn: Turn, run: Run, task: Task, plan: SubPlan) -> None:
    outcome, message = plan.ended
    parts = [run.tasks[ix] for ix in plan.tasks]
    if not parts:
        fail(turn, run, task, CODES.get(outcome, "PlanRefused"), message or "the plan is empty")
        return
    values: dict[str, bytes] = {}
    missing: list[str] = []
    for output in plan.outputs or _ends(run, plan, parts):
        try:
            values[output.name] = _value(turn, run, output)
        except RefMissing:
            missing.append(output.name)
    broken = [one for one in parts if one.state_is("failed") and not handled(run, one)]
    if not (missing if plan.outputs else broken or not values):
        turn.emit(e.SubPlanFinished(run.ix, task.ix, _composed(plan, values)))
        settle(turn, run, task, "succeeded")
        return
    said = [
        causes(run, broken[:3]),
        f"no output {', '.join(missing)}" if missing else "",
        message.partition("\n")[0] if outcome != "complete" else "",
    ]
    fail(turn, run, task, "SubPlanFailed", "; ".join(filter(None, said)))


def _ends(run: Run, plan: SubPlan, parts: list[Task]) -> tuple[Output, ...]:
    """None declared: the tasks that nobody references."""
    ends = [one.spec.id for one in parts if not one.down and not one.chained and not one.state_is("skipped")]
    return tuple(Output(name.removeprefix(f"{plan.prefix}."), Ref(name)) for name in ends)


def _value(turn: Turn, run: Run, output: Output) -> bytes:
    """JSON of an output; empty if it is not inline. Raises: RefMissing."""
    found = turn.binder.input(run, output.ref)
    parts = [found.value] if found.parts is None else found.parts
    if not all(isinstance(part, bytes) for part in parts) or sum(map(len, parts)) > INLINE_LIMIT:  # type: ignore[arg-type]
        return b""
    if found.parts is None:
        return bytes(found.value)  # type: ignore[arg-type]
    return msgspec.json.encode(descend(turn.binder.rows(found), found.pointer))


def _composed(plan: SubPlan, values: dict[str, bytes]) -> bytes:
    """The outputs as one inline value. What is not inline, or has no room, stands there as where it is found; a
    reference to it leads there in any case (Binder.follow)."""
    refs = {output.name: output.ref for output in plan.outputs}
    room = INLINE_LIMIT - sum(len(name) + 200 for name in values)
    found: dict[str, bytes] = {}
    for name in sorted(values, key=lambda name: len(values[name])):
        data = values[name]
        room -= len(data)
        if not data or room < 0:
            ref = refs.get(name, Ref(f"{plan.prefix}.{name}"))
            data = msgspec.json.encode({"ref": str(ref.refs[0] if isinstance(ref, FirstOf) else ref)})
        found[name] = data
    return b"{" + b",".join(msgspec.json.encode(name) + b":" + found[name] for name in values) + b"}"


def standing(run: Run, task: Task) -> str:
    """For people: how far a task that waits for its sub-plan is."""
    plan, state = task.plan, task.state
    if plan is None or not isinstance(state, Waiting):
        return ""
    goal = Wish.read(state.detail).goal
    final = sum(run.tasks[ix].final for ix in plan.tasks)
    asked = any(call.task == task.ix for call in run.calls.values())
    what = "the planner is asked" if asked or not plan.tasks else f"{final} of {len(plan.tasks)} tasks are done"
    return f"its sub-plan, round {max(1, plan.rounds)} of {plan.most}, {what}: {goal}"
