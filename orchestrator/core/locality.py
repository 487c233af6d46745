"""What a sub-plan may name, and how its facts get in: its own tasks under their short names, and `input/FACT`.

Invariant: a sub-plan reaches nothing else. What its author calls `scan` is `next.scan` in the graph; `input/n` becomes
what the plan.next task was given as the fact `n`: a reference stays one, so the value goes from task to task as any
other does, with its taint, and never through a prompt. A planner sees of a fact its type and size, and its value only
where that is no worker's text (core.digest.may_show), or was written into the plan.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from protocol.artifact import ArtifactRef
from protocol.digest import Fact
from protocol.document import canonical
from protocol.errors import PlanRefused, Problem
from protocol.patch import Patch
from protocol.pointer import MISSING, descend
from protocol.task import INPUT, AnyRef, Condition, FirstOf, Output, Ref, TaskSpec, reference_in, references

from .binding import RefMissing
from .digest import json_type, may_show, schema_at
from .graph import Run, Task
from .planner_call import PlannerCall
from .trust import holder
from .turn import Turn

MOST_SHOWN: Final = 1000
"""Bytes of a value that was written into the plan and is shown to its sub-planner."""


def owners(run: Run, task: Task) -> list[Task]:
    """The tasks that have had it planned or spawned, from the nearest on."""
    found: list[Task] = []
    while True:
        above = task.parent if task.parent >= 0 and run.tasks[task.parent].spread is None else -1
        if task.parent >= 0 and above < 0:
            task = run.tasks[task.parent]  # the map whose element it is
            continue
        above = above if above >= 0 else task.owner
        if above < 0:
            return found
        task = run.tasks[above]
        found.append(task)


def facts_of(run: Run, task: Task) -> dict[str, Any]:
    """What the task was given as facts, as its plan wrote it: by name, or as a whole under `facts`."""
    args = msgspec.json.decode(task.spec.args)
    given = args.get("facts", {}) if isinstance(args, dict) else {}
    if _is_literal(given) and isinstance(given["literal"], dict):
        given = {name: {"literal": value} for name, value in given["literal"].items()}
    if not isinstance(given, dict) or _reference(given) is not None or _is_literal(given):
        given = {"facts": given}
    return {
        name: _of_element(value, task.k) if holder(run, task) is not task else value for name, value in given.items()
    }


def _of_element(node: Any, k: int) -> Any:
    """The same with every `[]` as element `k`."""
    return _mapped(node, lambda ref: _written(_element(ref, k)))


def _element(ref: AnyRef, k: int) -> AnyRef:
    return Ref(ref.source, ref.item(k)) if isinstance(ref, Ref) and ref.each else ref


def _mapped(node: Any, change: Callable[[AnyRef], Any]) -> Any:
    """Arguments with each reference changed; what is literal is left alone."""
    if isinstance(node, dict):
        ref = reference_in(node)
        if ref is not None:
            return change(ref)
        return node if _is_literal(node) else {key: _mapped(one, change) for key, one in node.items()}
    return [_mapped(one, change) for one in node] if isinstance(node, list) else node


# What the planner sees


def fact_views(turn: Turn, run: Run, task: Task) -> tuple[Fact, ...]:
    """Each fact as far as it may be shown."""
    return tuple(_view(turn, run, name, node) for name, node in facts_of(run, task).items())


def _view(turn: Turn, run: Run, name: str, node: Any) -> Fact:
    if next(references(node), None) is None:  # its plan's author wrote it
        value = node["literal"] if _is_literal(node) else node
        data = canonical(value)
        return _fact(name, value, len(data), data if len(data) <= MOST_SHOWN else None)
    ref = _reference(node)
    if not isinstance(ref, Ref):
        return Fact(name, "any" if ref is not None else json_type(node))
    try:
        ref = turn.binder.follow(run, ref)
        found = turn.binder.input(run, ref)
    except RefMissing:
        return Fact(name, "missing")
    if found.parts is not None:
        return Fact(name, "list", items=len(found.parts))
    if isinstance(found.value, ArtifactRef):
        return Fact(name, "any", found.value.size)
    value = turn.binder.decoded(found.value)
    small = len(found.value) <= MOST_SHOWN
    shown = small and (ref.source == INPUT or may_show(_declared(turn, run, ref), value))
    return _fact(name, value, len(found.value), found.value if shown else None)


def _fact(name: str, value: object, size: int, data: bytes | None) -> Fact:
    return Fact(name, json_type(value), size, len(value) if isinstance(value, list) else -1, data)


def _declared(turn: Turn, run: Run, ref: Ref) -> dict[str, Any]:
    """What the skill of the reference's task says of the value there."""
    source = run.tasks[run.names[ref.source]]
    contract = turn.contract(source)
    path = ref.path[1:] if source.spread is not None else ref.path
    return schema_at(contract.result, path) if contract is not None and source.plan is None else {}


# What the planner writes


