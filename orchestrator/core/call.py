"""What a running attempt may ask for: spawn, join, ask, propose, begin_effect, checkpoint, restore, emit.

The k-th call of an attempt is answered once, from the journal; a repetition gets the same answer. Children are named
by the place of their spawn in the attempt, so a re-run of the parent finds them again.
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from protocol.document import FILE_LIMITS, Problems, canonical
from protocol.errors import AsterismError, Conflict, NotAllowed, NotFound, PlanRefused, Problem, UsageError
from protocol.frame import Call, Cancel, Return
from protocol.patch import Patch
from protocol.plan import parse_patch
from protocol.schema import check
from protocol.task import TaskSpec
from protocol.task_form import TaskReader

from . import event as e
from .answer import give
from .displacement import kept
from .edit import propose
from .fleet import Session
from .graph import CHECKPOINT, Run, Task
from .inspection import denied
from .joining import assign_again
from .lifecycle import Running, Waiting
from .planner_call import Wish
from .proposal import check_goal
from .settlement import stop_attempt
from .turn import Turn

_CALLS: Final = 1_000_000
_CHILD: Final = b'{"id":'
_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def called(turn: Turn, session: Session, call: Call) -> None:
    """Answer a Call, unless its attempt is not this worker's live one."""
    ident = call.attempt
    run = turn.state.runs.get(ident.run)
    task = run.tasks[ident.task] if run is not None and 0 <= ident.task < len(run.tasks) else None
    attempt = task.attempt(ident.number) if task is not None else None
    if run is None or task is None or attempt is None or attempt.worker != session.worker or attempt.ended:
        if attempt is None or attempt.worker != session.worker:
            turn.inadmissible(session.name, "ForeignAttempt", "a call", ident)
        else:
            turn.count("call_of_ended_attempt")
            # A copy of its Assign that came late: nobody will answer it, so it must not wait for an answer.
            turn.send(session, Cancel(ident, turn.settings.cancel_grace_s), after_commit=True)
        return
    if not 0 < call.k < _CALLS:
        turn.inadmissible(session.name, "BadCall", f"call {call.k}", ident)
        return
    if run.aside:
        turn.count("run_aside")  # it is sent again, and answered when the run is taken up again
        return
    turn.focus = run.ix
    if attempt.fence != call.fence:
        turn.inadmissible(session.name, "StaleFence", "a call", ident)
        key = (ident.run, ident.task, ident.number)
        if key in session.loads and call.fence < attempt.fence and not attempt.began:
            if task.cancelling or run.cancelled:
                stop_attempt(turn, run, task, attempt)
            else:
                assign_again(turn, session, key)  # it runs an older one of this number, so the Assign got lost
        return
    known = task.spawned.calls.get(ident.number * _CALLS + call.k) if task.spawned is not None else None
    if known is not None:
        turn.send(session, Return(ident, call.k, known[0], known[1]), after_commit=True)
        return
    if type(task.state) is Waiting:
        if task.state.number != ident.number:
            # The other attempt is further. Both would hold a slot that the children they wait for may need.
            stop_attempt(turn, run, task, attempt)
        elif (run.ix, task.ix) not in turn.joins:
            _wait_again(turn, run, task, call)
        return  # a repetition of the call it waits in: the answer will come
    try:
        body = msgspec.json.decode(call.body)
        value = _carry_out(turn, run, task, call, body)
    except msgspec.DecodeError:
        _answer(turn, session, run, task, call, error=UsageError("the call's body is not JSON"))
    except AsterismError as error:
        _answer(turn, session, run, task, call, error=error)
    else:
        if value is not _LATER:
            _answer(turn, session, run, task, call, value=value)
        load = session.loads.get((ident.run, ident.task, ident.number))
        if call.what == "restore" and value is not None and load is not None:
            load.resumed = True
        if call.what == CHECKPOINT:
            kept(turn, run, task, ident.number)


_LATER = object()


def _answer(
    turn: Turn, session: Session, run: Run, task: Task, call: Call, value: object = None,
    error: AsterismError | None = None,
) -> None:  # fmt: skip
    data = msgspec.json.encode(value)
    wrong = msgspec.json.encode(error.to_wire()) if error is not None else b""
    turn.emit(e.CallAnswered(run.ix, task.ix, call.attempt.number, call.k, data, wrong))
    turn.send(session, Return(call.attempt, call.k, data, wrong), after_commit=True)


