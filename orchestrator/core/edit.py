"""Patches: checked whole against the graph as it is, then accepted as one event or refused with every problem."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from itertools import takewhile
from typing import Final

import msgspec

from protocol.cycle import find_cycle
from protocol.document import nearest
from protocol.errors import Conflict, PlanRefused, Problem
from protocol.patch import Edit, Patch
from protocol.task import EFFECT_ORDER, INPUT, FirstOf, Ref, TaskSpec, references, secrets_in

from . import event as e
from .consult import excess
from .graph import Run, Task
from .inspection import Inspection
from .lifecycle import AwaitingApproval, Closed, Pending, Ready, Settled
from .planner_call import PlannerCall
from .settlement import cancel_task, settle
from .turn import Turn

_NAMED: Final = 8
_WORDS: Final = frozenset(("any", "here", "all", "cpu", "gpu", "edge"))


def problems_of(turn: Turn, run: Run, patch: Patch, *, first: bool = False) -> list[Problem]:
    """Everything wrong with the patch as an edit of `run`. `first`: a part of the first plan, where ids are new."""
    found: list[Problem] = []
    ids = {spec.id for spec in patch.tasks}
    person = patch.author.startswith("person")
    settings, budget = turn.settings, run.settings.budget
    new = sum(spec.id not in run.names for spec in patch.tasks)
    cap = min(budget.tasks or settings.max_tasks, settings.max_tasks)
    if len(run.tasks) + new > cap:
        code = "BudgetSpent" if cap == budget.tasks else "PlanTooLarge"
        found.append(Problem(code, "tasks", f"{len(run.tasks) + new} tasks, the limit is {cap}"))
    if patch.author == "planner" and len(patch.tasks) > settings.max_planner_tasks:
        found.append(Problem("PlanTooLarge", "tasks", f"a planner may add {settings.max_planner_tasks} tasks at once"))
    if len(ids) < len(patch.tasks):
        twice = sorted(name for name, count in Counter(spec.id for spec in patch.tasks).items() if count > 1)
        found.append(Problem("DuplicateId", "tasks", f"{', '.join(twice)} is there twice", "use each id once"))
    later = set(ids)
    forward = False
    checks = Inspection(turn, run)
    turn.state.forget_references()
    for index, spec in enumerate(patch.tasks):
        where = f"tasks/{index}"
        old = run.tasks[run.names[spec.id]] if spec.id in run.names else None
        if old is not None and (first or not rewritable(old)):
            code, why = (
                ("DuplicateId", "is used already") if first else ("AlreadyDispatched", "is dispatched or settled")
            )
            found.append(Problem(code, f"{where}/id", f"{spec.id} {why}", "choose another id"))
        if old is not None and not person:
            _check_tighter(spec, old.spec, where, found)
        checks.look(spec, where, found)
        if not person and _names_secret(spec):
            why = "only a person's plan may name a secret: whatever wrote this may have been talked into it"
            found.append(Problem("SecretDenied", f"{where}/args", why, "write that task into the plan"))
        sources = _check_names(turn, run, spec, ids, where, found)
        forward = forward or not later.isdisjoint(sources)  # only then can new tasks alone close a cycle
        later.discard(spec.id)
    if patch.links or forward or any(spec.id in run.names for spec in patch.tasks):
        cycle = find_cycle(_upstreams(run, patch))
        if cycle:
            found.append(Problem("Cycle", "tasks", " -> ".join(cycle), "remove one of these edges"))
    for name in (name for pair in (*patch.links, *patch.unlinks) for name in pair):
        if name not in run.names and name not in ids:
            found.append(Problem("UnknownReference", "links", f"there is no task {name}", nearest(name, run.names)))
    for _, down in (*patch.links, *patch.unlinks):
        if down in run.names and not rewritable(run.tasks[run.names[down]]):
            found.append(Problem("AlreadyDispatched", "links", f"{down} is dispatched or settled"))
    for output in patch.outputs or ():
        for ref in output.ref.refs if isinstance(output.ref, FirstOf) else (output.ref,):
            if ref.source != INPUT and ref.source not in run.names and ref.source not in ids:
                found.append(Problem("BadOutput", f"outputs/{output.name}", f"there is no task {ref.source}"))
    for index, edit in enumerate(patch.edits):
        _check_edit(run, edit, f"edits/{index}", found)
    return found


def _check_tighter(spec: TaskSpec, old: TaskSpec, where: str, found: list[Problem]) -> None:
    """Who rewrites a task may not take from it what a person, or the plan, tightened."""
    effect = spec.effect or "pure"  # else the skill's own
    if old.approve and not spec.approve:
        found.append(Problem("Loosens", f"{where}/approve", f"{old.id} asks for approval", "keep approve"))
    if old.effect is not None and EFFECT_ORDER[effect] < EFFECT_ORDER[old.effect]:
        found.append(Problem("Loosens", f"{where}/effect", f"{old.id} is {old.effect}", f'keep effect "{old.effect}"'))


def _names_secret(spec: TaskSpec) -> bool:
    return b'"secret"' in spec.args and any(secrets_in(msgspec.json.decode(spec.args)))


def judge(turn: Turn, run: Run, specs: tuple[TaskSpec, ...]) -> list[Problem]:
    """What is wrong with each task by itself: skill, arguments, places, files. Not whom it names."""
    found: list[Problem] = []
    checks = Inspection(turn, run)
    for index, spec in enumerate(specs):
        checks.look(spec, f"tasks/{index}", found)
    return found


def _sources(spec: TaskSpec) -> set[str]:
    up = {*spec.after, *(line.ref.source for line in spec.when), *(on.source for on in spec.on if isinstance(on, Ref))}
    if b'"ref"' in spec.args:
        for ref in references(msgspec.json.decode(spec.args)):
            up |= {one.source for one in (ref.refs if isinstance(ref, FirstOf) else (ref,))}
    return up - {INPUT}


def dangling(patch: Patch) -> list[str]:
    """Tasks that a patch which is a whole graph refers to and does not have."""
    named = {name for spec in patch.tasks for name in _sources(spec)}
    for output in patch.outputs or ():
        named |= {one.source for one in (output.ref.refs if isinstance(output.ref, FirstOf) else (output.ref,))}
    return sorted(named - {spec.id for spec in patch.tasks} - {INPUT})


def editable(task: Task) -> bool:
    """Not dispatched, not settled; or failed and still open."""
    if type(task.state) is Settled:
        return task.state.open
    return type(task.state) in (Pending, Ready, AwaitingApproval) and not task.attempts


def rewritable(task: Task) -> bool:
    """Editable, and no map whose elements others were expanded from: theirs would wait for elements that are gone."""
    return editable(task) and not (task.spread is not None and task.chained)


def _check_names(turn: Turn, run: Run, spec: TaskSpec, ids: set[str], where: str, found: list[Problem]) -> set[str]:
    """Whom the task names; the sources it names."""
    sources: set[str] = set()
    if not spec.after and not spec.when and not spec.on and b'"ref"' not in spec.args:
        return sources

    def check_ref(ref: Ref, at: str) -> None:
        sources.add(ref.source)
        if ref.source == INPUT:
            if ref.path[0] not in run.inputs:
                message = f"the run has no input {ref.path[0]}"
                found.append(Problem("UnknownInput", at, message, nearest(ref.path[0], run.inputs)))
        elif ref.source == spec.id:
            found.append(Problem("SelfReference", at, f"{spec.id} refers to itself"))
        elif ref.source not in ids and ref.source not in run.names:
            fix = nearest(ref.source, [*run.names, *ids])
            found.append(Problem("UnknownReference", at, f"there is no task {ref.source}", fix))

    mapped = False
    for ref in turn.state.references(spec.args):
        for one in ref.refs if isinstance(ref, FirstOf) else (ref,):
            if one.source in ids and one.source != spec.id:
                sources.add(one.source)
            else:
                check_ref(one, f"{where}/args")
            mapped = mapped or one.each
    for line in spec.when:
        check_ref(line.ref, f"{where}/when")
    for name in spec.after:
        check_ref(Ref(name), f"{where}/after")
    for word in spec.on:
        if isinstance(word, Ref):
            check_ref(word, f"{where}/on")
    if mapped and "all" in spec.on:
        found.append(Problem("BadOn", f"{where}/on", "a map can't also run on all", "use one task for each"))
    return sources


def _upstreams(run: Run, patch: Patch) -> dict[str, set[str]]:
    specs = {task.spec.id: task.spec for task in run.roots()} | {spec.id: spec for spec in patch.tasks}
    found: dict[str, set[str]] = {}
    for name, spec in specs.items():
        found[name] = _sources(spec)
    for upper, lower in patch.links:
        found.setdefault(lower, set()).add(upper)
    for upper, lower in patch.unlinks:
        found.get(lower, set()).discard(upper)
    return found


def _check_edit(run: Run, edit: Edit, where: str, found: list[Problem]) -> None:
    if edit.op == "finish":
        return
    task = run.find(edit.id)
    if task is None:
        found.append(Problem("UnknownReference", where, f"there is no task {edit.id}", nearest(edit.id, run.names)))
        return
    is_open = type(task.state) is Settled and task.state.open
    if edit.op in ("retry", "give_up") and not is_open:
        found.append(Problem("NotOpen", where, f"{edit.id} is not an open failure", "fork the run to run it again"))
    if edit.op == "remove" and not editable(task):
        found.append(Problem("AlreadyDispatched", where, f"{edit.id} is dispatched or settled", "cancel it instead"))
    if edit.op == "cancel" and type(task.state) is Settled:
        found.append(Problem("AlreadySettled", where, f"{edit.id} is settled"))
    if edit.op == "retry" and edit.alt and edit.alt not in task.spec.alt:
        found.append(Problem("UnknownSkill", where, f"{edit.alt} is not an alt of {edit.id}"))


def conflicts(run: Run, patch: Patch, own: Collection[int] = ()) -> list[str]:
    """Tasks the patch touches or relies on that changed after its base, but not by its `own` versions; empty if it has
    no base."""
    if patch.base < 0:
        return []
    names = {spec.id for spec in patch.tasks} | {edit.id for edit in patch.edits} | set(patch.relies)
    names |= {name for pair in (*patch.links, *patch.unlinks) for name in pair}
    for spec in patch.tasks:
        names |= {line.ref.source for line in spec.when} | set(spec.after)
        if b'"ref"' in spec.args:
            for ref in references(msgspec.json.decode(spec.args)):
                names |= {one.source for one in (ref.refs if isinstance(ref, FirstOf) else (ref,))}
    later = takewhile(lambda one: one.number > patch.base, reversed(run.versions))
    edited = {edit.id for one in later if one.number not in own for other in one.patches for edit in other.edits}
    return sorted(
        name
        for name in names
        if (ix := run.names.get(name)) is not None
        and (name in edited or ((version := run.tasks[ix].version) > patch.base and version not in own))
    )


def propose(
    turn: Turn, run: Run, patch: Patch, *, first: bool = False, written: tuple[tuple[str, int], ...] = (),
    call: PlannerCall | None = None,
) -> None:  # fmt: skip
    """Accept the patch as one event, and carry out its edits. `call`: the planner call that wrote it.

    Raises: PlanRefused, Conflict (nothing has changed).
    """
    if run.cancelled and type(run.state) is not Closed:
        raise PlanRefused(f"{run.name} is being cancelled; its graph can't change", hint=f"asterism fork {run.name}")
    if type(run.state) is Closed:
        raise PlanRefused(f"{run.name} is settled; its graph can't change", hint=f"asterism fork {run.name}")
    moved = conflicts(run, patch, call.versions if call is not None else ())
    if moved:
        raise Conflict(
            f"{', '.join(moved)} changed after version {patch.base}", hint=f"read version {run.version} and try again"
        )
    found = problems_of(turn, run, patch, first=first)
    if call is not None:
        found += excess(turn, run, call, patch)
    if found:
        raise PlanRefused(f"the patch was refused: {len(found)} problem{'s' * (len(found) > 1)}", problems=found)
    accept(turn, run, patch, first=first, written=written, call=call)


def deadline_of(run: Run, task: Task) -> float:
    """Run time of the task's own deadline: it counts from the version that brought it."""
    since = next((one.at for one in reversed(run.versions) if one.number == task.version), run.submitted_at)
    return since + (task.spec.deadline_s or 0.0)


