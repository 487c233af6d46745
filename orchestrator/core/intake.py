"""What became ready gets into the queue, or waits beside it until its map, its run's plan or its budget lets it.

Invariant: a ready task is in the queue, beside it, or has a timer that brings it there. Who runs it is decided later.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from protocol.artifact import parse_file
from protocol.schema import files_in, has_files
from protocol.skill import SkillSpec
from protocol.task import substitute

from .adoption import adopted
from .binding import RefMissing
from .edit import deadline_of
from .eligibility import kind_of
from .graph import Run, Task
from .lifecycle import Ready
from .queue import EVER
from .settlement import fail
from .turn import Turn
from .urgency import urgency_s


def absorb(turn: Turn) -> None:
    """Sort what became ready into the queue; what must wait for its backoff gets a timer."""
    while turn.state.fresh:  # an adopted attempt may make more
        fresh, turn.state.fresh = turn.state.fresh, []
        for number, ix in fresh:
            run = turn.state.runs.get(number)
            if run is None:
                continue
            task = run.tasks[ix]
            if turn.holds and (number, ix) in turn.holds and type(task.state) is Ready and adopted(turn, run, task):
                continue
            enqueue(turn, run, task)


def enqueue(turn: Turn, run: Run, task: Task) -> None:
    """Queue one ready task (or a running one that wants a hedge)."""
    state = task.state
    if type(state) is Ready:
        if state.not_before > turn.now:
            turn.wake(state.not_before, "ready", run.ix, task.ix)
            return
    elif (run.ix, task.ix) not in turn.hedges:
        return
    spec = turn.contract(task)
    if spec is None:
        fail(turn, run, task, "UnknownSkill", f"nobody offers {task.skill} any more")
        return
    if turn.ruling(task.skill) == "deny":
        fail(turn, run, task, "PolicyDenied", f"this server's policy denies {task.skill}")
        return
    if spec.place == "engine":
        turn.serving[run.ix, task.ix] = None
        return
    kind = kind_of(turn.state, run, task, spec, file_worker(turn, run, task, spec))
    hurried = run.settings.deadline_s or task.spec.deadline_s is not None
    latest = _latest(turn, run, task) if hurried else EVER
    turn.queue.push(kind, spec, run, task, urgency_s(turn, run, task), latest)


def _latest(turn: Turn, run: Run, task: Task) -> float:
    """When it must start if its own deadline and its run's are to be met."""
    run_s = turn.predictor.measured(task.skill) or 0.0
    latest = deadline_of(run, task) - run_s if task.spec.deadline_s is not None else EVER
    if run.settings.deadline_s:
        latest = min(latest, run.submitted_at + run.settings.deadline_s - urgency_s(turn, run, task))
    return latest


def file_worker(turn: Turn, run: Run, task: Task, spec: SkillSpec) -> str:
    """The worker whose file a local skill acts on, as far as its arguments show it inline."""
    if spec.place != "local" or task.spec.on or not has_files(spec.params):
        return ""
    values: dict[str, object] = {str(ref): None for ref in task.wiring.refs}
    try:
        for one in turn.binder.bind(run, task, "", "").inputs:
            if isinstance(one.value, bytes) and one.parts is None:
                values[one.key] = turn.binder.decoded(one.value)
    except RefMissing:
        return ""
    for text in files_in(spec.params, substitute(msgspec.json.decode(task.spec.args), values)):
        uri = parse_file(text)
        if uri is not None:
            return uri.worker
    return ""


def unbar(turn: Turn, waiting: dict[int, dict[int, None]], free: Callable[[Run], bool]) -> None:
    """Tasks that wait beside the queue for something of their run go back into it."""
    for number in list(waiting):
        run = turn.state.runs.get(number)
        if run is None or free(run):
            for ix in waiting.pop(number):
                if run is not None:
                    enqueue(turn, run, run.tasks[ix])


def parked(turn: Turn, run: Run, task: Task) -> bool:
    """A child over its map's limit waits beside the queue for a sibling to end."""
    spread = run.tasks[task.parent].spread
    if spread is None or spread.busy < task.spec.map.limit:
        return False
    turn.parked.setdefault((run.ix, task.parent), {})[task.ix] = None
    return True


def unpark(turn: Turn) -> bool:
    """Children of limited maps for which there is room again go back into the queue."""
    moved = False
    for (number, ix), waiting in list(turn.parked.items()):
        run = turn.state.runs.get(number)
        task = run.tasks[ix] if run is not None else None
        room = task.spec.map.limit - task.spread.busy if task is not None and task.spread is not None else 0
        for child in list(waiting)[: max(0, room)]:
            del waiting[child]
            if run is not None and type(run.tasks[child].state) is Ready:
                enqueue(turn, run, run.tasks[child])
                moved = True
        if not waiting or (room <= 0 and (task is None or task.final)):
            del turn.parked[number, ix]
    return moved