def _carry_out(turn: Turn, run: Run, task: Task, call: Call, body: Any) -> object:
    number = call.attempt.number
    if type(task.state) is not Running:
        raise Conflict(f"{turn.name(run, task)} is not running")
    if call.what in ("spawn", "propose", "begin_effect") and (task.cancelling or run.cancelled):
        raise NotAllowed("the task is being cancelled")
    if call.what == "spawn":
        return _spawn(turn, run, task, number, body)
    if call.what == "join":
        return _join(turn, run, task, call, body)
    if call.what == "ask":
        _check_question(body)
        deadline = turn.now + turn.settings.approval_s
        turn.emit(e.TaskWaited(run.ix, task.ix, number, "ask", canonical(body).decode(), deadline))
        turn.joins[run.ix, task.ix] = (number, call.k, [])
        turn.wake(deadline, "approval", run.ix, task.ix)
        _yield(turn, run, task, number)
        return _LATER
    if call.what == "propose":
        return _propose(turn, run, task, call, body)
    if call.what == "begin_effect":
        turn.emit(e.EffectBegun(run.ix, task.ix, number))
        return None
    if call.what == "restore":
        alt, kept = task.spawned.checkpoint if task.spawned is not None else (0, b"")
        return msgspec.json.decode(kept) if kept and alt == task.alt else None
    if call.what == "emit" and (not isinstance(body, dict) or body.get("kind") == CHECKPOINT):
        raise UsageError("emit takes a kind of your own and a body")
    kind = str(body.get("kind", "")) if call.what == "emit" else CHECKPOINT
    data = body.get("body") if call.what == "emit" else body
    turn.emit(e.Emitted(run.ix, task.ix, number, kind, canonical(data)))
    return None


def _check_question(body: Any) -> None:
    choices = body.get("choices") if isinstance(body, dict) else None
    if not (choices is None or isinstance(choices, list)):
        raise UsageError("the choices of a question are a list")


