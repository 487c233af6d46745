"""What persons do to runs: submit, edit, cancel, pause, approve, answer, resolve, fork, undo, remove."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from protocol.artifact import INLINE_LIMIT, Value
from protocol.errors import AsterismError, Conflict, NotAllowed, NotFound, PlanRefused, SchemaMismatch, UsageError
from protocol.patch import Edit, Patch
from protocol.schema import check
from protocol.task import TaskSpec

from . import event as e
from . import stimulus as s
from .call import answer
from .edit import accept, dangling, judge, problems_of, propose
from .foresight import foresee
from .graph import LATER, PERSON, PLANNED, Run, Task
from .lifecycle import AwaitingApproval, Closed, Open, Paused, Settled, Unknown
from .locality import localised
from .planning import close_call, plan, stop_call, without_known, without_outdated
from .resumption import arm, taken_up
from .settlement import cancel_task, fail, overspent, settle
from .turn import Turn


def find_run(turn: Turn, number: int) -> Run:
    """Raises: NotFound."""
    run = turn.state.runs.get(number)
    if run is None:
        raise NotFound(f"there is no run r{number}", hint="see asterism ps")
    return run


def find_task(run: Run, name: str) -> Task:
    """Raises: NotFound."""
    task = run.find(name)
    if task is None:
        raise NotFound(f"{run.name} has no task {name}", hint=f"see asterism tasks {run.name}")
    return task


def submitted(turn: Turn, item: s.Submitted) -> None:
    """A new run; the same key again gives the same run."""
    if item.key and item.key in turn.state.keys:
        turn.reply(item.reply, {"run": turn.state.keys[item.key], "known": True})
        return
    number = turn.state.runs_made + 1
    event = e.RunSubmitted(
        number, item.request, item.key, item.author, item.settings, item.inputs, item.home, 0, item.labels, turn.now
    )
    if item.patch is not None:
        draft = Run(number, "", "", "", item.settings, item.inputs, item.home, turn.now)
        found = problems_of(turn, draft, item.patch, first=True)
        if found:
            raise PlanRefused(f"the plan was refused: {len(found)} problem{'s' * (len(found) > 1)}", problems=found)
    turn.emit(event)
    run = turn.state.runs[number]
    arm(turn, run)
    if item.patch is not None:
        accept(turn, run, item.patch, first=True)
        turn.emit(e.PlanClosed(number))
        foresee(turn, run)
    elif item.plan:
        plan(turn, run, item.planner)
    turn.reply(item.reply, {"run": number})


def judged(turn: Turn, item: s.PlanJudged) -> None:
    """Tasks that may be a part of a plan: what is wrong with each by itself."""
    draft = Run(turn.state.runs_made + 1, "", "", "", item.settings, item.inputs, item.home, turn.now)
    turn.reply(item.reply, judge(turn, draft, item.tasks))


def patched(turn: Turn, item: s.PatchProposed) -> None:
    """A part of a first plan, a re-plan's edit, or a person's."""
    run = find_run(turn, item.run)
    if item.call and item.call not in run.calls:
        turn.count("patch_of_closed_call")
        raise Conflict(f"planner call {item.call} of {run.name} is over")
    try:
        patch, call = item.patch, run.calls.get(item.call)
        later = call is not None and call.kind != "plan"
        first = not run.planned and not later and (bool(item.call) or item.whole)
        if call is not None:  # whoever a planner says it is
            patch = msgspec.structs.replace(patch, author="planner", parent="")
            patch = localised(run, call, patch) if call.kind == "next" else patch
            patch = without_known(run, patch) if run.lost_plans or call.kind == "next" else patch
            patch = without_outdated(run, patch) if first else patch
        written = tuple((one.id, LATER) for one in patch.tasks if later)
        propose(turn, run, patch, first=first, written=written, call=call)
    except (PlanRefused, Conflict) as error:
        problems = tuple((p.code, p.where, p.message, p.fix) for p in error.problems)
        turn.emit(e.PatchRefused(run.ix, item.patch.author, problems, error.message))
        if item.call:
            dear = bool(error.problems) and all(one.code == "BudgetSpent" for one in error.problems)
            turn.objections[run.ix, item.call] = "unaffordable" if dear else "refused", str(error)
        if item.whole:
            cancel_run(turn, run, item.patch.author, "the plan was refused", "PlanRefused")
            turn.emit(e.PlanClosed(run.ix, "PlanRefused", error.message))
        raise
    turn.reply(item.reply, {"version": run.version})


def plan_finished(turn: Turn, item: s.PlanFinished) -> None:
    """The last part of a first plan was proposed, or a planner call returned."""
    run = find_run(turn, item.run)
    if item.call:
        used = (item.tokens_in, item.tokens_out, item.price, item.calls)
        if item.call in run.calls and (used != (0, 0, 0.0, 1) or item.call in run.spend.reserved):
            turn.emit(e.BudgetSpent(run.ix, item.call, *used))
            if overspent(run):
                turn.overspent[run.ix] = None
        close_call(turn, run, item.call, item.outcome, item.message, item.planner)
    elif not run.planned:
        turn.emit(e.PlanClosed(run.ix, "" if item.outcome == "complete" else "PlanRefused", item.message))
        foresee(turn, run)


def cancel_asked(turn: Turn, item: s.CancelRequested) -> None:
    run = find_run(turn, item.run)
    if item.task:
        cancel_task(turn, run, find_task(run, item.task), item.why or f"cancelled by {item.by}", item.by)
    elif type(run.state) is not Closed:
        cancel_run(turn, run, item.by, item.why or f"cancelled by {item.by}")
    turn.reply(item.reply, {"run": run.ix})


def cancel_run(turn: Turn, run: Run, by: str, why: str, code: str = "") -> None:
    """Stop everything of the run; it is settled when every attempt has confirmed its exit."""
    if type(run.state) is Closed:
        return
    if not run.cancelled or run.aside:
        aside = run.aside
        turn.emit(e.CancelAsked(run.ix, -1, by, why, code))
        if aside:
            taken_up(turn, run)
    for call in list(run.calls):
        stop_call(turn, run, call, "failed", why)
    if not run.planned:
        turn.emit(e.PlanClosed(run.ix))
    for task in run.tasks:
        if task.parent < 0 or run.tasks[task.parent].final:  # a child may outlive its parent
            cancel_task(turn, run, task, why, by)
            if type(task.state) is Settled and task.state.open:
                turn.emit(e.FailureSettled(run.ix, task.ix, "stopped", turn.now))


def stop_overspent(turn: Turn, run: Run) -> None:
    """Attempts say what they have used when they end: nothing more of a run that is over its budget goes on."""
    why = overspent(run)
    if why and type(run.state) is not Closed and not run.cancelled:
        cancel_run(turn, run, "budget", f"it used {why}", "BudgetSpent")


def paused(turn: Turn, item: s.PauseRequested) -> None:
    run = find_run(turn, item.run)
    if item.resume and type(run.state) is Paused:
        aside = run.aside
        turn.emit(e.RunResumed(run.ix, item.by))
        if aside:
            taken_up(turn, run)
    elif not item.resume and type(run.state) is Open:
        turn.emit(e.RunPaused(run.ix, item.by))
    elif type(run.state) is Closed:
        raise Conflict(f"{run.name} is settled")
    turn.reply(item.reply, {"run": run.ix})


def detached(turn: Turn, item: s.DetachRequested) -> None:
    run = find_run(turn, item.run)
    if not run.detached and type(run.state) is not Closed:
        turn.emit(e.RunDetached(run.ix, item.by))
    turn.reply(item.reply, {"run": run.ix})


def approval_decided(turn: Turn, item: s.ApprovalDecided) -> None:
    run = find_run(turn, item.run)
    tasks = [find_task(run, item.task)] if item.task else list(run.tasks)
    asked = [task for task in tasks if type(task.state) is AwaitingApproval]
    if not asked and item.task and _decided_before(tasks[0], item):
        turn.reply(item.reply, {"run": run.ix, "tasks": [run.name_of(tasks[0])], "known": True})
        return
    if not asked:
        raise NotFound(f"nothing of {run.name} awaits approval", hint=f"see asterism status {run.name}")
    for task in asked if item.approved and not turn.settings.self_approval else ():
        author = next((one.author for one in run.versions if one.number == task.version), "")
        if item.by in (run.author, author.removeprefix("person:")):
            raise NotAllowed(
                f"{item.by} may not approve {turn.name(run, task)}, who asked for it",
                hint="another person has to: policy.self_approval is off on this server",
            )
    for task in asked:
        if not isinstance(task.state, AwaitingApproval):
            continue  # a refusal before it has stopped it
        if item.approved:
            turn.emit(e.ApprovalGiven(run.ix, task.ix, item.by, task.state.pin, item.message))
        else:
            turn.emit(e.ApprovalRefused(run.ix, task.ix, item.by, item.message))
            fail(turn, run, task, "Rejected", item.message or f"rejected by {item.by}")
    turn.reply(item.reply, {"run": run.ix, "tasks": [run.name_of(task) for task in asked]})


def _decided_before(task: Task, item: s.ApprovalDecided) -> bool:
    """The same person has said the same already."""
    if task.by != item.by:
        return False
    rejected = isinstance(task.state, Settled) and task.state.code == "Rejected"
    return bool(task.approved) if item.approved else rejected


def answered(turn: Turn, item: s.AnswerGiven) -> None:
    run = find_run(turn, item.run)
    answer(turn, run, find_task(run, item.task), item.value, item.by)
    turn.reply(item.reply, {"run": run.ix})


def unknown_resolved(turn: Turn, item: s.UnknownResolved) -> None:
    run = find_run(turn, item.run)
    task = find_task(run, item.task)
    if type(task.state) is not Unknown:
        _resolved_before(turn, run, task, item)
        return
    number = task.state.number
    if item.how == "succeeded":
        _check_value(turn, task, item.value)
    turn.emit(e.UnknownResolved(run.ix, task.ix, item.by, item.value, item.how, number))
    why = f"resolved by {item.by}"
    if item.how == "succeeded":
        settle(turn, run, task, "succeeded", message=why)
    elif item.how == "retry":
        turn.emit(e.TaskRequeued(run.ix, task.ix, turn.now, why, False, "", -1, turn.now, lost=False))
    else:
        fail(turn, run, task, "UnknownOutcome", f"resolved as failed by {item.by}", winner=number)
    turn.reply(item.reply, {"run": run.ix})


def _resolved_before(turn: Turn, run: Run, task: Task, item: s.UnknownResolved) -> None:
    """The same word once more is answered as the first was. Raises: NotFound, Conflict."""
    name = turn.name(run, task)
    said = next((attempt.resolved for attempt in reversed(task.attempts) if attempt.resolved), "")
    if not said:
        raise NotFound(f"{name} is not unknown", hint="only an Unknown task is resolved")
    if said != item.how or (said == "succeeded" and task.value != item.value):
        raise Conflict(f"{name} was resolved before, as {said}", hint=f"asterism explain {name}")
    turn.reply(item.reply, {"run": run.ix, "known": True})


def _check_value(turn: Turn, task: Task, value: bytes) -> None:
    """A person's value stands for a result: it fits the skill's schema, and inline. Raises: SchemaMismatch."""
    if len(value) > INLINE_LIMIT:
        raise UsageError(f"a value may have {INLINE_LIMIT:,} bytes, this has {len(value):,}")
    spec = turn.contract(task)
    problems = check(spec.result, msgspec.json.decode(value), "value") if spec is not None and spec.result else []
    if problems:
        raise SchemaMismatch(f"that is no result of {task.skill}", problems=problems, hint="see asterism skills")


def specs_at(run: Run, version: int) -> tuple[dict[str, TaskSpec], Patch]:
    """The graph of `version`: its specs by id, in order, and a patch with the outputs it had."""
    found: dict[str, TaskSpec] = {}
    outputs = None
    for record in run.versions:
        if record.number > version:
            break
        for patch in record.patches:
            if patch.parent:
                continue
            found.update((spec.id, spec) for spec in patch.tasks)
            for edit in patch.edits:
                if edit.op == "remove":
                    found.pop(edit.id, None)
            for up, down in patch.links:
                if up not in found[down].after:
                    found[down] = msgspec.structs.replace(found[down], after=(*found[down].after, up))
            for up, down in patch.unlinks:
                after = tuple(name for name in found[down].after if name != up)
                found[down] = msgspec.structs.replace(found[down], after=after)
            outputs = patch.outputs if patch.outputs is not None else outputs
    return found, Patch("person", tuple(found.values()), outputs=outputs)


def forked(turn: Turn, item: s.ForkRequested) -> None:
    """A new run with an old graph; succeeded results of equal pins are taken over."""
    run = find_run(turn, item.run)
    if item.key and item.key in turn.state.keys:
        turn.reply(item.reply, {"run": turn.state.keys[item.key], "known": True})
        return
    at = run.version if item.at < 0 else item.at
    if not 1 <= at <= run.version:
        raise NotFound(f"{run.name} has versions 1 to {run.version}, not {at}")
    _, patch = specs_at(run, at)
    if gone := dangling(patch):
        raise Conflict(
            f"{run.name} at version {at} needs {', '.join(gone)}, which was removed",
            hint="fork an earlier version, or edit what needs it",
        )
    patch = msgspec.structs.replace(patch, author=f"person:{item.by}", why=f"fork of {run.name} at version {at}")
    number = turn.state.runs_made + 1
    turn.emit(
        e.RunSubmitted(
            number, run.request, item.key, item.by, run.settings, run.inputs, item.home or run.home, run.ix, run.labels,
            turn.now,
        )
    )  # fmt: skip
    turn.emit(e.PatchAccepted(number, 1, patch, turn.now, "", tuple(reusable(turn, run)), written(run, patch.tasks)))
    turn.emit(e.PlanClosed(number, partial=run.partial))
    arm(turn, turn.state.runs[number])
    turn.reply(item.reply, {"run": number, "fork_of": run.ix})


def reusable(turn: Turn, run: Run) -> list[tuple[bytes, Value]]:
    """(pin, value) of every result that a fork may take over: cached skills, and `once` always."""
    found = []
    for task in run.tasks:
        spec = turn.contract(task)
        winner = task.winner()
        if not task.succeeded or task.value is None or spec is None:
            continue
        cached = task.spec.cache if task.spec.cache is not None else spec.cached and turn.effect(task) == "pure"
        if not cached and turn.effect(task) != "once":
            continue
        if winner is not None and not task.reused:
            found.append((winner.pin, task.value))
        elif task.reused:  # it never ran here: its pin is what it would have run as
            digest = turn.state.digests.get(task.skill, "")
            found.append((turn.binder.bind(run, task, turn.state.journal, digest).pin, task.value))
    return found


def written(run: Run, specs: tuple[TaskSpec, ...]) -> tuple[tuple[str, int], ...]:
    """Whose these tasks of the run are: who restores them has not written them. What can't be told is LATER."""
    origins: dict[str, int] = {}
    wanted = {spec.id: spec for spec in specs}
    for name, spec in wanted.items():
        task = run.tasks[run.names[name]]
        origins[name] = task.origin if task.spec == spec else LATER
    for version in reversed(run.versions if not run.fork_of else ()):  # who wrote it first
        for patch in version.patches:
            for spec in patch.tasks:
                if spec == wanted.get(spec.id) and spec is not run.tasks[run.names[spec.id]].spec:
                    planned = patch.author == "planner" and version.number == 1
                    origins[spec.id] = PERSON if patch.author.startswith("person") else PLANNED if planned else LATER
    return tuple((name, origin) for name, origin in origins.items() if origin != PERSON)