def localised(run: Run, call: PlannerCall, patch: Patch) -> Patch:
    """The patch of a sub-planner as one of the graph. Raises: PlanRefused with everything it may not name."""
    owner = run.tasks[call.task]
    assert owner.plan is not None
    inside = _Inside(owner.plan.prefix, facts_of(run, owner))
    tasks = tuple(inside.task(spec, f"tasks/{n}") for n, spec in enumerate(patch.tasks))
    outputs = patch.outputs
    if outputs is not None:
        outputs = tuple(inside.output(one, f"outputs/{one.name}") for one in outputs)
    if inside.problems:
        count = len(inside.problems)
        raise PlanRefused(f"the sub-plan has {count} problem{'s' * (count > 1)}", problems=inside.problems)
    pairs = [tuple((inside.name(up), inside.name(down)) for up, down in each) for each in (patch.links, patch.unlinks)]
    edits = tuple(msgspec.structs.replace(one, id=inside.name(one.id)) for one in patch.edits if one.op != "finish")
    return Patch(
        author="planner",
        tasks=tasks,
        why=patch.why,
        base=patch.base,
        relies=tuple(map(inside.name, patch.relies)),
        edits=edits,
        links=pairs[0],
        unlinks=pairs[1],
        outputs=outputs,
        parent=run.name_of(owner),
    )


class _Inside:
    """Names inside one sub-plan."""

    def __init__(self, prefix: str, facts: dict[str, Any]) -> None:
        self.prefix = prefix
        self.facts = facts
        self.problems: list[Problem] = []

    def name(self, short: str) -> str:
        return f"{self.prefix}.{short}"

    def task(self, spec: TaskSpec, where: str) -> TaskSpec:
        args = msgspec.json.decode(spec.args)
        return msgspec.structs.replace(
            spec,
            id=self.name(spec.id),
            args=canonical(_mapped(args, lambda ref: self._argument(ref, f"{where}/args"))),
            when=tuple(self._line(line, f"{where}/when") for line in spec.when),
            after=tuple(map(self.name, spec.after)),
            on=tuple(self._plain(word, f"{where}/on") if isinstance(word, Ref) else word for word in spec.on),
        )

    def output(self, output: Output, where: str) -> Output:
        refs = output.ref.refs if isinstance(output.ref, FirstOf) else (output.ref,)
        found = tuple(self._plain(ref, where) for ref in refs)
        return Output(output.name, FirstOf(found) if isinstance(output.ref, FirstOf) else found[0])

    def _line(self, line: Condition, where: str) -> Condition:
        return msgspec.structs.replace(line, ref=self._plain(line.ref, where))

    def _argument(self, ref: AnyRef, where: str) -> Any:
        if isinstance(ref, Ref):
            return self._outside(ref, where)
        return _written(FirstOf(tuple(self._plain(one, where) for one in ref.refs)))

    def _plain(self, ref: Ref, where: str) -> Ref:
        """Where a value that is written down can't stand."""
        inner = _reference(self._outside(ref, where))
        if isinstance(inner, Ref):
            return inner
        fix = "write the value itself, or give it out by flow.echo"
        self.problems.append(Problem("BadReference", where, f"{ref} is no result of a task", fix))
        return ref

    def _outside(self, ref: Ref, where: str) -> Any:
        """A reference of the sub-plan as the graph has it: the same task by its long name, or what the fact is."""
        if ref.source != INPUT:
            return _written(msgspec.structs.replace(ref, source=self.name(ref.source)))
        if ref.path[0] not in self.facts:
            return _written(ref)  # an input of the run
        node, path = self.facts[ref.path[0]], ref.path[1:]
        while (inner := _reference(node)) is None and not _is_literal(node) and path:
            node, path = descend(node, path[:1]), path[1:]
        if isinstance(inner, Ref):
            return _written(msgspec.structs.replace(inner, path=(*inner.path, *path), each=ref.each, rest=ref.rest))
        if isinstance(inner, FirstOf) and not ref.each:
            return _written(FirstOf(tuple(msgspec.structs.replace(one, path=(*one.path, *path)) for one in inner.refs)))
        value = descend(node["literal"], path) if _is_literal(node) else node
        if value is MISSING:
            self.problems.append(Problem("UnknownInput", where, f"the fact has nothing at {ref}", "name what it has"))
            return None
        if ref.each:
            fix = "give the list out by flow.list first"
            self.problems.append(Problem("MapType", where, f"{ref}: that list was written into the plan", fix))
        return {"literal": value} if _is_literal(node) else value


def _reference(node: Any) -> AnyRef | None:
    return reference_in(node) if isinstance(node, dict) else None


def _is_literal(node: Any) -> bool:
    return isinstance(node, dict) and set(node) == {"literal"}


def _written(ref: AnyRef) -> dict[str, Any]:
    """The reference as arguments have it."""
    return {"ref": str(ref) if isinstance(ref, Ref) else [str(one) for one in ref.refs]}