def _spawn(turn: Turn, run: Run, task: Task, number: int, body: Any) -> dict[str, str]:
    if not isinstance(body, dict) or not isinstance(body.get("skill"), str):
        raise UsageError("spawn takes a skill and its args")
    args = body.get("args") or {}
    skill = turn.state.skill(body["skill"])
    if skill is None:
        raise NotFound(f"no worker ever announced {body['skill']}", hint="see asterism skills")
    if why := denied(turn, run, skill.name):
        raise NotAllowed(why, hint="spawn another skill")
    problems = check(skill.params, args, "args")
    if problems:
        raise PlanRefused(f"spawn of {skill.name} was refused", problems=problems)
    spec = _child(task, skill.name, args, body)
    spawned = task.spawned
    answered = spawned.calls.items() if spawned is not None else ()
    place = sum(key // _CALLS == number and not bad and value.startswith(_CHILD) for key, (value, bad) in answered)
    key = str(body.get("key") or place)
    if not _KEY.fullmatch(key):
        raise UsageError(f"{key!r} is no key for a child", hint="use letters, digits, - and _")
    child = spawned.children.get(key) if spawned is not None else None
    if child is not None:
        if run.tasks[child].spec != spec:
            raise Conflict(f"SpawnDiverged: child {key} was spawned before with another spec", hint="give a key")
        return {"id": run.name_of(run.tasks[child])}
    _check_room(turn, run, task)
    patch = Patch(author=f"task:{run.name_of(task)}", tasks=(spec,), why="spawn", parent=run.name_of(task))
    turn.emit(e.PatchAccepted(run.ix, run.version, patch, turn.now, key))
    return {"id": f"{run.name_of(task)}.{key}"}


def _child(task: Task, skill: str, args: Any, body: dict[str, Any]) -> TaskSpec:
    """The child's spec; `on` and `needs` are read as those of a plan are. Raises: PlanRefused."""
    said = {key: body[key] for key in ("on", "needs") if body.get(key)}
    if not (isinstance(said.get("on", []), list) and all(isinstance(word, str) for word in said.get("on", ()))):
        raise UsageError("`on` of a child is a list of words")
    problems = Problems()
    read = TaskReader(problems, FILE_LIMITS.max_string).read({"id": task.spec.id, "skill": skill, **said}, "spawn")
    problems.raise_any("the child")
    assert read is not None
    return msgspec.structs.replace(read, args=canonical({"literal": args}))


def _check_room(turn: Turn, run: Run, task: Task) -> None:
    budget, depth, above = run.settings.budget, 1, task
    while above.parent >= 0:
        depth, above = depth + 1, run.tasks[above.parent]
    if depth > (budget.depth or turn.settings.max_depth):
        raise PlanRefused("spawned too deep", problems=[Problem("BudgetSpent", "depth", f"{depth} levels")])
    if len(run.tasks) >= (budget.tasks or turn.settings.max_tasks):
        raise PlanRefused(
            "no room for another task", problems=[Problem("BudgetSpent", "tasks", f"{len(run.tasks)} tasks")]
        )


def _wait_again(turn: Turn, run: Run, task: Task, call: Call) -> None:
    """After a restart the attempt still waits: what for stands in the call it sends again."""
    assert isinstance(task.state, Waiting)
    children: list[int] = []
    if task.state.what != call.what:
        return
    if task.state.what == "join":
        body = msgspec.json.decode(call.body)
        names = body.get("ids", []) if isinstance(body, dict) else []
        children = [child.ix for name in names if (child := run.find(str(name))) is not None]
    turn.joins[run.ix, task.ix] = (call.attempt.number, call.k, children)
    turn.state.due.append((run.ix, task.ix))


def _join(turn: Turn, run: Run, task: Task, call: Call, body: Any) -> object:
    names = body.get("ids") if isinstance(body, dict) else None
    if not isinstance(names, list):
        raise UsageError("join takes the ids of children")
    children = []
    for name in names:
        child = run.find(str(name))
        if child is None or child.parent != task.ix:
            raise NotFound(f"{name} is not a child of {run.name_of(task)}")
        children.append(child.ix)
    number = call.attempt.number
    turn.joins[run.ix, task.ix] = (number, call.k, children)
    turn.emit(e.TaskWaited(run.ix, task.ix, number, "join", ", ".join(map(str, names))))
    _yield(turn, run, task, number)
    return _LATER


def _yield(turn: Turn, run: Run, task: Task, number: int) -> None:
    attempt = task.attempt(number)
    session = turn.fleet.sessions.get(attempt.worker) if attempt is not None else None
    if session is not None:
        session.yield_cpu((run.ix, task.ix, number))


def _propose(turn: Turn, run: Run, task: Task, call: Call, body: Any) -> object:
    goal = body.get("goal") if isinstance(body, dict) else None
    if goal is not None:
        wish = Wish(check_goal(turn, run, goal))
        number = call.attempt.number
        turn.joins[run.ix, task.ix] = (number, call.k, [])
        turn.emit(e.TaskWaited(run.ix, task.ix, number, "propose", wish.detail()))
        _yield(turn, run, task, number)
        return _LATER
    document = body.get("patch") if isinstance(body, dict) else None
    patch = parse_patch(document if isinstance(document, dict) else {}, author=f"task:{run.name_of(task)}")
    fresh = msgspec.structs.replace(patch, author=f"task:{run.name_of(task)}", parent="")
    propose(turn, run, fresh)
    return {"version": run.version}


def answer(turn: Turn, run: Run, task: Task, value: bytes, by: str) -> None:
    """A person's answer to the question a task waits in. Raises: NotFound when it asks nothing."""
    state = task.state
    waiting = turn.joins.get((run.ix, task.ix))
    if type(state) is not Waiting or state.what != "ask" or waiting is None:
        raise NotFound(f"{turn.name(run, task)} asks nothing", hint="see asterism status")
    number, k, _ = waiting
    question = msgspec.json.decode(state.detail)
    choices = question.get("choices") if isinstance(question, dict) else None
    given = msgspec.json.decode(value)
    if choices and given not in choices:
        raise UsageError(f"{given!r} is not one of {', '.join(map(str, choices))}")
    give(turn, run, task, number, k, canonical({"answer": given, "by": by}))