def undone(turn: Turn, item: s.UndoRequested) -> None:
    """Take version N back, if nothing of it was dispatched."""
    run = find_run(turn, item.run)
    record = next((one for one in run.versions if one.number == item.version), None)
    if record is None:
        raise NotFound(f"{run.name} has versions 1 to {run.version}, not {item.version}")
    before, whole = specs_at(run, item.version - 1)
    patches = [patch for patch in record.patches if not patch.parent]
    done = [f"{edit.op} {edit.id}".strip() for patch in patches for edit in patch.edits]
    if done:
        hint = f"asterism fork {run.name} --at {item.version - 1}" if item.version > 1 else ""
        raise Conflict(f"version {item.version} can't be undone: {', '.join(done)} can't be taken back", hint=hint)
    ids = [spec.id for patch in patches for spec in patch.tasks]
    ids += [down for patch in patches for _, down in (*patch.links, *patch.unlinks)]
    ids = list(dict.fromkeys(ids))
    touched = [run.tasks[run.names[name]] for name in ids]
    busy = [run.name_of(task) for task in touched if task.attempts or task.spread is not None or task.final]
    if busy:
        raise Conflict(
            f"version {item.version} can't be undone: {', '.join(busy)} already dispatched", hint="cancel them"
        )
    restored = tuple(before[name] for name in ids if name in before)
    why = f"undo of version {item.version}"
    outputs = whole.outputs or () if any(patch.outputs is not None for patch in patches) else None
    edits = tuple(Edit("remove", name, why) for name in ids if name not in before)
    patch = Patch(f"person:{item.by}", restored, why, edits=edits, outputs=outputs)
    propose(turn, run, patch, written=written(run, restored))
    turn.reply(item.reply, {"version": run.version})


def removed(turn: Turn, item: s.RemoveRequested) -> None:
    run = find_run(turn, item.run)
    if type(run.state) is not Closed:
        raise Conflict(f"{run.name} is still open", hint=f"asterism cancel {run.name}")
    if any(not attempt.ended for task in run.tasks for attempt in task.attempts):
        raise Conflict(f"attempts of {run.name} are still being stopped", hint="try again in a few seconds")
    turn.emit(e.RunRemoved(run.ix))
    turn.reply(item.reply, {"run": run.ix})


def guarded(turn: Turn, reply: int, act: Callable[[Turn, Any], None], item: object) -> None:
    """Run one request; its refusal is its answer, and leaves nothing half-applied."""
    try:
        act(turn, item)
    except AsterismError as error:
        turn.refuse(reply, error)
