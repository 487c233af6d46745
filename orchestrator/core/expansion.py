"""Tasks that are due for a decision: conditions judged, maps expanded, maps and joins completed, runs closed."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from protocol.artifact import ArtifactRef
from protocol.builtin_model import MODEL_SKILLS
from protocol.errors import AsterismError
from protocol.pointer import MISSING
from protocol.task import INPUT, AnyRef, Ref

from . import command as c
from . import event as e
from .answer import give
from .binding import RefMissing
from .condition import Judgement, default_condition, judge
from .eligibility import could_return, eligible, kind_of
from .graph import Run, Task
from .lifecycle import Expanded, Pending, Settled, Waiting
from .planning import drop_moot
from .settlement import close_run, fail, settle
from .silence import lease_s
from .turn import Turn

_RECHECK_S: Final = 0.5
CHUNK_S: Final = 0.1
"""What a chunk that is sized automatically should take: an attempt's own cost is a small part of it, a retry too."""
_CHUNKS: Final = 4
"""So many of them each slot gets at least, so that unlike ones end together."""


def settle_due(turn: Turn) -> None:
    """Decide everything that is due, in order, until nothing is; then close the runs that came to an end."""
    state = turn.state
    while state.due or turn.dirty:
        due, state.due = state.due, []
        for number, ix in due:
            run = state.runs.get(number)
            if run is not None and not run.aside:
                turn.focus = number
                _decide(turn, run, run.tasks[ix])
        if not state.due:
            runs, turn.dirty = turn.dirty, {}
            for number in runs:
                run = state.runs.get(number)
                if run is not None and not run.aside:
                    turn.focus = number
                    if run.settings.review:
                        turn.asking[number] = None
                    if run.calls:
                        drop_moot(turn, run)
                    close_run(turn, run)


def _decide(turn: Turn, run: Run, task: Task) -> None:
    state = task.state
    if type(state) is Expanded:
        if task.spread is not None and not task.spread.left:
            _complete_map(turn, run, task)
    elif isinstance(state, Waiting):
        if state.what == "join":
            _complete_join(turn, run, task)
        elif state.what in ("propose", "plan"):
            turn.want(run.ix, task.ix)
    elif type(state) is Pending and not task.waits:
        if run.cancelled:
            settle(turn, run, task, "cancelled", message="the run was cancelled")
        else:
            _judge(turn, run, task)


def _judge(turn: Turn, run: Run, task: Task) -> None:
    elements = turn.state.elements(run, task) if task.parent >= 0 else []
    if task.parent >= 0:
        _element(turn, run, task, elements)
        return
    found = default_condition(run, task, elements)
    if found.held and task.spec.when and not task.judged:
        found = judge(run, task, turn.binder, turn.resolved.get((run.ix, task.ix), {}))
        if found.held is None and found.wants is not None:
            _resolve(turn, run, task, found.wants, "value")
            return
        if found.error:
            fail(turn, run, task, "WhenType", found.error)
            return
        turn.emit(e.WhenJudged(run.ix, task.ix, bool(found.held), found.why, turn.now))
        if found.held:
            return  # due again, or ready
    if not found.held:
        settle(turn, run, task, "skipped", code="ConditionNotHeld", message=found.why)
    elif task.spec.on == ("all",):
        _expand_all(turn, run, task)
    elif task.wiring.mapped:
        _expand_map(turn, run, task)
    else:
        turn.emit(e.WhenJudged(run.ix, task.ix, True, "", turn.now))


def _element(turn: Turn, run: Run, task: Task, elements: list[int]) -> None:
    """A child whose upstream element did not succeed: it takes the failure over where that map collects errors."""
    found: Judgement = default_condition(run, task, elements)
    bad = next((run.tasks[ix] for ix in elements if not run.tasks[ix].succeeded), None)
    planned = task.parent >= 0 and run.tasks[task.parent].owner >= 0
    may_come = (run.settings.on_failure == "replan" or planned) and not run.cancelled
    if may_come and bad is not None and not run.tasks[bad.parent].final:
        return  # its map may be tried again; due when that is final
    if bad is not None and bad.state_is("failed") and bad.spec.map.on_error == "collect":
        fail(turn, run, task, "UpstreamFailed", found.why)
    else:
        settle(turn, run, task, "skipped", code="ConditionNotHeld", message=found.why)