def accept(
    turn: Turn, run: Run, patch: Patch, *, first: bool = False, written: tuple[tuple[str, int], ...] = (),
    call: PlannerCall | None = None,
) -> None:  # fmt: skip
    """The checked patch as one event, and its edits carried out. The parts that a planner streams are one version.
    `written`: see PatchAccepted."""
    version = run.version if patch.parent else max(1, run.version) if first else run.version + 1
    if call is not None and call.versions and call.versions[-1] == run.version:
        version = run.version
    number = call.call if call is not None else 0
    turn.emit(e.PatchAccepted(run.ix, version, patch, turn.now, written=written, call=number))
    for spec in patch.tasks:
        if spec.deadline_s is not None:
            task = run.tasks[run.names[spec.id]]
            turn.wake(deadline_of(run, task), "task_deadline", run.ix, task.ix)
    for edit in patch.edits:
        _carry_out(turn, run, edit, patch.author)


def _carry_out(turn: Turn, run: Run, edit: Edit, author: str) -> None:
    why = edit.note or f"edit by {author}"
    task = run.find(edit.id)
    if edit.op == "finish":
        needed = _needed(run)
        for other in run.tasks:
            if other.parent < 0 and other.owner < 0 and other.ix not in needed:
                cancel_task(turn, run, other, why, author)
    elif task is None or task.final:
        return  # an edit before it in the same patch has settled it
    elif edit.op == "cancel":
        cancel_task(turn, run, task, why, author)
    elif edit.op == "remove":
        if type(task.state) is Settled:  # an open failure is taken back before it can end in another way
            turn.emit(e.TaskRequeued(run.ix, task.ix, turn.now, why, False, task.skill, -1, turn.now))
        if task.spread is not None:
            cancel_task(turn, run, task, why, author)
        else:
            settle(turn, run, task, "cancelled", code="Removed", message=why)
    elif type(task.state) is not Settled:
        return  # it is an open failure no more
    elif edit.op == "retry":
        turn.emit(e.TaskRequeued(run.ix, task.ix, turn.now, why, False, edit.alt or task.skill, -1, turn.now))
    else:
        turn.emit(e.FailureSettled(run.ix, task.ix, "given_up", turn.now))


def _needed(run: Run) -> set[int]:
    """Tasks the declared outputs hang on; all of them when none are declared."""
    if not run.outputs:
        return {task.ix for task in run.tasks}
    stack = [
        run.names[one.source]
        for output in run.outputs
        for one in (output.ref.refs if isinstance(output.ref, FirstOf) else (output.ref,))
        if one.source != INPUT
    ]
    seen = set(stack)
    while stack:
        wiring = run.tasks[stack.pop()].wiring
        for up in wiring.upstreams() | set(wiring.chain):
            if up not in seen:
                seen.add(up)
                stack.append(up)
    return seen