def _expand_all(turn: Turn, run: Run, task: Task) -> None:
    spec = turn.contract(task)
    if spec is None:
        fail(turn, run, task, "UnknownSkill", f"nobody offers {task.skill}")
        return
    kind, away = kind_of(turn.state, run, task, spec, ""), turn.fleet.away
    there = {worker for worker, _, _ in eligible(turn.state, turn.fleet, kind, spec)}
    unseen = False
    for record in could_return(turn.state, turn.fleet, kind, spec):
        if away.get(record.ix, 0.0) > turn.now:
            there.add(record.ix)  # its lease runs: it may be back with the next word
        elif record.ix not in away:
            unseen |= turn.now < turn.fleet.started_at + lease_s(turn, record)
    if unseen:  # after a start of ours they come back one by one
        turn.wake(turn.now + _RECHECK_S, "due", run.ix, task.ix)
        return
    workers = tuple(sorted(there))
    if workers:
        _expand(turn, run, task, len(workers), workers)
        return
    since = turn.waiting_since.setdefault((run.ix, task.ix), turn.now)
    if turn.now - since >= run.settings.schedule_grace_s:
        fail(turn, run, task, "NoEligibleWorker", f"no connected worker offers {task.skill}")
    else:
        turn.wake(turn.now + _RECHECK_S, "due", run.ix, task.ix)


def _expand_map(turn: Turn, run: Run, task: Task) -> None:
    lengths: dict[str, int] = {}
    for ref in task.wiring.refs:
        if isinstance(ref, Ref) and ref.each:
            try:
                found = _length(turn, run, task, ref)
            except RefMissing as error:
                fail(turn, run, task, "MapType", str(error))
                return
            if found is None:
                _resolve(turn, run, task, ref, "length")
                return
            if found < 0:
                fail(turn, run, task, "MapType", f"{ref} is not a list")
                return
            lengths[str(ref)] = found
    items = next(iter(lengths.values()))
    if any(length != items for length in lengths.values()):
        unlike = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        fail(turn, run, task, "MapType", f"lists of unlike length: {unlike}")
    elif items > task.spec.map.max:
        fail(turn, run, task, "MapTooLarge", f"{items} elements, map.max is {task.spec.map.max}")
    elif run.settings.budget.tasks and len(run.tasks) + items > run.settings.budget.tasks:
        fail(turn, run, task, "BudgetSpent", f"{items} elements, the run may have {run.settings.budget.tasks} tasks")
    else:
        _expand(turn, run, task, items, ())


def _expand(turn: Turn, run: Run, task: Task, items: int, workers: tuple[int, ...]) -> None:
    spec = turn.contract(task)
    chunk = task.spec.map.chunk if not workers and spec is not None and spec.place != "engine" else 1
    if chunk <= 0:
        # A call of a model is slow and paid for: one that fails must not repeat others.
        chunk = 1 if task.skill in MODEL_SKILLS else _auto(turn, task, items)
    turn.emit(e.MapExpanded(run.ix, task.ix, items, chunk, workers, turn.now))


def _auto(turn: Turn, task: Task, items: int) -> int:
    """As many elements as take a moment by what was measured; at most so many that every slot gets a few chunks."""
    slots = sum(session.profile.slots for session in turn.fleet.sessions.values())
    most = max(1, items // (_CHUNKS * max(1, slots)))
    each_s = turn.predictor.measured(task.skill)
    return most if each_s is None else max(1, min(most, int(CHUNK_S / each_s)))


def _length(turn: Turn, run: Run, task: Task, ref: Ref) -> int | None:
    """How many elements; -1 for no list, None when an artifact must be read. Raises: RefMissing."""
    known = turn.resolved.get((run.ix, task.ix), {})
    if str(ref) in known:
        length = known[str(ref)]
        return length if isinstance(length, int) else -1
    ref = turn.binder.follow(run, ref)
    if ref.source != INPUT:
        source = run.tasks[run.names[ref.source]]
        if source.spread is not None and not ref.listed:
            return source.spread.items
    found = turn.binder.input(run, Ref(ref.source, ref.listed))
    if isinstance(found.value, ArtifactRef):
        return None
    value = turn.binder.decoded(found.value)
    return len(value) if isinstance(value, list) else -1


def _resolve(turn: Turn, run: Run, task: Task, ref: AnyRef, what: str) -> None:
    """Have the engine read an artifact; the task is due again with the answer."""
    if (run.ix, task.ix) in turn.resolving:
        return
    plain = Ref(ref.source, ref.listed) if isinstance(ref, Ref) and ref.each else ref
    found = turn.binder.input(run, plain)
    assert isinstance(found.value, ArtifactRef)
    turn.resolving.add((run.ix, task.ix))
    turn.command(c.Resolve(run.ix, task.ix, str(ref), found.value, found.pointer, what))


def resolved(turn: Turn, run: int, ix: int, key: str, value: bytes, found: bool, error: str) -> None:
    """The engine has read an artifact for `_resolve`."""
    turn.resolving.discard((run, ix))
    record = turn.state.runs.get(run)
    if record is None or ix >= len(record.tasks) or type(record.tasks[ix].state) is not Pending:
        return
    if error:
        fail(turn, record, record.tasks[ix], "ArtifactUnreadable", error)
        return
    answer: Any = msgspec.json.decode(value) if found else MISSING
    turn.resolved.setdefault((run, ix), {})[key] = answer
    turn.state.due.append((run, ix))


def _complete_map(turn: Turn, run: Run, task: Task) -> None:
    children = [run.tasks[ix] for ix in run.children(task)]
    collect = task.spec.map.on_error == "collect"
    failed = next((child for child in children if child.state_is("failed")), None)
    stopped = next((child for child in children if child.state_is("cancelled") or child.state_is("skipped")), None)
    if run.cancelled or (task.cancelling and not task.stop_code):
        settle(turn, run, task, "cancelled", message="cancelled")
    elif task.stop_code:
        fail(turn, run, task, task.stop_code, "stopped with its elements")
    elif failed is not None and not collect and isinstance(failed.state, Settled):
        fail(turn, run, task, failed.state.code, f"{run.name_of(failed)}: {failed.state.message}")
    elif stopped is not None and not collect and isinstance(stopped.state, Settled):
        message = f"{run.name_of(stopped)} was {stopped.state.state}: {stopped.state.message}"
        settle(turn, run, task, "skipped", code="ElementSkipped", message=message)
    else:
        settle(turn, run, task, "succeeded")


def _complete_join(turn: Turn, run: Run, task: Task) -> None:
    waiting = turn.joins.get((run.ix, task.ix))
    if waiting is None or not isinstance(task.state, Waiting) or task.state.what != "join":
        return
    number, k, children = waiting
    if not all(run.tasks[ix].final for ix in children):
        return
    value, error = b"null", b""
    bad = next((run.tasks[ix] for ix in children if not run.tasks[ix].succeeded), None)
    if bad is not None and isinstance(bad.state, Settled):
        text = f"{run.name_of(bad)} {bad.state.state}: {bad.state.code} {bad.state.message}"
        error = msgspec.json.encode(AsterismError(text, hint="catch it, or spawn another").to_wire())
    else:
        value = b"[" + b",".join(_whole(run.tasks[ix]) for ix in children) + b"]"
    give(turn, run, task, number, k, value, error)


def _whole(task: Task) -> bytes:
    value = task.value
    if isinstance(value, ArtifactRef):
        return msgspec.json.encode({"$artifact": [value.digest, value.media, value.size]})
    return value or b"null"
